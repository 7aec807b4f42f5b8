"""`ddpm compress`, `ddpm decompress` and `ddpm evaluate --codec`: whole commands."""

import json

import numpy as np
import pytest
from PIL import Image

from ddpm.cli import main
from ddpm.data.images import ImageFormat
from helpers import checkpoint_path, measured_model


@pytest.fixture
def folder(tmp_path, held_out):
    """Four digits as PNG files."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i, pixels in enumerate(ImageFormat(1, 8, 8, 17).to_bytes(held_out[:4].numpy())):
        Image.fromarray(pixels[0]).save(folder / f"{i}.png")
    return folder


def pixels(path):
    """Of an image file."""
    with Image.open(path) as image:
        return np.array(image)


def test_a_folder_comes_back_bit_for_bit(run, folder, tmp_path, capsys):
    file, out = tmp_path / "x.ddpm", tmp_path / "out"
    assert main(["compress", str(run), str(folder), "-o", str(file), "--steps", "4"]) == 0
    assert f"4 images in {file.stat().st_size:,} bytes" in capsys.readouterr().out
    assert main(["decompress", str(run), str(file), "-o", str(out)]) == 0
    assert "exact" in capsys.readouterr().out
    for i in range(4):
        assert np.array_equal(pixels(out / f"{i}.png"), pixels(folder / f"{i}.png"))


def test_one_image_and_a_part_of_its_file(run, folder, tmp_path, capsys):
    file, png = tmp_path / "x.ddpm", tmp_path / "x.png"
    assert main(["compress", str(run), str(folder / "2.png"), "-o", str(file)]) == 0
    assert main(["decompress", str(run), str(file), "-o", str(png)]) == 0
    assert np.array_equal(pixels(png), pixels(folder / "2.png"))
    capsys.readouterr()
    some = ["-o", str(tmp_path / "part.png"), "--bytes", "12", "--reconstruct", "sample"]
    assert main(["decompress", str(run), str(file), *some]) == 0
    assert "not exact" in capsys.readouterr().out


@pytest.mark.slow
def test_evaluate_codec_writes_the_figures(run, tmp_path, capsys):
    out = tmp_path / "e"
    options = ["--images", "6", "--steps", "4", "--out", str(out)]
    assert main(["evaluate", str(run), "--codec", *options]) == 0
    assert "channel simulation" in capsys.readouterr().out
    (path,) = out.glob("codec-*.json")
    document = json.loads(path.read_text())
    assert document["images"] == 6
    assert document["prefixes"][-1]["mse"] == 0
    for name in ("codec", "prefixes"):
        assert (out / f"{path.stem}-{name}.png").read_bytes().startswith(b"\x89PNG")


def other_model(path):
    measured_model(seed=9).save(checkpoint_path(path, 1))
    return str(path)


def damaged(file, path, place):
    data = bytearray(file.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)
    return str(path)


MISTAKES = {
    "no image": lambda r, f, p: ["compress", r, str(p / "none.png"), "-o", str(p / "y")],
    "no file": lambda r, f, p: ["decompress", r, str(p / "none"), "-o", str(p / "y")],
    "no output": lambda r, f, p: ["compress", r, str(p / "in")],
    "an output that is a folder": lambda r, f, p: ["compress", r, str(p / "in"), "-o", str(p)],
    "many into one png": lambda r, f, p: ["decompress", r, str(f), "-o", str(p / "y.png")],
    "no such part": lambda r, f, p: ["decompress", r, str(f), "-o", "y", "--fraction", "1.5"],
    "two parts": lambda r, f, p: [
        *("decompress", r, str(f), "-o", "y", "--fraction", "0.5", "--bytes", "3"),
    ],
    "another model": lambda r, f, p: ["decompress", other_model(p / "o"), str(f), "-o", "y"],
    "no file of ours": lambda r, f, p: ["decompress", r, damaged(f, p / "d", 0), "-o", "y"],
    "another version": lambda r, f, p: ["decompress", r, damaged(f, p / "d", 1), "-o", "y"],
    "a damaged header": lambda r, f, p: ["decompress", r, damaged(f, p / "d", 8), "-o", "y"],
    "a cut header": lambda r, f, p: ["decompress", r, str(f), "-o", "y", "--bytes", "7"],
    "damaged pixels": lambda r, f, p: ["decompress", r, damaged(f, p / "d", -20), "-o", "y"],
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    name, run, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.ddpm"
    assert main(["compress", str(run), str(folder), "-o", str(file), "--steps", "3"]) == 0
    capsys.readouterr()
    assert main(MISTAKES[name](str(run), file, tmp_path)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("ddpm: ")
    assert 25 < len(lines[0]) < 400
    assert not (tmp_path / "y").exists()
    assert not (tmp_path / "y.png").exists()
