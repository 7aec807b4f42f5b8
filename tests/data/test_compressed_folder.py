"""`ddpm compress` takes the images of a folder by the same rule as training."""

import pytest
from PIL import Image

from data.form_makers import KINDS, encoded, write
from ddpm.cli import main
from helpers import checkpoint_path, measured_model
from mistakes import refused

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose model knows 8x8 grey images of 17 grey levels."""
    folder = tmp_path_factory.mktemp("model") / "run"
    measured_model().save(checkpoint_path(folder, 3))
    return folder


def write_grey(folder, names):
    """Grey pictures of 17 levels, one each; their values."""
    for i, name in enumerate(names):
        kind = KINDS.get(name.rpartition(".")[2], "PNG")
        write(folder / name, encoded(round(i * 255 / 16), kind, mode="L", size=(8, 8)))
    return [round(i * 255 / 16) for i in range(len(names))]


TAKEN = {
    "of every split": ["a.png", "train/b.png", "test/c.png", "val/sub/d.png"],
    "of every kind": ["a.png", "b.tif", "c.bmp", "d.TIFF", "e.gif", "f.pgm", "g.dib"],
}


@pytest.mark.parametrize("case", TAKEN)
def test_compressing_takes_every_image_by_the_same_rule(case, run, tmp_path, capsys):
    grey = write_grey(tmp_path / "own", TAKEN[case])
    left_out = [".trash/x.png", ".y.png", "@eaDir/z.png", "sub/.ipynb_checkpoints/w.png"]
    write_grey(tmp_path / "own", left_out)
    write(tmp_path / "own" / "notes.txt", b"text")
    file, out = tmp_path / "x.ddpm", tmp_path / "out"
    command = ["compress", str(run), str(tmp_path / "own"), "-o", str(file), "--steps", "2"]
    assert main(command) == 0
    assert f"{len(grey)} images" in capsys.readouterr().out
    assert main(["decompress", str(run), str(file), "-o", str(out)]) == 0
    found = [Image.open(path).convert("L").getpixel((0, 0)) for path in out.rglob("*.png")]
    assert sorted(found) == grey


@pytest.mark.parametrize("name", ["b.heic", "b.jxl", "b.cr2", "sub/b.HEIC"])
def test_compressing_refuses_images_of_kinds_that_cannot_be_read(name, run, tmp_path, capsys):
    write_grey(tmp_path / "own", ["a.png", name])
    command = ["compress", run, tmp_path / "own", "-o", tmp_path / "x.ddpm", "--steps", "2"]
    refused(command, capsys, name.rpartition("/")[2])
    assert not (tmp_path / "x.ddpm").exists()
