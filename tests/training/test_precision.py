"""A run is trained in the precision that it began with, whatever a stopwatch says later."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpm.loading import load
from ddpm.runs.checkpoint import load_checkpoint, save_checkpoint
from ddpm.training import train
from false_stopwatch import says
from helpers import checkpoint_path, tensors_of, tiny_config, tiny_images, tiny_model


def trained_in(run):
    """What the newest checkpoint of a run says."""
    return load(run, "cpu").history.precision


def same_bits(one, other):
    """Whether two runs end with the same weights, averages and moments."""
    first, second = tensors_of(one), tensors_of(other)
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name])
        for name, value in first.items()
        if not name.startswith("denoising_error")
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_auto_is_the_precision_that_the_stopwatch_is_in_favour_of(tmp_path, monkeypatch, precision):
    watch = says(monkeypatch, tmp_path / "cache", precision)
    train(tiny_config(steps=3), tiny_images(), tmp_path / "auto")
    assert watch.asked == 1
    train(tiny_config(steps=3, precision=precision), tiny_images(), tmp_path / "asked")
    assert watch.asked == 1
    assert trained_in(tmp_path / "auto") == trained_in(tmp_path / "asked") == precision
    assert same_bits(tmp_path / "auto", tmp_path / "asked")
    other = "fp32" if precision == "bf16" else "bf16"
    train(tiny_config(steps=3, precision=other), tiny_images(), tmp_path / "other")
    assert not same_bits(tmp_path / "auto", tmp_path / "other")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_is_bit_for_bit_what_it_would_have_been(
    tmp_path, monkeypatch, caplog, precision
):
    says(monkeypatch, tmp_path / "cache", precision)
    train(tiny_config(), tiny_images(), tmp_path / "whole")
    train(tiny_config(), tiny_images(), tmp_path / "stopped")
    checkpoint_path(tmp_path / "stopped", 20).unlink()
    watch = says(monkeypatch, tmp_path / "other", "fp32" if precision == "bf16" else "bf16")
    caplog.clear()
    with caplog.at_level("INFO", "ddpm"):
        train(tiny_config(), tiny_images(), tmp_path / "stopped", resume=True)
    assert "precision" not in caplog.text
    assert same_bits(tmp_path / "whole", tmp_path / "stopped")
    assert trained_in(tmp_path / "stopped") == precision
    assert watch.asked == 0


def test_another_precision_may_be_asked_for_on_resuming(tmp_path, monkeypatch, caplog):
    says(monkeypatch, tmp_path / "cache", "bf16")
    train(tiny_config(steps=2), tiny_images(), tmp_path / "run")
    train(tiny_config(steps=4, precision="fp32"), tiny_images(), tmp_path / "run", resume=True)
    assert "training.precision is fp32 from now on" in caplog.text
    assert trained_in(tmp_path / "run") == "fp32"


def test_a_run_of_an_older_version_goes_on_in_fp32(tmp_path, monkeypatch):
    train(tiny_config(precision="fp32"), tiny_images(), tmp_path / "whole")
    train(tiny_config(), tiny_images(), tmp_path / "old")  # conftest: fp32
    checkpoint_path(tmp_path / "old", 20).unlink()
    path = checkpoint_path(tmp_path / "old", 10)
    tensors, metadata = load_checkpoint(path, training=True)
    del metadata["history"]["precision"]
    described = {key: metadata[key] for key in ("config", "images", "history")}
    save_checkpoint(path, tensors, described)
    watch = says(monkeypatch, tmp_path / "cache", "bf16")
    train(tiny_config(), tiny_images(), tmp_path / "old", resume=True)
    assert watch.asked == 0
    assert same_bits(tmp_path / "whole", tmp_path / "old")
    assert trained_in(tmp_path / "old") == "fp32"


def test_no_count_of_bits_depends_on_a_stopwatch(tmp_path, monkeypatch):
    """The estimate while training, the denoising error at its end, the bound and archives."""
    found = []
    for precision in ("fp32", "bf16"):
        watch = says(monkeypatch, tmp_path / precision, precision)
        model = tiny_model()
        error = model.measure(tiny_images(20))
        bound = model.bound(tiny_images(6))
        model.learn_coding(tiny_images(20), steps=5)
        archive = model.compress(tiny_images(2).images, steps=3)
        found.append((error.xstart_mse.tobytes(), bound.total.tobytes(), archive))
        assert watch.asked == 0
    assert found[0] == found[1]
    exact = tiny_model(precision="fp32")
    exact.measure(tiny_images(20))
    exact.learn_coding(tiny_images(20), steps=5)
    assert exact.compress(tiny_images(2).images, steps=3) == found[0][2]


def test_a_run_that_starts_from_weights_decides_anew(tmp_path, monkeypatch):
    says(monkeypatch, tmp_path / "cache", "bf16")
    train(tiny_config(steps=2), tiny_images(), tmp_path / "first")
    says(monkeypatch, tmp_path / "other", "fp32")
    config = tiny_config(steps=2, start_from=str(tmp_path / "first"))
    train(config, tiny_images(), tmp_path / "second")
    assert trained_in(tmp_path / "second") == "fp32"


TOGETHER = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from ddpm.loading import load
from ddpm.runtime import parallel, probe
from ddpm.training import train
from helpers import tiny_config, tiny_images, tiny_model

folder = Path(sys.argv[1])
with parallel.process_group():
    bf16 = 1.0 if parallel.is_main() else 3.0  # only the first finds bf16 faster
    probe.time_both = lambda *args: probe.Times(1, 2.0, bf16)
    probe.cache_home = lambda: folder / f"cache{parallel.rank()}"
    train(tiny_config(steps=3), tiny_images(), folder / "run")
    drawn = tiny_model().drawing_precision()
    trained = load(folder / "run").history.precision
    (folder / f"rank{parallel.rank()}").write_text(f"{trained} {drawn}")
"""


@pytest.mark.slow
def test_of_several_processes_one_decides_for_all(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    environment = {k: v for k, v in os.environ.items() if k != "DDPM_PRECISION"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", str(script), str(tmp_path)],
        env={**environment, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"rank{i}").read_text() for i in (0, 1)] == ["bf16 bf16"] * 2
    assert not (tmp_path / "cache1").exists()
