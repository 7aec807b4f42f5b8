"""A set like PngSuite: the pixels of another decoder, and every file kept exactly or refused."""

import contextlib

import numpy as np
import png
import pytest
import torch

from data.damaged_pngs import BROKEN, DOUBTFUL, HARMLESS, PIXELS
from data.png_suite import GREYS, SQUARES, SUITE
from ddpm.cli import main
from ddpm.data.decode import decode_image
from ddpm.data.folder import image_folder
from ddpm.errors import DdpmError
from full_range import one_thread, save_models

# What shows one picture: that of an animation is not known.
SHOWN = SQUARES - {"animated-2", "animated-3", "animated-beside-a-still-picture"}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The files of a grey and of an RGB model, by their channels."""
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def quick():
    """Without threads that wait for each other."""
    with one_thread():
        yield


def pypng_rgba(data, turns=0):
    """RGBA on 0..255, [h, w, 4] of floats, from the samples that pypng reads."""
    reader = png.Reader(bytes=data)
    width, height, rows, info = reader.read()
    samples = np.array([list(row) for row in rows], float).reshape(height, width, -1)
    if reader.colormap:
        table = np.array([(*entry, 255)[:4] for entry in info["palette"]], float)
        rgba = table[samples[:, :, 0].astype(int)]
    else:
        grey, alpha = info["greyscale"], info["alpha"]
        most = 2 ** info["bitdepth"] - 1
        colour = samples[:, :, :-1] if alpha else samples
        opacity = samples[:, :, -1:] if alpha else np.full((height, width, 1), most)
        if reader.transparent is not None:
            key = np.array(reader.transparent, float).reshape(-1)
            opacity = np.where((colour == key).all(2, keepdims=True), 0, most)
        rgb = np.repeat(colour, 3, axis=2) if grey else colour
        rgba = np.concatenate([rgb, opacity], axis=2) * (255 / most)
    return np.rot90(rgba, turns)


def on_white(rgba):
    """[h, w, 3]: what is transparent shows white."""
    alpha = rgba[:, :, 3:] / 255
    return rgba[:, :, :3] * alpha + 255 * (1 - alpha)


def roundings(rgba):
    """How often a decoder may round: 16 bits to 8, and what shows through half transparent."""
    sixteen_bits = (abs(rgba - rgba.round()) > 1e-9).any()
    blended = ((rgba[:, :, 3] > 0) & (rgba[:, :, 3] < 255)).any()
    return int(sixteen_bits) + int(blended)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_pixels_are_those_of_another_decoder(name):
    member = SUITE[name]
    expected = pypng_rgba(member.data, member.turns)
    for channels in (1, 3) if name in GREYS else (3,):
        image = decode_image(member.data, len(expected), channels).numpy().transpose(1, 2, 0)
        difference = abs(image - on_white(expected)[:, :, :channels]).max()
        assert difference <= roundings(expected) + 1e-6


def compressed(data, channels, models, folder, capsys):
    """What a picture comes back as from `compress` and `decompress`; None where it is refused."""
    source, file, out = folder / "in.png", folder / "x.ddpm", folder / "out.png"
    source.write_bytes(data)
    arguments = [str(models[channels]), str(source), "-o", str(file), "--steps", "2"]
    code = main(["compress", *arguments])
    if code:
        lines = capsys.readouterr().err.strip().splitlines()
        assert code == 2
        assert lines[-1].startswith("ddpm: ")
        assert "in.png" in lines[-1]
        assert sorted(folder.iterdir()) == [source]
        return None
    assert main(["decompress", str(models[channels]), str(file), "-o", str(out)]) == 0
    assert "exact" in capsys.readouterr().out
    return pypng_rgba(out.read_bytes())


def model_for(name):
    """The channels of the model that is to keep a member."""
    return 1 if name in GREYS else 3


@pytest.fixture(scope="session")
def packed(models, tmp_path_factory):
    """What members that are to be kept come back as from one archive a model; all or none of it."""
    back = {}
    for channels, model in models.items():
        folder = tmp_path_factory.mktemp("packed")
        names = [n for n, m in SUITE.items() if m.kept and model_for(n) == channels]
        (folder / "set").mkdir()
        for i, name in enumerate(names):
            (folder / "set" / f"{i:06d}.png").write_bytes(SUITE[name].data)
        source, file, out = str(folder / "set"), str(folder / "x.ddpm"), folder / "out"
        with one_thread(), contextlib.suppress(Exception):  # what fails is tried one by one
            if main(["compress", str(model), source, "-o", file, "--steps", "2"]) == 0:
                assert main(["decompress", str(model), file, "-o", str(out)]) == 0
                back |= {n: (out / f"{i:06d}.png").read_bytes() for i, n in enumerate(names)}
    return back


@pytest.mark.parametrize("name", sorted(SUITE))
def test_a_file_is_kept_exactly_or_refused(name, models, packed, tmp_path, capsys):
    member = SUITE[name]
    if name in packed:
        result = pypng_rgba(packed[name])
    else:
        result = compressed(member.data, model_for(name), models, tmp_path, capsys)
    if member.kept is not None:
        assert (result is not None) == member.kept
    if result is not None:
        assert np.array_equal(result, pypng_rgba(member.data, member.turns))


def picture_of(data, folder):
    """What a folder of this one file shows, [h, w, c]; None where it is refused."""
    (folder / "in.png").write_bytes(data)
    try:
        images = image_folder(folder, 8, 3)
    except DdpmError:
        return None
    return images[torch.tensor([0])][0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_no_decoder_can_know_is_refused(name, models, tmp_path, capsys):
    assert picture_of(BROKEN[name], tmp_path) is None
    assert compressed(BROKEN[name], 3, models, tmp_path, capsys) is None


@pytest.mark.parametrize("name", sorted(DOUBTFUL))
def test_a_wrong_checksum_gives_the_very_pixels_or_none(name, models, tmp_path, capsys):
    for result in (
        picture_of(DOUBTFUL[name], tmp_path),
        compressed(DOUBTFUL[name], 3, models, tmp_path, capsys),
    ):
        assert result is None or np.array_equal(result[:, :, :3], PIXELS)


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_damage_beside_the_pixels_does_not_matter(name, tmp_path):
    assert np.array_equal(picture_of(HARMLESS[name], tmp_path), PIXELS)


@pytest.mark.parametrize("name", [n for n in HARMLESS if n.startswith("text-") or "zero" in n])
def test_a_file_with_a_misleading_word_is_kept_exactly_or_refused(name, models, tmp_path, capsys):
    result = compressed(HARMLESS[name], 3, models, tmp_path, capsys)
    assert result is None or np.array_equal(result[:, :, :3], PIXELS)
