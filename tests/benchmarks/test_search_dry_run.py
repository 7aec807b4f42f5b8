"""`benchmarks/search.py`: both tables, from a small search."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.append(BENCHMARKS)
import search

from ddpm.codec.transmission import delivered
from ddpm.codec.tree_code import TreeCode

sys.path.remove(BENCHMARKS)  # it has a data.py, and tests have a folder of that name


@pytest.mark.slow
def test_both_tables_are_filled():
    small = ["--bits", "200", "--dims", "400", "--rounds", "1", "--beam", "64"]
    command = [sys.executable, search.__file__, *small]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split("|") for line in done.stdout.splitlines() if line[:1] == "|"]
    numbers = [
        [float(cell.replace(",", "")) for cell in row[1:]]
        for row in rows
        if row[0].startswith(("NumPy", "compiled", "empty", "code", "no place"))
    ]
    assert [len(row) for row in numbers] == [4] * 4 + [2] * 3
    assert min(min(row) for row in numbers) > 0
    assert numbers[0][2] == 1.0


def test_the_search_of_before_finds_as_good_paths_and_mostly_the_same():
    generator, variance, same, more = (
        np.random.default_rng(0),
        np.full(200, 0.75, np.float32),
        0,
        [],
    )
    for key in range(30):
        tree = TreeCode(beam=31).grow(200, 44, key)
        mean = (0.5 * generator.standard_normal(200)).astype(np.float32)
        before, now = search.numpy_search(tree, mean, variance), tree.search(mean, variance)
        same += np.array_equal(before, now)
        told = [delivered(tree.vector(path), mean, variance) for path in (before, now)]
        more.append(told[1] - told[0])
    assert same >= 27
    assert abs(np.mean(more)) <= 3 * np.std(more) / len(more) ** 0.5
