"""`benchmarks/growth.py`: tiny points, gone on with where it was; extrapolations are marked."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.append(BENCHMARKS)
import growth
import growth_figures
from growth_point import WORKS, Point

from ddpm.errors import DdpmError

sys.path.remove(BENCHMARKS)  # it has a data.py, and tests have a folder of that name


@pytest.fixture
def options(tmp_path):
    """A dry run into a folder of its own."""
    return growth.Options(
        points=tmp_path / "points.json",
        out=tmp_path / "growth.md",
        figures=tmp_path / "figures",
        seconds=0.05,
        calls=2,
        dry=True,
    )


@pytest.fixture
def measured(monkeypatch):
    """Points that are measured at once; those that were asked for."""
    asked = []

    def measure(point, seconds, calls, precision):
        asked.append(point)
        images = min(point.total, 50)
        return {"images": images, "seconds": 2.0 * images, "an_image": 2.0, "memory": 3 * 10**9}

    monkeypatch.setattr(growth, "measure", measure)
    return asked


def never(*arguments):
    """Nothing may be measured again."""
    raise AssertionError


def test_tiny_points_make_tables_and_figures(options):
    growth.main(options)
    points = json.loads(options.points.read_text())["points"]
    assert len(points) == len(list(growth.every(True)))
    for found in points.values():
        assert found["images"] > 0
        assert found["an_image"] * found["images"] == pytest.approx(found["seconds"])
        assert 10**8 < found["memory"] < 10**11
    text = options.out.read_text()
    assert "not measured" not in text
    assert text.count("| 8x8 |") == text.count("| 16x16 |") == 2
    for name in ("time", "memory"):
        with Image.open(options.figures / f"growth-{name}.png") as picture:
            assert picture.width > 500


def test_what_was_measured_is_not_measured_again(options, measured, monkeypatch):
    growth.run(replace(options, minutes=0.0))
    assert measured == []
    growth.run(options)
    assert len(measured) == len(set(measured)) == len(list(growth.every(True)))
    before = options.points.read_bytes()
    monkeypatch.setattr(growth, "measure", never)
    growth.main(options)
    assert options.points.read_bytes() == before


def test_it_goes_on_after_it_was_ended(options, measured, monkeypatch):
    whole = growth.measure

    def ended(point, *rest):
        if len(measured) == 4:
            raise KeyboardInterrupt
        return whole(point, *rest)

    monkeypatch.setattr(growth, "measure", ended)
    with pytest.raises(KeyboardInterrupt):
        growth.run(options)
    monkeypatch.setattr(growth, "measure", whole)
    growth.run(options)
    assert measured == list(growth.every(True))


def test_an_error_is_told_in_its_place_and_tried_again(options, measured, monkeypatch):
    whole = growth.measure

    def failing(point, *rest):
        if point.work == "sampling":
            raise DdpmError("no | luck")
        return whole(point, *rest)

    monkeypatch.setattr(growth, "measure", failing)
    growth.main(options)
    rows = [line for line in options.out.read_text().splitlines() if line.startswith("| 8x8")]
    assert rows == ["| 8x8 | 2 s | no / luck | 2 s |", "| 8x8 | 3.00 GB | no / luck | 3.00 GB |"]
    monkeypatch.setattr(growth, "measure", whole)
    growth.main(options)
    assert "luck" not in options.out.read_text()


def test_what_is_extrapolated_is_marked(options, measured):
    growth.main(options)
    text = options.out.read_text()
    assert "| 3 images, in all | 6 s | 6 s | 6 s |" in text
    assert "| 100,000 images, in all | ~2.31 d | ~2.31 d | ~2.31 d |" in text


def test_points_of_elsewhere_are_refused(options, measured):
    growth.run(options)
    with pytest.raises(DdpmError, match="holds points of"):
        growth.run(replace(options, calls=3))
    options.points.write_text("[]")
    with pytest.raises(DdpmError, match="holds no points"):
        growth.run(options)


def test_every_point_of_a_real_run_has_a_name_of_its_own():
    points = list(growth.every(False))
    assert len({point.key for point in points}) == len(points)
    assert {point.side for point in points} == {32, 64, 128, 256}
    assert max(point.images for point in points) == 100_000
    assert {point.processes for point in points} == {1, 2}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "12.3 ms"), (1.5, "1.5 s"), (119, "119 s"), (600, "10 min"), (7200, "2 h")],
)
def test_times_have_units(value, text):
    assert growth_figures.time_text(value) == text


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("work", WORKS)
def test_a_point_is_measured_in_processes_of_its_own(options, work, processes):
    found = growth.apart(Point(work, 8, 2, 0, processes), replace(options, seconds=60.0))
    assert found["images"] == 3 * 2 * processes
    assert found["memory"] > processes * 10**8


@pytest.mark.slow
def test_a_process_that_fails_or_takes_too_long_is_told(options, monkeypatch):
    with pytest.raises(DdpmError, match="7"):
        growth.apart(Point("training", 7, 2), options)
    monkeypatch.setattr(growth, "LIMIT", 0.1)
    with pytest.raises(DdpmError, match=r"more than 0\.1 s"):
        growth.apart(Point("training", 8, 2), options)
