"""Damage from outside: full disks, broken files and strange checkpoints end in one sentence."""

import contextlib
import json
import resource
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ddpm.cli import main
from ddpm.data import open_data
from ddpm.data.streamed import open_encoded
from ddpm.errors import DdpmError
from ddpm.loading import load
from ddpm.runs.checkpoint import CHECKSUMS, load_checkpoint, save_checkpoint
from ddpm.training import train
from helpers import checkpoint_path, checkpoints, tiny_config, tiny_images, tiny_model

TINY = [
    *("--network.ch", "8", "--network.ch-mult", "1", "--network.norm-groups", "4"),
    *("--network.num-res-blocks", "1", "--network.attn-resolutions", "4"),
    *("--training.batch-size", "4", "--training.sample-every", "0", "--training.steps", "4"),
    *("--diffusion.timesteps", "20"),
]


@pytest.fixture
def saved(tmp_path):
    """The file of a tiny model."""
    path = tmp_path / "model.safetensors"
    tiny_model().save(path)
    return path


@contextlib.contextmanager
def full_disk(size=2000):
    """Files may not grow beyond `size` bytes, as on a disk that is full.

    Only inside the block: what pytest itself prints may go to a file too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mistake(arguments, capsys):
    """Run the command; it must end with 2 and one line, which is returned."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    (line,) = captured.err.splitlines()
    return line


# -- no space ------------------------------------------------------------------------------------


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(saved):
    before = saved.read_bytes()
    assert len(before) > 2000
    with full_disk(), pytest.raises(DdpmError, match=r"cannot write .*free some space"):
        tiny_model(seed=1).save(saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("out", ["a.png", "a.npz", "folder"])
def test_samples_that_do_not_fit_leave_nothing_half_written(saved, out, capsys):
    with full_disk(20):
        line = mistake(["sample", saved, "-n", "2", "--out", saved.parent / out], capsys)
    assert "free some space" in line
    assert [p for p in saved.parent.rglob("*") if p.is_file()] == [saved]


def test_training_on_a_full_disk_is_one_sentence(tmp_path, capsys):
    with full_disk():
        line = mistake(["train", "digits", *TINY, "--out", tmp_path / "run"], capsys)
    assert "free some space" in line
    assert not list(tmp_path.rglob("*.partial"))
    assert not checkpoints(tmp_path / "run")


def test_a_log_that_no_longer_fits_is_one_sentence(tmp_path, monkeypatch, capsys):
    def full(self, step, **values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ddpm.runs.log.RunLog.write", full)
    line = mistake(["train", "digits", *TINY, "--out", tmp_path / "run"], capsys)
    assert "No space left on device" in line


# -- outputs that cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        lambda saved, out: ["train", "digits", *TINY, "--out", out],
        lambda saved, out: ["sample", saved, "-n", "1", "--out", out],
        lambda saved, out: ["sample", saved, "-n", "1", "--out", f"{out}.png"],
        lambda saved, out: ["sample", saved, "-n", "1", "--out", f"{out}.npz"],
    ],
)
def test_a_place_below_a_file_is_refused(saved, command, capsys):
    (saved.parent / "file.txt").write_text("keep me")
    before = sorted(saved.parent.rglob("*"))
    line = mistake(command(saved, saved.parent / "file.txt" / "run"), capsys)
    assert "cannot write" in line
    assert sorted(saved.parent.rglob("*")) == before
    assert (saved.parent / "file.txt").read_text() == "keep me"


def test_a_name_too_long_for_a_file_is_one_sentence(saved, capsys):
    mistake(["info", "x" * 300], capsys)
    mistake(["sample", saved, "-n", "1", "--out", saved.parent / ("x" * 300 + ".png")], capsys)


# -- checkpoints ---------------------------------------------------------------------------------


def test_any_flipped_byte_of_the_tensors_is_noticed(saved):
    whole = saved.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for place in np.random.default_rng(0).integers(header, len(whole), 30):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        saved.write_bytes(damaged)
        with pytest.raises(DdpmError, match="do not match its checksum"):
            load(saved)


