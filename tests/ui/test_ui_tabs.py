"""What the tabs compute and show, without a browser: checked against the library's own verbs."""

import base64
import io
import math
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import Plan
from ddpm.data.images import ImageFormat, byte_mse, psnr
from ddpm.errors import DdpmError
from ddpm.evaluation import held_out as evaluation_held_out
from ddpm.evaluation.held_out import judging_plan
from ddpm.evaluation.image_formats import QUALITIES
from ddpm.latents import inpaint, interpolate
from ddpm.likelihood.held_out import HeldOut
from ddpm.loading import load
from ddpm.pretrained import pretrained
from ddpm.runs.folder import RunFolder
from ddpm.ui import charts, compressed_view, compressing, drawing, filling, likely, mixing, uploads
from ddpm.ui.bench import Bench
from ddpm.ui.drawing import Wish
from ddpm.ui.examples import examples
from ddpm.ui.work import Work
from helpers import checkpoint_path, measured_model, tiny_images, tiny_model


@pytest.fixture(scope="module")
def model():
    return measured_model()


@pytest.fixture
def image():
    return tiny_images(1, seed=3).images[0]


def pictures_of(text):
    """The pictures in some HTML, as arrays."""
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_what_is_drawn_is_what_the_command_that_is_told_draws(model):
    wish = Wish(seed=5, n=3, steps=7, sampler="ancestral")
    drawn = drawing.draw(model, wish, Work())
    assert torch.equal(drawn.images, model.sample(3, seed=5, sampler="ancestral", steps=7))
    command = wish.command("runs/tiny")
    assert command.startswith("ddpm sample runs/tiny -n 3 --seed 5 --sampler ancestral --steps 7")
    last = pictures_of(drawing.frame(model, drawn, len(drawn.times)))
    shown = model.format.to_display(drawn.images)
    assert all(np.array_equal(a, b) for a, b in zip(last, shown, strict=True))


def test_bits_received_rise_from_the_prior_to_all_of_the_bound(model):
    drawn = drawing.draw(model, Wish(n=2, steps=6), Work())
    assert drawn.times[0] == model.diffusion.num_timesteps
    assert drawn.times == sorted(drawn.times, reverse=True)
    timesteps = tuple(t - 1 for t in reversed(drawn.times))
    bound = model.bound(drawn.images[:1], plan=Plan(None, timesteps, "analytic"))
    dims = drawn.images[0].numel()
    assert drawn.bits[0] == pytest.approx(float(bound.prior[0]) * dims)
    assert drawn.bits[-1] == pytest.approx(bound.mean * dims)
    assert drawn.bits == sorted(drawn.bits)
    text = drawing.frame(model, drawn, 2)
    assert f"{drawn.bits[2]:,.0f} bits received so far" in text
    assert len(pictures_of(text)) == 2 * 2


def test_at_most_so_many_moments_are_kept(model, monkeypatch):
    monkeypatch.setattr(drawing, "MOMENTS", 4)
    drawn = drawing.draw(model, Wish(n=1, steps=20), Work())
    assert (len(drawn.noisy), len(drawn.bits)) == (4, 5)
    assert (drawn.steps[0], drawn.steps[-1]) == (0, 19)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(n=17), "draws 1..16"),
        (Wish(steps=251), "1..250 steps"),
        (Wish(seed=-1), "seed"),
        (Wish(sampler="magic"), "unknown sampler"),
        (Wish(label="cat"), "class"),
    ],
)
def test_what_cannot_be_drawn_is_said(model, wish, words):
    with pytest.raises(DdpmError, match=words):
        drawing.draw(model, wish, Work())


