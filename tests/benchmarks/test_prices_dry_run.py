"""`benchmarks/prices.py`: a table from few and small targets."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.append(BENCHMARKS)
import prices

sys.path.remove(BENCHMARKS)  # it has a data.py, and tests have a folder of that name


def test_a_line_for_each_kl(capsys):
    prices.main(prices.Options(kl=(10, 30), dims=100, total=100))
    rows = [line.strip("| ").split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 2
    for kl, row in zip((10, 30), rows, strict=True):
        assert float(row[1]) == pytest.approx(kl, rel=0.3)
        assert 0 <= float(row[3]) < 2
        assert 0.5 < float(row[5]) < 1.5


def test_the_kl_of_a_target_is_that_of_two_gaussians():
    mean, variance = np.array([0.3, -2.0], np.float32), np.array([0.25, 2.0], np.float32)
    by_hand = [
        (v + m * m - 1 - math.log(v)) / 2 / math.log(2) for m, v in [(0.3, 0.25), (-2.0, 2.0)]
    ]
    assert prices.kl_bits((mean, variance)) == pytest.approx(sum(by_hand), rel=1e-6)