def test_a_damaged_description_is_one_sentence_or_the_same_model(saved):
    whole, samples = saved.read_bytes(), load(saved).sample(1)
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    rng = np.random.default_rng(0)
    messages = []
    for place in rng.choice(header, 150, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(0, 7))
        saved.write_bytes(damaged)
        try:
            model = load(saved)
        except DdpmError as error:
            messages.append(str(error))
            continue
        assert torch.equal(model.sample(1), samples), damaged[place - 20 : place + 20]
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'timesteps\\": 20', b'timesteps\\": 10'), (b'levels\\": 17', b'levels\\": 16')],
)
def test_a_changed_description_is_noticed(saved, old, new):
    whole = saved.read_bytes()
    assert whole.count(old) == 1
    saved.write_bytes(whole.replace(old, new))
    with pytest.raises(DdpmError, match="do not match its checksum"):
        load(saved)


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null", "{}"])
def test_a_description_that_is_no_object_of_ours_is_one_sentence(saved, text, capsys):
    save_file(load_file(saved), saved, metadata={"ddpm": text})
    assert str(saved) in mistake(["info", saved], capsys)


@pytest.mark.parametrize("part", ["config", "images"])
@pytest.mark.parametrize("value", [None, [], 3, {}, {"shape": 7}, {"network": 5}])
def test_a_description_of_the_wrong_kind_is_one_sentence(saved, part, value, capsys):
    tensors, metadata = load_checkpoint(saved)
    described = {key: value for key, value in metadata.items() if key not in ("format", *CHECKSUMS)}
    save_checkpoint(saved, tensors, {**described, part: value})
    assert mistake(["info", saved], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda data: b"", lambda data: data[: len(data) // 2]])
def test_a_run_is_not_resumed_from_a_damaged_checkpoint(tmp_path, make, capsys):
    command = ["train", "digits", *TINY, "--out", tmp_path / "run"]
    assert main([str(argument) for argument in command]) == 0
    capsys.readouterr()
    (path,) = checkpoints(tmp_path / "run")
    path.write_bytes(make(path.read_bytes()))
    assert str(path) in mistake([*command, "--resume"], capsys)


def test_training_does_not_go_on_from_a_model_without_its_optimiser(tmp_path):
    tiny_model().save(checkpoint_path(tmp_path, 3))
    with pytest.raises(DdpmError, match="training cannot be resumed from it"):
        train(tiny_config(), tiny_images(), tmp_path, resume=True)


@pytest.mark.parametrize("part", ["config", "images", "history"])
def test_a_run_is_not_resumed_from_a_checkpoint_that_does_not_say_what_it_is(tmp_path, part):
    result = train(tiny_config(steps=2), tiny_images(), tmp_path)
    tensors, metadata = load_checkpoint(result.checkpoint, training=True)
    kept = {k: v for k, v in metadata.items() if k not in (part, "format", *CHECKSUMS)}
    save_checkpoint(result.checkpoint, tensors, kept)
    with pytest.raises(DdpmError, match=str(result.checkpoint)):
        train(tiny_config(), tiny_images(), tmp_path, resume=True)


# -- pictures ------------------------------------------------------------------------------------


def test_a_picture_that_is_gone_while_workers_read_is_one_sentence(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "images"

    def open_and_lose(*args, **kwargs):
        source = open_encoded(*args, memory_limit=0, **kwargs)
        (folder / "11.png").unlink()
        return source

    monkeypatch.setattr("ddpm.data.open.open_encoded", open_and_lose)
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(50):
        pixels = rng.integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    steps = ["--training.steps", "50"]
    args = ["train", "digits", *TINY, *steps, "--data", folder, "--out", tmp_path / "run"]
    line = mistake(args, capsys)
    assert "11.png (No such file or directory)" in line
    assert len(line) < 300


def test_16_bit_grey_keeps_its_shades(tmp_path):
    ramp = np.linspace(0, 65535, 8).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (8, 1))).save(tmp_path / "a.png")
    data = open_data(tmp_path, image_size=8, channels=1)
    expected = np.linspace(0, 255, 8)
    assert np.abs(data.images[0, 0, 0].numpy() - expected).max() <= 1


def test_words_in_a_path_are_not_taken_for_markup(tmp_path, capsys):
    path = tmp_path / "[bold]" / "[x"
    tiny_model().save(path / "a.safetensors")
    assert main(["info", str(path / "a.safetensors")]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert shown.count("[bold]") == 1


def test_a_checkpoint_is_plain_safetensors_with_json_inside(saved):
    tensors, metadata = load_checkpoint(saved)
    assert set(load_file(saved)) == set(tensors)
    size = struct.unpack("<Q", saved.read_bytes()[:8])[0]
    header = json.loads(saved.read_bytes()[8 : 8 + size])
    described = json.loads(header["__metadata__"]["ddpm"])
    assert described["format"] == 2
    assert described["images"] == {"channels": 1, "height": 8, "width": 8, "levels": 17}
    assert described["config"]["network"]["kind"] == "unet"
    assert described == metadata
