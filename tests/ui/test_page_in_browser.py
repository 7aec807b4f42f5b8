"""The page in a real browser: every tab used as a person would, and no other host asked."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from ddpm.cli import main
from helpers import tiny_images

pytestmark = pytest.mark.slow
PHONE = {"width": 390, "height": 844}


def png(pixels):
    """The bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def digit():
    """A picture of 8x8 pixels with 17 grey levels."""
    return np.round(tiny_images(1).images[0, 0].numpy() * (255 / 16)).astype(np.uint8)


def hand_in(page, place, file):
    """Choose a file, and wait until it has arrived."""
    page.set_input_files(f"{place} input[type=file]", file)
    page.locator(f"{place} .said", has_text=f"{file.name}, ").wait_for()


def drag(page, place, share):
    """Drag the knob of a slider to a share of its length."""
    knob = page.locator(f"{place} input[type=range]")
    knob.scroll_into_view_if_needed()
    box = knob.bounding_box()
    low, high, now = (float(knob.get_attribute(n) or 0) for n in ("min", "max", "value"))
    now = float(knob.input_value())
    at = box["x"] + 8 + (now - low) / (high - low) * (box["width"] - 16)
    middle = box["y"] + box["height"] / 2
    page.mouse.move(at, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 8 + share * (box["width"] - 16), middle, steps=8)
    page.mouse.up()
    return knob


def test_the_first_picture_comes_by_itself_and_the_way_to_it_can_be_walked(visit):
    one = visit()
    one.page.wait_for_selector("#drawn img")
    assert "finished" in one.page.inner_text("#drawn")
    drag(one.page, "#moment", 0)
    one.page.get_by_text("t = 20,").wait_for()
    text = one.page.inner_text("#drawn")
    assert "0 bits received so far" in text or "bits received so far" in text
    assert one.page.locator("#drawn .pair").count() == 4
    first = one.page.locator("#drawn img").first.get_attribute("src")
    drag(one.page, "#moment", 0.5)
    one.page.wait_for_function(
        "(old) => document.querySelector('#drawn img').src != old", arg=first
    )


def test_a_file_is_compressed_looked_into_downloaded_and_decoded(visit, model_file, tmp_path):
    picture = tmp_path / "five.png"
    picture.write_bytes(png(digit()))
    one = visit()
    one.tab("Compress")
    hand_in(one.page, "#packed", picture)
    one.press("Compress")
    one.page.wait_for_selector("#compressed img")
    drag(one.page, "#bytes", 0.9)
    one.done()
    with one.page.expect_download() as started:
        one.page.get_by_text("the file,").click()
    whole = tmp_path / started.value.suggested_filename
    started.value.save_as(whole)
    assert whole.name == "five.ddpm"
    with one.page.expect_download() as started:
        one.page.get_by_text("its beginning,").click()
    part = tmp_path / started.value.suggested_filename
    started.value.save_as(part)
    assert whole.read_bytes().startswith(part.read_bytes())
    assert part.stat().st_size < whole.stat().st_size
    for file in (whole, part):
        out = file.with_suffix(".out.png")
        assert main(["decompress", str(model_file), str(file), "-o", str(out)]) == 0
    decoded = np.asarray(Image.open(whole.with_suffix(".out.png")))
    assert np.array_equal(decoded, digit())
    hand_in(one.page, "#archive", part)
    one.page.get_by_text("only a beginning").wait_for()


def test_wrong_uploads_get_the_librarys_sentence(visit, tmp_path):
    one = visit()
    one.tab("Compress")
    wrong = {
        "words.png": (b"these are words", "cannot be read as an image"),
        "sixteen.png": (png(np.full((8, 8), 40_000, np.uint16)), "16 bits a sample"),
        "colour.png": (png(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)), "colours, which"),
        "large.png": (png(np.zeros((400, 400), np.uint8)), "400x400 pixels"),
        "huge.png": (bytes((16 << 20) + 1), "16,777,217 bytes"),
    }
    for name, (data, words) in wrong.items():
        (tmp_path / name).write_bytes(data)
        if name == "huge.png":
            one.page.set_input_files("#packed input[type=file]", tmp_path / name)
        else:
            hand_in(one.page, "#packed", tmp_path / name)
            one.press("Compress")
        one.page.locator("[role=alert]:visible", has_text=words).wait_for()
    (tmp_path / "none.ddpm").write_bytes(b"nothing of ours")
    hand_in(one.page, "#archive", tmp_path / "none.ddpm")
    one.page.get_by_text("not a file of").wait_for()


def test_two_images_are_mixed(visit):
    one = visit()
    one.tab("In between")
    one.press("Mix")
    one.page.wait_for_selector("#mixed img")
    assert one.page.locator("#mixed .small").count() == 2
    assert one.page.locator("#mixed .small img").count() == 2 * 13
    drag(one.page, "#weight", 0.2)
    one.page.locator("#mixed", has_text="λ = 0.2").wait_for()