def test_the_places_on_the_curve_are_what_those_bytes_decode_to(model, image):
    packed = compressing.pack(model, image, "a.png", Work())
    assert packed.name == "a.ddpm"
    assert packed.data == model.compress([image])
    for one in packed.beginnings[::8]:
        part = model.decompress(packed.data[: one.bytes])
        assert torch.equal(part.images[0], one.images[0])
        assert one.psnr == pytest.approx(psnr(byte_mse(part.images[0], image, model.format)))
    assert (packed.beginnings[0].bytes, packed.beginnings[-1].bytes) == (
        packed.head,
        len(packed.data),
    )
    assert math.isinf(packed.beginnings[-1].psnr)
    size = packed.head + 3
    found = compressing.beginning(model, packed, size, Work())
    assert found.bytes == size
    assert torch.equal(found.images[0], model.decompress(packed.data[:size]).images[0])
    assert compressing.nearest(packed, size).bytes <= size


def test_the_run_keeps_what_a_file_of_the_page_needs(model, image, tmp_path):
    path = checkpoint_path(tmp_path / "run", 3)
    model.save(path)
    found = []
    for place in (path, None, next(iter(pretrained().values()))):
        packed = compressing.pack(model, image, "a.png", Work(), Bench("run", model, place).keep())
        found.append(compressed_view.view(packed, packed.beginnings[0], model.format))
    assert RunFolder(tmp_path / "run").pinned() == [path]
    needs = "To decode it, the checkpoint of run is needed, which the run keeps from now on."
    assert [needs in text for text in found] == [True, False, False]
    assert str(tmp_path) not in found[0]


