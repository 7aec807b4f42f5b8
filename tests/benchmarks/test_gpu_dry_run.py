"""`benchmarks/gpu.py`: every row with a tiny network on a CPU; rows that fail or have no time."""

import contextlib
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.append(BENCHMARKS)
import gpu
from budget import Budget, OutOfTime, alarm, reason
from peers import PAPER

from ddpm import get_preset

sys.path.remove(BENCHMARKS)  # it has a data.py, and tests have a folder of that name

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _float32():
    """Products are as they were, after every test."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolution


@pytest.fixture
def options(tmp_path):
    """A dry run into a folder of its own."""
    return gpu.Options(out=tmp_path / "gpu.md", dry=True, rounds=1)


def cells(text, first):
    """The rows of a table whose first cell is one of these, cut up."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [row for row in rows if row[0] in first]


@pytest.mark.slow
def test_every_row_is_filled(tmp_path):
    out = tmp_path / "gpu.md"
    command = [sys.executable, gpu.__file__, "--dry", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert text == done.stdout
    rows = cells(text, ("training", "sampling"))
    assert len(rows) == len(gpu.ROWS)
    for row in rows:
        assert min(float(row[4].replace(",", "")), float(row[7].replace(",", ""))) > 0, row
        assert float(row[9]) > 0, row
    codecs = cells(text, ("3 steps",))
    assert len(codecs) == len(gpu.CODECS)
    assert all(row[7] == "yes" and float(row[3]) > 0 and float(row[5]) > 8 for row in codecs)


def test_the_network_is_that_of_the_preset():
    assert PAPER.config(128, "auto") == get_preset("cifar10")


@pytest.mark.parametrize("wanted", [True, False])
def test_tf32_is_set_so_that_the_compiler_can_read_it(wanted):
    gpu.allow_tf32(wanted)
    assert (torch.get_float32_matmul_precision() == "high") is wanted
    assert torch.backends.cuda.matmul.allow_tf32 is wanted
    assert torch.backends.cudnn.allow_tf32 is wanted


def test_a_variant_that_fails_is_a_reason_and_the_other_is_timed(options, monkeypatch):
    def missing(row, options, device):
        raise ModuleNotFoundError("No module named 'diffusers'", name="diffusers")

    monkeypatch.setitem(gpu.MAKERS, "diffusers", missing)
    monkeypatch.setitem(gpu.MAKERS, "ddpm", lambda *_: lambda: time.sleep(0.001))
    found = {name: gpu.Found() for name in gpu.MAKERS}
    row = gpu.ROWS[0]
    gpu.measure(row, options, CPU, found)
    (shown,) = cells(gpu.line(row, options, CPU, found), ("training",))
    assert float(shown[4].replace(",", "")) > 0
    assert shown[7:] == ["diffusers is not installed", "n/a", "n/a"]


def test_a_compiler_that_fails_is_told(options, monkeypatch):
    def broken(network):
        def call(*inputs):
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    found = {name: gpu.Found() for name in gpu.MAKERS}
    row = next(row for row in gpu.ROWS if row.compiled and row.what == "training")
    gpu.measure(row, options, CPU, found)
    assert found["ddpm"].times == found["diffusers"].times == []
    for what in found.values():
        assert "no compiler" in what.reason


def test_what_was_found_before_an_error_is_written(options, monkeypatch):
    def measure(row, options, device, found):
        if row.what == "sampling":
            raise KeyboardInterrupt
        found["ddpm"].times.append(0.5)

    monkeypatch.setattr(gpu, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(options)
    (row,) = cells(options.out.read_text(), ("training", "sampling"))
    assert (row[4], row[7]) == ("8", "out of time")


def test_an_error_costs_one_row(options, monkeypatch):
    def measure(row, options, device, found):
        if row.what == "sampling":
            raise RuntimeError("a | in\na cell")
        found["ddpm"].times.append(0.5)

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(gpu, "codec_line", lambda *_: gpu.in_cells(["3 steps"]))
    monkeypatch.setattr(gpu, "ROWS", [row for row in gpu.ROWS if not row.compiled])
    monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: contextlib.nullcontext())
    gpu.main(options)
    rows = cells(options.out.read_text(), ("training", "sampling"))
    assert [row[4] for row in rows] == ["8", "RuntimeError: a / in a cell"] * (len(rows) // 2)


def test_what_does_not_fit_into_the_time_is_told(options):
    gpu.main(replace(options, minutes=0.0))
    rows = cells(options.out.read_text(), ("training", "sampling", "3 steps"))
    assert len(rows) == len(gpu.ROWS) + len(gpu.CODECS)
    assert all("left out" in row[3] + row[4] for row in rows)


# -- the budget ----------------------------------------------------------------------------------


def test_a_row_is_guessed_to_take_as_long_as_the_last_of_its_kind():
    now = [0.0]
    budget = Budget(100, {"short": 10.0, "long": 60.0}, clock=lambda: now[0])
    assert budget.fits("long")
    with budget.row("short"):
        now[0] += 45
    assert budget.left == 55
    assert not budget.fits("long")
    assert budget.fits("short")
    with contextlib.suppress(RuntimeError), budget.row("short"):
        now[0] += 30
        raise RuntimeError
    assert budget.left == 25
    assert not budget.fits("short")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no alarms")
def test_a_row_that_takes_too_long_is_ended():
    def stubborn():
        try:
            time.sleep(60)
        except Exception:
            time.sleep(60)

    with pytest.raises(OutOfTime), alarm(0.05):
        stubborn()


def test_reasons_are_short():
    assert reason(OutOfTime()) == "out of time"
    assert reason(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried")) == "out of memory"
    assert len(reason(ValueError("x" * 1000))) < 100
