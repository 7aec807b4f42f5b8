"""`ddpm compress` keeps a picture to the last bit or refuses it; --convert says what goes."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from codec.kept_cases import COLOURS, KEPT, REFUSED, UNREADABLE
from data.odd_pictures import encoded
from ddpm.cli import main
from full_range import one_thread, save_models
from helpers import measured_model
from mistakes import everything_below, refused

pytestmark = pytest.mark.slow  # many members


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Model files: of 1 and 3 channels with 256 grey levels, and (17) of 17 grey levels."""
    folder = tmp_path_factory.mktemp("models")
    with one_thread():
        measured_model().save(folder / "17.safetensors")
    return {**save_models(folder), 17: folder / "17.safetensors"}


@pytest.fixture(autouse=True)
def quick():
    """Without threads that wait for each other."""
    with one_thread():
        yield


@pytest.fixture
def pictures(tmp_path):
    """A folder for the pictures."""
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def read(path):
    """(mode, RGB pixels) of a PNG file."""
    with Image.open(path) as image:
        return image.mode, np.asarray(image.convert("RGB")).astype(int)


def compress(model, source, out, *options):
    """The command."""
    return [str(a) for a in ("compress", model, source, "-o", out, "--steps", "2", *options)]


def come_back(model, source, folder, *options):
    """The mode and the pixels of every picture, in order, after `compress` and `decompress`."""
    assert main(compress(model, source, folder / "x.ddpm", *options)) == 0
    assert main(["decompress", str(model), str(folder / "x.ddpm"), "-o", str(folder / "out")]) == 0
    return [read(path) for path in sorted((folder / "out").iterdir())]


def shown(case):
    """The picture of a case, [h, w, 3]."""
    if case.shown is not None:
        return case.shown.astype(int)
    with Image.open(io.BytesIO(case.data)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("name", KEPT)
def test_this_is_kept_exactly(name, models, tmp_path, pictures, capsys):
    case = KEPT[name]
    (pictures / name).write_bytes(case.data)
    ((mode, pixels),) = come_back(models[case.channels], pictures, tmp_path)
    assert mode == ("RGB" if case.channels == 3 else "L")
    assert np.array_equal(pixels, shown(case))
    said = capsys.readouterr()
    assert "exact" in said.out
    assert "convert" not in said.out


@pytest.mark.parametrize("name", REFUSED)
def test_this_is_refused_with_its_name_and_the_reason(name, models, tmp_path, pictures, capsys):
    case = REFUSED[name]
    (pictures / name).write_bytes(case.data)
    before = everything_below(tmp_path)
    source = pictures / name if len(name) % 2 else pictures  # alone, or in its folder
    line = refused(compress(models[case.channels], source, tmp_path / "x.ddpm"), capsys, name)
    assert re.search(case.word, line.replace(name, ""), re.IGNORECASE)
    assert everything_below(tmp_path) == before


NO_RANGE = {"32-bits.tif", "floats.tif"}  # nobody knows which value is white
GREY_OF_COLOURS = {"colours-in-a-grey-model.png", "colours-in-a-grey-model.gif"}
UPSIDE_DOWN = {"turned.jpg"}


@pytest.mark.parametrize("name", sorted(set(REFUSED) - NO_RANGE))
def test_with_convert_its_8_bit_picture_is_stored_and_said(
    name, models, tmp_path, pictures, capsys
):
    case = REFUSED[name]
    (pictures / name).write_bytes(case.data)
    ((_, pixels),) = come_back(models[case.channels], pictures, tmp_path, "--convert")
    expected = shown(case)
    if name in GREY_OF_COLOURS:
        expected = (expected @ [0.299, 0.587, 0.114])[:, :, None]
    if name in UPSIDE_DOWN:
        expected = expected[::-1, ::-1]
    if name != "transparent.avif":  # lossy around what is hidden
        assert abs(pixels - expected).max() <= max(case.near, int(name in GREY_OF_COLOURS))
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if name in line]
    assert re.search(case.word, line.replace(name, ""), re.IGNORECASE)


