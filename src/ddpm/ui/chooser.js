const said = element.querySelector(".said");
const box = element.querySelector(".chooser");
const file = element.querySelector("input[type=file]");
const choose = (value) => {
  props.value = value;
  trigger("chosen");
};
for (const radio of element.querySelectorAll("input[type=radio]")) {
  radio.addEventListener("change", () => {
    said.textContent = "";
    said.classList.remove("wrong");
    file.value = "";
    choose("example:" + radio.value);
  });
}
const handIn = async (given) => {
  const most = Number(box.dataset.most);
  const tooLarge = given.size > most;
  said.textContent = "reading ...";
  said.classList.remove("wrong");
  props.value = "waiting";
  const answer = await fetch("/upload", {
    method: "POST",
    headers: { "X-Size": String(given.size) },
    body: tooLarge ? "" : given,
  });
  const text = await answer.text();
  for (const radio of element.querySelectorAll("input[type=radio]")) radio.checked = false;
  if (answer.ok) choose("upload:" + text + ":" + given.name);
  said.classList.toggle("wrong", !answer.ok);
  said.textContent = answer.ok ? given.name + ", " + given.size.toLocaleString("en") + " bytes" : text;
};
file.addEventListener("change", () => file.files.length && handIn(file.files[0]));
box.addEventListener("dragover", (event) => event.preventDefault());
box.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) handIn(event.dataTransfer.files[0]);
});
