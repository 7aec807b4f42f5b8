"""Checkpoints: whole or not at all, verified, and refused when damaged or foreign."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ddpm.errors import DdpmError
from ddpm.loading import load
from ddpm.runs import format1
from ddpm.runs.checkpoint import load_checkpoint, save_checkpoint
from ddpm.runs.folder import RunFolder, find_checkpoint
from ddpm.runtime.atomic import atomically
from helpers import checkpoint_path, checkpoints, tiny_model


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    tiny_model().save(path)
    return path


def test_a_model_comes_back_the_same(saved):
    before, after = tiny_model(), load(saved)
    assert torch.equal(before.sample(3, seed=5), after.sample(3, seed=5))
    assert (after.config, after.format) == (before.config, before.format)
    assert after.history == before.history
    assert not any(p.requires_grad for p in after.network.parameters())


def refused(path, words):
    with pytest.raises(DdpmError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_truncated_file_is_refused(saved):
    data = saved.read_bytes()
    for length in (0, 5, 100, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:length])
        refused(saved, "damaged")


def test_a_flipped_bit_is_noticed(saved):
    data = bytearray(saved.read_bytes())
    data[-100] ^= 1
    saved.write_bytes(data)
    refused(saved, "checksum")


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    refused(path, "not written by ddpm")
    path.write_bytes(b"\x80\x04K\x01." * 20)  # what a pickle looks like
    refused(path, "damaged")
    save_file({"x": torch.zeros(2)}, path, metadata={"ddpm": "{"})
    refused(path, "damaged")


def test_other_formats_and_unknown_settings_are_refused(saved):
    tensors, metadata = load_checkpoint(saved)
    save_checkpoint(saved, tensors, {**metadata, "format": 99})
    refused(saved, "format 99")
    metadata["config"]["network"]["wings"] = 2
    save_checkpoint(saved, tensors, metadata)
    with pytest.raises(DdpmError, match=r"network\.wings"):
        load(saved)


def test_weights_that_do_not_fit_their_description_are_refused(saved):
    tensors, metadata = load_checkpoint(saved)
    tensors.pop("ema.conv_in.bias")
    save_checkpoint(saved, tensors, metadata)
    with pytest.raises(DdpmError, match=r"does not hold the model .*Missing key.*conv_in\.bias"):
        load(saved)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail(partial: Path):
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DdpmError, match="No space left on device"):
        atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    with pytest.raises(DdpmError, match="cannot write"):
        atomically(path / "below-a-file", lambda p: p.write_text("x"))


def test_rotation_keeps_the_newest_two_and_what_older_versions_put_beside_them(tmp_path):
    for step in (5, 10, 100):
        tiny_model().save(checkpoint_path(tmp_path, step))
        format1.beside(checkpoint_path(tmp_path, step)).write_text("x")
    RunFolder(tmp_path).rotate(checkpoint_path(tmp_path, 100))
    assert [p.name for p in checkpoints(tmp_path)] == [
        "step-00000010.safetensors",
        "step-00000100.safetensors",
    ]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4
    assert find_checkpoint(tmp_path).name == "step-00000100.safetensors"


def test_missing_runs_give_a_sentence(tmp_path):
    refused(tmp_path / "nowhere", "does not exist")
    refused(tmp_path, "no checkpoint")