def test_a_part_is_painted_over_and_filled_in(visit):
    one = visit()
    one.tab("Fill in")
    one.press("Fill in")
    one.page.get_by_text("nothing is painted over yet").wait_for()
    canvas = one.page.locator("#painter canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    one.page.mouse.move(box["x"] + 60, box["y"] + 60)
    one.page.mouse.down()
    one.page.mouse.move(box["x"] + 200, box["y"] + 60, steps=10)
    one.page.mouse.up()
    said = one.page.inner_text("#painter .said")
    assert 1 < int(said.split(" ")[0]) < 40, said
    one.press("Fill in")
    one.page.wait_for_selector("#fillings img")
    assert f"{said.split(' ')[0]} of 64 pixels filled in" in one.page.inner_text("#fillings")


def test_an_image_is_judged_beside_held_out_ones(visit):
    one = visit()
    one.tab("How likely")
    one.press("Measure")
    one.page.wait_for_selector("#likelihood svg")
    text = one.page.inner_text("#likelihood")
    assert "L_0, the exact pixels" in text
    assert "64 images of digits (test)" in text


def test_everything_can_be_done_with_keys_alone(visit):
    one = visit()
    one.page.wait_for_selector("#drawn img")
    one.page.get_by_role("tab", name="Draw", exact=True).focus()
    for _ in range(3):
        one.page.keyboard.press("Tab")
    one.page.keyboard.press("Enter")
    canvas = one.page.locator("#painter canvas")
    canvas.wait_for()
    for _ in range(60):
        one.page.keyboard.press("Tab")
        if one.page.evaluate("document.activeElement.tagName") == "CANVAS":
            break
    one.page.keyboard.press("Space")
    one.page.keyboard.press("ArrowRight")
    one.page.keyboard.press("Space")
    assert not one.page.inner_text("#painter .said").startswith("0 of")
    for _ in range(20):
        one.page.keyboard.press("Tab")
        if one.page.evaluate("document.activeElement.innerText") == "Fill in":
            break
    one.page.keyboard.press("Enter")
    one.page.wait_for_selector("#fillings img")


@pytest.mark.parametrize("size", [{}, PHONE, {"scheme": "dark"}])
def test_labels_and_contrast_by_axe_in_every_tab_and_no_scrolling_sideways(visit, axe, size):
    one = visit(**size)
    one.page.wait_for_selector("#drawn img")
    for name, button in (
        ("Draw", None),
        ("Compress", "Compress"),
        ("In between", "Mix"),
        ("Fill in", None),
        ("How likely", "Measure"),
    ):
        tab(one, name)
        if button is not None:
            one.press(button)
            one.done()
        one.page.wait_for_timeout(300)
        one.page.evaluate(axe)
        found = one.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        faults = [
            (fault["id"], node["html"][:150], node.get("failureSummary", "")[:200])
            for fault in found["violations"]
            for node in fault["nodes"]
        ]
        assert faults == [], name
        wide = one.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, name


def tab(one, name):
    """Open a tab, also one that a narrow window hides in a menu."""
    found = one.page.get_by_role("tab", name=name, exact=True)
    if not found.locator("visible=true").count():
        one.page.locator(".overflow-menu button").first.click()
        one.page.locator(".overflow-dropdown button", has_text=name).click()
        return
    found.locator("visible=true").first.click()


def test_two_people_do_not_mix_their_results(visit):
    first, second = visit(), visit()
    for one, seed in ((first, 1), (second, 2)):
        one.page.wait_for_selector("#drawn img")
        one.page.get_by_label("seed", exact=True).locator("visible=true").fill(str(seed))
    first.press("Draw")
    second.press("Draw")
    for one, seed in ((first, 1), (second, 2)):
        one.page.get_by_text(f"--seed {seed}").wait_for()
    seen = []
    for one in (first, second):
        drag(one.page, "#moment", 0.3)
        one.page.get_by_text("received so far").wait_for()
        one.page.wait_for_selector("#drawn .pair")
        seen.append(one.page.locator("#drawn img").first.get_attribute("src"))
    assert seen[0] != seen[1]


def test_work_can_be_stopped_and_a_closed_page_leaves_none_behind(visit, server):
    one = visit("model/1/")
    one.page.wait_for_selector("#drawn img")
    for what, value in (("steps", "250"), ("number", "16")):  # a minute or more, with heun
        field = one.page.get_by_label(f"number input for {what}", exact=True)
        field.locator("visible=true").fill(value)
        one.page.keyboard.press("Tab")
    one.page.get_by_label("heun", exact=True).locator("visible=true").check()
    one.press("Draw")
    one.page.locator("progress:visible").wait_for()
    one.press("Stop")
    one.page.get_by_text("stopped").wait_for()
    one.press("Draw")
    one.page.locator("progress[max='499']:visible").wait_for()
    one.context.close()
    begun = time.monotonic()
    other = visit("model/1/")  # whose first picture would wait for the work that is left
    other.page.wait_for_selector("#drawn img")
    assert time.monotonic() - begun < 30


def test_the_server_calls_nobody_and_leaves_no_files(visit, server):
    one = visit()
    one.page.wait_for_selector("#drawn img")
    assert server.log.read_text() == ""
    assert server.files() == []
    assert "Traceback" not in server.errors.read_text()
