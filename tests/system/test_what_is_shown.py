"""What is shown can be read: words that say what is meant, whole curves, pictures of some size."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from ddpm.cli import main
from ddpm.data.images import ImageFormat
from ddpm.figures.grid import image_grid
from ddpm.loading import load
from ddpm.pretrained import pretrained
from ddpm.runs.folder import RunFolder
from ddpm.training import train
from ddpm.training.state import TrainingState
from ddpm.training.throughput import Throughput
from full_range import one_thread
from helpers import checkpoint_path, tiny_config, tiny_images, tiny_model, with_training

pytestmark = pytest.mark.slow  # many members


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


# -- words ---------------------------------------------------------------------------------------


def test_images_seen_are_called_so(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["models"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    seen = load("cifar10-small", "cpu").history.images
    assert re.search(rf"{seen:,}[^│]*seen|seen[^│]*{seen:,}", shown)
    assert f"{seen:,} images of" not in shown


def test_the_model_cards_say_so_too():
    for name, file in pretrained().items():
        seen = load(name, "cpu").history.images
        card = " ".join(file.with_suffix(".md").read_text(encoding="utf-8").split())
        assert f"{seen:,} images of" not in card


@pytest.mark.parametrize("rate", [0.01, 1.0, 30.0, 1e3, 1e5])
@pytest.mark.parametrize("arithmetic", [100_000, 7_000_000, 36_000_000_000])
def test_a_speed_is_never_nothing(rate, arithmetic):
    config, images = tiny_config(), tiny_images()
    state = TrainingState(config, images.format, torch.device("cpu"))
    throughput = Throughput(state)
    throughput.per_image = arithmetic
    note = throughput.note(rate)
    assert not re.search(r"(?<![\d.])0(\.0+)? ?[A-Za-z]", note), note


def test_a_small_run_does_not_say_that_it_computes_nothing(tmp_path):
    labels = []
    train(tiny_config(), tiny_images(), tmp_path, progress=lambda d, t, label: labels.append(label))
    assert any("images/s" in label for label in labels)
    assert not any("0.00 " in label for label in labels)


def test_every_example_of_torchrun_can_be_typed_on_one_machine():
    root = Path(__file__).parents[2]
    files = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    lines = [x for file in files for x in file.read_text("utf-8").splitlines()]
    asked = [x for x in lines if re.search(r"torchrun .*--nproc", x)]
    assert asked
    assert all(re.search(r"--standalone|--nnodes|--rdzv", line) for line in asked)


# -- curves --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def files_in_order(monkeypatch):
    """TensorBoard reads its files by name: second, then number in the process, 10 before 9."""
    counter = type(event_file_writer._global_uid)(0)
    monkeypatch.setattr(event_file_writer, "_global_uid", counter)


def points(run):
    """The steps of TensorBoard's loss curve."""
    board = EventAccumulator(str(RunFolder(run).tensorboard), size_guidance={"scalars": 0})
    board.Reload()
    return [point.step for point in board.Scalars("loss")]


STOPS = {  # the steps to which a run is trained, one session after the other
    "at a logged step": [5, 10],
    "again and again": [1, 2, 3, 4],
}


@pytest.mark.parametrize("name", STOPS)
def test_tensorboard_keeps_the_point_at_which_a_run_was_resumed(tmp_path, name):
    config, images = tiny_config(log_every=1, save_every=1), tiny_images()
    for session, steps in enumerate(STOPS[name]):
        train(with_training(config, steps=steps), images, tmp_path, resume=session > 0)
    assert points(tmp_path) == list(range(1, STOPS[name][-1] + 1))


def test_tensorboard_forgets_only_what_is_measured_again(tmp_path):
    config, images = tiny_config(log_every=1, save_every=5, steps=10), tiny_images()
    train(config, images, tmp_path)
    checkpoint_path(tmp_path, 10).unlink()
    train(config, images, tmp_path, resume=True)
    assert points(tmp_path) == list(range(1, 11))


# -- pictures ------------------------------------------------------------------------------------

GRIDS = [(1, 8), (4, 8), (64, 8), (1, 32), (4, 32), (9, 32), (64, 32), (1, 64), (4, 64), (2, 100)]


def unscaled(picture, factor):
    """A pixel of every block, after a look that all of each are alike."""
    pixels = np.array(picture)
    small = pixels[::factor, ::factor]
    assert np.array_equal(np.kron(small, np.ones((factor, factor, 1), np.uint8)), pixels)
    return small


@pytest.mark.parametrize(("count", "side"), GRIDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_is_large_enough_to_be_seen(count, side, channels):
    images = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)
    picture = image_grid(images, ImageFormat(channels, side, side, 256))
    small = image_grid(images, ImageFormat(channels, side, side, 256), scale=1)
    assert max(picture.size) >= 128
    assert picture.width % small.width == 0
    assert np.array_equal(unscaled(picture, picture.width // small.width), np.array(small))


@pytest.mark.parametrize(("count", "side"), [(64, 64), (16, 256), (1, 512), (1024, 32)])
def test_what_is_large_already_is_not_enlarged(count, side):
    images = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    image_format = ImageFormat(1, side, side, 256)
    assert image_grid(images, image_format).size == image_grid(images, image_format, scale=1).size


@pytest.mark.parametrize("count", [1, 4])
def test_samples_are_large_enough_to_be_seen(tmp_path, count):
    tiny_model().save(tmp_path / "m.safetensors")
    out = tmp_path / "a.png"
    command = ["sample", str(tmp_path / "m.safetensors"), "-n", str(count), "--out", str(out)]
    assert main([*command, "--progressive"]) == 0
    for path in (out, tmp_path / "a-progressive.png"):
        with Image.open(path) as picture:
            assert max(picture.size) >= 128
