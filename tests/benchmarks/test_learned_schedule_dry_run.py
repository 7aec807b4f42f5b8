"""`benchmarks/learned_schedule.py`: every row of its table, from runs of two steps."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.append(BENCHMARKS)
import learned_schedule

sys.path.remove(BENCHMARKS)  # it has a data.py, and tests have a folder of that name


@pytest.mark.slow
def test_every_row_is_filled_and_nothing_is_measured_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learned_schedule, "WHOLE", 40)
    out = tmp_path / "learned.jsonl"
    small = {"steps": 2, "seeds": (0,), "lengths": (40, 6), "images": 1, "ch": 8}
    tables = []
    for _ in range(2):
        learned_schedule.main(learned_schedule.Options(**small, out=out))
        shown = capsys.readouterr().out.splitlines()
        tables.append([line for line in shown if line[:1] == "|"][2:])
    assert tables[0] == tables[1]
    assert len(out.read_text().splitlines()) == 7
    cells = [[cell.strip() for cell in row.strip("| ").split("|")] for row in tables[0]]
    assert [(run, steps) for run, steps, *_ in cells] == [
        *[(run, steps) for run in ("linear 40", "cosine 40", "linear 40 bound", "learned 40")
          for steps in ("40", "6 even", "6 optimal")],
        *[(f"learned 6{more}", "6") for more in ("", " fixed", " learned_range")],
    ]  # fmt: skip
    assert all(0 < float(bits.split(" ±")[0]) < 20 for _, _, bits, _ in cells)