def test_only_what_is_converted_is_said_to_be(models, tmp_path, pictures, capsys):
    for name in ("turned-6.png", "gamma.png"):
        (pictures / name).write_bytes(REFUSED[name].data)
    (pictures / "a.bmp").write_bytes(KEPT["a.bmp"].data)
    assert len(come_back(models[3], pictures, tmp_path, "--convert")) == 3
    out = capsys.readouterr().out
    assert "turned-6.png" in out
    assert "gamma.png" in out
    assert "a.bmp" not in out


@pytest.mark.parametrize("name", sorted(NO_RANGE))
def test_values_of_unknown_range_are_never_taken_in_silence(
    name, models, tmp_path, pictures, capsys
):
    (pictures / name).write_bytes(REFUSED[name].data)
    code = main(compress(models[1], pictures, tmp_path / "x.ddpm", "--convert"))
    said = capsys.readouterr()
    assert code in (0, 2)
    assert name in (said.err if code else said.out)


@pytest.mark.parametrize("options", [[], ["--convert"]], ids=["plain", "convert"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_named(name, options, models, tmp_path, pictures, capsys):
    (pictures / name).write_bytes(UNREADABLE[name])
    (pictures / "good.png").write_bytes(encoded(COLOURS, "PNG"))
    before = everything_below(tmp_path)
    command = compress(models[3], pictures, tmp_path / "x.ddpm", *options)
    line = refused(command, capsys, name)
    assert "good.png" not in line
    assert everything_below(tmp_path) == before


def test_all_that_cannot_be_kept_is_named_in_one_message(models, tmp_path, pictures, capsys):
    names = ["16-bits-rgb.png", "moving.gif", "profile.jpg", "turned-6.png", "cmyk.tif"]
    for name in names:
        (pictures / name).write_bytes(REFUSED[name].data)
    for name in ("cut.png", "a.heic"):
        (pictures / name).write_bytes(UNREADABLE[name])
    (pictures / "sub").mkdir()
    (pictures / "sub" / "deep.png").write_bytes(REFUSED["transparent.png"].data)
    for name in ("a.jpg", "a.bmp"):
        (pictures / name).write_bytes(KEPT[name].data)
    command = compress(models[3], pictures, tmp_path / "x.ddpm")
    line = refused(command, capsys, *names, "cut.png", "a.heic", "deep.png")
    assert "--convert" in line
    assert "a.jpg" not in line
    assert "a.bmp" not in line
    assert not (tmp_path / "x.ddpm").exists()


@pytest.mark.parametrize(("count", "more"), [(20, ""), (21, "and 1 more"), (25, "and 5 more")])
def test_of_many_that_cannot_be_kept_20_are_named(count, more, models, tmp_path, pictures, capsys):
    for i in range(count):
        (pictures / f"p{i:02d}.png").write_bytes(REFUSED["transparent.png"].data)
    line = refused(compress(models[3], pictures, tmp_path / "x.ddpm"), capsys, str(count), more)
    assert len(set(re.findall(r"p\d\d\.png", line))) == 20


@pytest.mark.parametrize("channels", [1, 3, 17])
def test_samples_of_a_model_are_taken_by_its_own_compress(channels, models, tmp_path, capsys):
    own = tmp_path / "samples"
    few = ["--sampler", "ddim", "--steps", "2", "--seed", "4"]
    assert main(["sample", str(models[channels]), "-n", "3", "--out", str(own), *few]) == 0
    samples = [read(path) for path in sorted(own.glob("*.png"))]
    assert {mode for mode, _ in samples} == {"RGB" if channels == 3 else "L"}
    back = come_back(models[channels], own, tmp_path)
    assert len(back) == 3
    for (mode, pixels), (wanted, original) in zip(back, samples, strict=True):
        assert mode == wanted
        assert np.array_equal(pixels, original)


def test_it_is_said_that_metadata_are_not_kept_and_names_are(models, tmp_path, pictures, capsys):
    (pictures / "commented.jpg").write_bytes(KEPT["commented.jpg"].data)
    assert main(compress(models[3], pictures, tmp_path / "x.ddpm")) == 0
    said = capsys.readouterr().out
    assert "file names" not in said
    assert "metadata" in said