def test_other_formats_have_at_most_as_many_bytes_and_are_as_close_as_they_can_be(model, image):
    packed = compressing.pack(model, image, "a.png", Work())
    assert {"JPEG", "WebP"} <= packed.rivals.keys()
    for name, rivals in packed.rivals.items():
        sizes = [rival.bytes for rival in rivals]
        assert compressing.best_rival(rivals, min(sizes) - 1) is None
        best = compressing.best_rival(rivals, sizes[len(sizes) // 2])
        assert best.bytes <= sizes[len(sizes) // 2], name
        assert best.psnr == max(r.psnr for r in rivals if r.bytes <= sizes[len(sizes) // 2])
    pixels = model.format.to_bytes(image[0].numpy()).astype(float)
    for rival in packed.rivals["JPEG"]:
        mse = np.square(np.asarray(rival.picture, float) - pixels).mean()
        assert rival.psnr == pytest.approx(10 * math.log10(255**2 / mse))
    buffer = io.BytesIO()
    shown = Image.fromarray(pixels.astype(np.uint8))
    shown.save(buffer, "JPEG", quality=50, optimize=True)
    assert len(buffer.getvalue()) in {rival.bytes for rival in packed.rivals["JPEG"]}


def test_colours_are_also_written_at_their_whole_size():
    image = examples(ImageFormat(3, 32, 32))[5].image
    rivals = compressing.rivals_of(image, ImageFormat(3, 32, 32), "JPEG")
    assert len(rivals) == 2 * len(QUALITIES)
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
    sizes = {}
    for subsampling in (0, 2):
        buffer = io.BytesIO()
        pixels.save(buffer, "JPEG", quality=QUALITIES[-1], optimize=True, subsampling=subsampling)
        sizes[subsampling] = len(buffer.getvalue())
    assert set(sizes.values()) <= {rival.bytes for rival in rivals}
    best = max(rivals, key=lambda rival: rival.psnr)
    assert best.bytes == sizes[0]


def test_a_file_that_is_only_a_beginning_has_no_error(model, image):
    data = model.compress([image])
    packed = compressing.examine(model, data[:-3], "part.ddpm", Work())
    assert packed.originals is None
    text = compressed_view.view(packed, packed.beginnings[-1], model.format)
    assert "original unknown" in text
    assert "only a beginning" in text


def test_a_file_of_several_images_is_shown_as_a_whole(model):
    images = list(tiny_images(5).images)
    packed = compressing.examine(model, model.compress(images), "five.ddpm", Work())
    assert all(map(torch.equal, packed.originals, images))
    assert packed.values == 5 * 64
    picture = pictures_of(compressed_view.view(packed, packed.beginnings[-1], model.format))[0]
    assert picture.shape == (16, 24, 3)
    assert np.array_equal(picture[8:, 8:16], model.format.to_display(images[4][None])[0])


def test_files_that_are_too_large_or_no_files_are_refused(model):
    data = model.compress(list(tiny_images(17).images))
    with pytest.raises(DdpmError, match="17 images"):
        compressing.examine(model, data, "many.ddpm", Work())
    with pytest.raises(DdpmError, match="not a file of"):
        compressing.examine(model, b"nothing", "a.ddpm", Work())
    with pytest.raises(DdpmError, match="ddpm measure"):
        compressing.pack(tiny_model(), tiny_images(1).images[0], "a", Work())


def test_both_rows_are_those_of_the_library(model):
    first, second = tiny_images(2).images
    mixed = mixing.mix(model, first, second, 10, 5, 4, Work())
    for sampler in ("ancestral", "ddim"):
        parts = model, first[None], second[None], [0.3], 10
        found = interpolate(*parts, seed=4, sampler=sampler, plan=Plan(5))
        assert torch.equal(mixed.rows[sampler][3], found[0, 0])
    text = mixing.view(model, mixed, 0.3)
    assert len(pictures_of(text)) == 4 + 2 * 13
    picked = re.findall(r'picked"><img src="[^"]*" alt="([^"]*)"', text)
    assert picked == ["λ = 0.3"] * 2


def test_only_what_is_painted_over_changes(model, image):
    painted = "".join("1" if i % 8 < 3 else "0" for i in range(64))
    mask = filling.as_mask(painted, model.format)
    assert mask[:, :3].all()
    assert not mask[:, 3:].any()
    filled = filling.fill(model, image, mask, 2, 5, 2, 9, Work())
    assert torch.equal(filled.fillings[:, :, :, 3:], image[:, :, 3:].expand(2, 1, 8, 5))
    again = inpaint(model, image.expand(2, 1, 8, 8), mask, seed=9, plan=Plan(5), repeats=2)
    assert torch.equal(filled.fillings, again)
    assert "24 of 64 pixels" in filling.view(model, filled)


@pytest.mark.parametrize("painted", ["", "0" * 64, "1" * 63, "2" * 64])
def test_a_mask_that_is_none_is_refused(model, painted):
    with pytest.raises(DdpmError, match="nothing is painted over"):
        filling.as_mask(painted, model.format)


def test_terms_add_up_and_the_place_among_held_out_images_is_told(model, image):
    held = HeldOut((1.0, 2.0, 3.0, 100.0), "some images")
    found = likely.measure(model, image, held, Work())
    bound = model.bound(image[None], plan=judging_plan(model))
    total = float(found.bound.total[0])
    assert total == pytest.approx(bound.mean)
    text = likely.view(found)
    assert f"{total:.3f} bits/dim" in text
    share = sum(value < total for value in held.bits_per_dim) / 4
    assert f"{share:.0%} of them are likelier" in text.replace("\n", " ")
    assert text.count("<rect") == 20


def test_held_out_images_of_digits_are_measured_and_others_are_said_to_be_missing(
    model, monkeypatch
):
    monkeypatch.setattr(evaluation_held_out, "IMAGES", 3)
    bench = Bench("tiny", model)
    found = bench.held_out(Work())
    assert (len(found.bits_per_dim), found.name) == (3, "digits (test)")
    assert bench.held_out(Work()) is found
    other = tiny_model()
    object.__setattr__(other.config.data, "path", "/there/is/nothing")
    assert likely.held_out(other, Work()) is None
    assert "keeps no figures" in likely.view(
        likely.measure(model, tiny_images(1).images[0], None, Work())
    )


def test_figures_that_a_file_keeps_are_taken():
    for file in pretrained().values():
        shipped = load(file, device="cpu")
        kept = likely.held_out(shipped, Work())
        assert kept is shipped.held_out
        assert len(kept.bits_per_dim) >= 100
        assert 3 < np.mean(kept.bits_per_dim) < 4.5


def png(array, **options):
    """The bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def test_a_turned_photo_is_read_as_our_own_loader_reads_it():
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20, 0] = 255
    turned = Image.Exif()
    turned[0x0112] = 6
    data = png(pixels, exif=turned)
    with pytest.raises(DdpmError, match="an EXIF orientation"):
        uploads.exact(data, "turned.png", ImageFormat(3, 8, 8))
    levels, about = uploads.fitted(data, "turned.png", ImageFormat(3, 8, 8))
    assert "20x40 pixels, cut and scaled to 8x8" in about
    assert (levels[0, :3] > 250).all()
    assert (levels[0, 5:] < 5).all()


def test_an_image_of_the_models_size_is_taken_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    levels, about = uploads.fitted(png(pixels), "a.png", ImageFormat(3, 8, 8))
    assert np.array_equal(levels.permute(1, 2, 0).numpy(), pixels)
    assert about == "a.png, as it is"
    exact = uploads.exact(png(pixels), "a.png", ImageFormat(3, 32, 32))
    assert torch.equal(exact, levels)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_read():
    small = png(np.zeros((1, 1), np.uint8))
    head = b"IHDR" + struct.pack(">II", 9000, 9000) + small[24:29]
    bomb = small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:]
    with pytest.raises(DdpmError, match="9,000x9,000 pixels"):
        uploads.exact(bomb, "bomb.png", ImageFormat(1, 8, 8))
    with pytest.raises(DdpmError, match="9,000x9,000 pixels"):
        uploads.fitted(bomb, "bomb.png", ImageFormat(1, 8, 8))


@pytest.mark.parametrize(
    ("given", "kept"), [("/etc/a.png", "a.png"), ("C:\\x\\b.png", "b.png"), ("", "the file")]
)
def test_of_a_name_the_end_is_kept(given, kept):
    assert uploads.base_name(given) == kept


def test_choices_are_examples_or_files(model):
    bench = Bench("tiny", model)
    known = examples(model.format)
    image, name = bench.image("example:1")
    assert torch.equal(image, known[1].image)
    assert name == known[1].name
    token = bench.inbox.put(png(np.zeros((8, 8), np.uint8)))
    assert bench.exact_image(f"upload:{token}:a.png")[1] == "a.png"
    for choice in ("", "waiting", "example:99", "example:x", "upload:none:a.png"):
        with pytest.raises(DdpmError, match="choose"):
            bench.image(choice)


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_are_photos_in_a_models_size(channels):
    found = examples(ImageFormat(channels, 16, 16))
    assert len(found) == 6
    assert all(one.image.shape == (channels, 16, 16) for one in found)
    assert all(one.image.float().std() > 10 for one in found)
    assert examples(ImageFormat(2, 8, 8)) == ()


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (11.5, 48, [20, 30, 40]), (0, 0.05, [0, 0.01, 0.02])],
)
def test_ticks_are_round_and_inside(low, high, found):
    assert charts.ticks(low, high)[: len(found)] == pytest.approx(found)


def test_curves_go_where_their_numbers_say():
    text = charts.curves([charts.Curve("a", [0, 50, 100], [0, 5, 10])], "x", "y", at=50, about="b")
    points = re.search(r'points="([^"]*)"', text)[1].split(" ")
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points)
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.11)
    assert y0 > y1 > y2
    assert f"M{x1:.1f} " in text
    assert 'aria-label="b"' in text
    log = charts.curves([charts.Curve("a", [1, 10, 100], [0, 5, 10])], "x", "y", log=True)
    xs = [float(p.split(",")[0]) for p in re.search(r'points="([^"]*)"', log)[1].split(" ")]
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2, abs=0.11)


def test_words_of_strangers_are_no_html(model, image):
    packed = compressing.pack(model, image, "<img src=x>.png", Work())
    text = compressed_view.view(packed, packed.beginnings[3], model.format)
    assert "<img src=x>" not in text
