"""How much memory is left: what the kernel and containers say."""

import subprocess
import sys

import torch

from ddpm.runtime import memory
from ddpm.runtime.memory import free_memory

CPU = torch.device("cpu")


def machine(monkeypatch, tmp_path, available=None, limit=None, used=None):
    """A machine whose kernel and container say this."""
    names = {"meminfo": f"MemTotal:  9 kB\nMemAvailable:  {available} kB\n", "max": limit}
    for name, text in {**names, "current": used}.items():
        if text is not None and not (name == "meminfo" and available is None):
            (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "LIMITS", {tmp_path / "max": tmp_path / "current"})


def test_what_the_kernel_says_is_available(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, available=123)
    assert free_memory(CPU) == 123 * 1024


def test_a_container_leaves_less(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, available=123, limit=50_000, used=20_000)
    assert free_memory(CPU) == 30_000


def test_a_container_without_a_limit(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, available=123, limit="max", used=20_000)
    assert free_memory(CPU) == 123 * 1024


def test_a_container_that_uses_more_than_it_may(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, available=123, limit=10, used=20)
    assert free_memory(CPU) == 0


def test_where_nothing_is_said_all_of_it_counts(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path)
    found = free_memory(CPU)
    assert found is None or found > 2**28


TAKING = """
import torch
from ddpm.runtime.memory import peak_memory
before, block = peak_memory(), torch.ones(40_000_000)
print(before is None or before + 0.5 * block.nbytes <= peak_memory() <= before + 2 * block.nbytes)
"""


def test_the_most_that_was_taken():
    # A process of its own, since others may have taken more before.
    done = subprocess.run([sys.executable, "-c", TAKING], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
