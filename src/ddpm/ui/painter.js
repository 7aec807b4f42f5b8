const canvas = element.querySelector("canvas");
const size = element.querySelector("input[type=range]");
const said = element.querySelector(".said");
const wide = Number(canvas.dataset.width), high = Number(canvas.dataset.height);
const scale = Math.max(1, Math.floor(384 / Math.max(wide, high)));
canvas.width = wide * scale;
canvas.height = high * scale;
const pen = canvas.getContext("2d");
const marks = new Uint8Array(wide * high);
const picture = new Image();
let x = wide >> 1, y = high >> 1, pressed = false, focused = false;
const draw = () => {
  pen.imageSmoothingEnabled = false;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (picture.complete && picture.naturalWidth) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  pen.fillStyle = "rgba(213, 94, 0, 0.85)";
  for (let i = 0; i < marks.length; i++)
    if (marks[i]) pen.fillRect((i % wide) * scale, Math.floor(i / wide) * scale, scale, scale);
  if (!focused) return;
  const half = Number(size.value) / 2;
  pen.lineWidth = 2;
  for (const [colour, dash] of [["#fff", []], ["#000", [5, 5]]]) {
    pen.strokeStyle = colour;
    pen.setLineDash(dash);
    pen.strokeRect((x + 0.5 - half) * scale, (y + 0.5 - half) * scale, 2 * half * scale, 2 * half * scale);
  }
};
const tell = () => {
  const count = marks.reduce((sum, mark) => sum + mark, 0);
  said.textContent = count + " of " + marks.length + " pixels are painted over";
  props.value = Array.from(marks).join("");
  draw();
};
const dab = (mark) => {
  const half = Number(size.value) / 2;
  for (let row = Math.ceil(y + 0.5 - half - 0.5); row < y + 0.5 + half - 0.5; row++)
    for (let column = Math.ceil(x + 0.5 - half - 0.5); column < x + 0.5 + half - 0.5; column++)
      if (row >= 0 && row < high && column >= 0 && column < wide) marks[row * wide + column] = mark;
};
const follow = (event) => {
  const box = canvas.getBoundingClientRect();
  x = Math.floor(((event.clientX - box.left) / box.width) * wide);
  y = Math.floor(((event.clientY - box.top) / box.height) * high);
};
canvas.addEventListener("pointerdown", (event) => {
  pressed = true;
  canvas.setPointerCapture(event.pointerId);
  follow(event);
  dab(event.shiftKey ? 0 : 1);
  tell();
});
canvas.addEventListener("pointermove", (event) => {
  if (!pressed) return;
  follow(event);
  dab(event.shiftKey ? 0 : 1);
  draw();
});
for (const name of ["pointerup", "pointercancel"])
  canvas.addEventListener(name, () => {
    if (pressed) tell();
    pressed = false;
  });
const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  const move = moves[event.key];
  const mark = { " ": 1, Enter: 1, Delete: 0, Backspace: 0 }[event.key];
  if (move) {
    x = Math.min(wide - 1, Math.max(0, x + move[0]));
    y = Math.min(high - 1, Math.max(0, y + move[1]));
    draw();
  } else if (mark !== undefined) {
    dab(mark);
    tell();
  } else return;
  event.preventDefault();
});
canvas.addEventListener("focus", () => { focused = true; draw(); });
canvas.addEventListener("blur", () => { focused = false; draw(); });
element.querySelector(".clear").addEventListener("click", () => { marks.fill(0); tell(); });
element.querySelector(".middle").addEventListener("click", () => {
  for (let i = 0; i < marks.length; i++) {
    const column = i % wide, row = Math.floor(i / wide);
    marks[i] = column >= wide / 4 && column < (3 * wide) / 4 && row >= high / 4 && row < (3 * high) / 4 ? 1 : 0;
  }
  tell();
});
picture.onload = draw;
const show = () => { if (props.picture) picture.src = props.picture; };
watch("picture", show);
show();
tell();
