"""`benchmarks/learned_schedule.py`: every row of its table, from runs of two steps."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "learned_schedule.py"


@pytest.mark.slow
def test_every_row_is_filled_and_nothing_is_measured_twice(tmp_path):
    out = tmp_path / "learned.jsonl"
    small = ["--steps", "2", "--seeds", "0", "--lengths", "1000", "6", "--images", "1", "--ch", "8"]
    command = [sys.executable, str(SCRIPT), *small, "--out", str(out)]
    tables = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        tables.append([line for line in done.stdout.splitlines() if line[:1] == "|"][2:])
    assert tables[0] == tables[1]
    assert len(out.read_text().splitlines()) == 6
    cells = [[cell.strip() for cell in row.strip("| ").split("|")] for row in tables[0]]
    assert [(run, steps) for run, steps, *_ in cells] == [
        *[(f"{name} 1000", steps) for name in ("linear", "cosine", "learned")
          for steps in ("1000", "6 even", "6 optimal")],
        *[(f"learned 6{more}", "6") for more in ("", " fixed", " learned_range")],
    ]  # fmt: skip
    assert all(0 < float(bits.split(" ±")[0]) < 20 for _, _, bits, _ in cells)
