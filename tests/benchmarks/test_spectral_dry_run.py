"""`benchmarks/spectral.py`: every table with a tiny network; its terms are those of the bound."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.append(BENCHMARKS)
import spectral

sys.path.remove(BENCHMARKS)  # it has a data.py, and tests have a folder of that name


@pytest.fixture
def options(tmp_path):
    """A dry run into a folder of its own."""
    return spectral.Options(out=tmp_path / "out.md", measured=tmp_path / "m.st", dry=True)


def numbers(row):
    """The means of a row of a table."""
    return [float(cell.split("±")[0]) for cell in row.strip("| ").split("|")[1:]]


def test_every_cell_is_filled_and_a_measured_model_is_not_measured_again(options, monkeypatch):
    text = spectral.main(options)
    assert text == options.out.read_text()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:1] == "|"}
    pixels, turned = (numbers(rows[name]) for name in spectral.VARIANCES.values())
    assert len(pixels) == len(turned) == 2
    assert numbers(rows["saved"]) == pytest.approx(np.subtract(pixels, turned), abs=1.1e-3)
    paths = [line for line in text.splitlines() if line.startswith(("| 1 |", "| 3 |"))]
    assert len(paths) == 4
    monkeypatch.setattr("ddpm.Ddpm.measure", None)
    assert spectral.main(options) == text


def test_the_terms_are_those_of_the_bound(options):
    options = spectral.trial(options)
    model = spectral.measured_model(options)
    plans = spectral.wholes(model, options)
    found = spectral.terms(model, options, plans)
    images = spectral.FirstImages(spectral.images_of(model, options, "test"), options.images)
    for key, plan in plans.items():
        bound = model.bound(images, plan=plan, batch_size=options.batch_size)
        assert found[key].sum(axis=1) == pytest.approx(bound.total, rel=1e-6)
        assert found[key].mean(axis=0)[:-1] == pytest.approx(bound.terms, rel=1e-6)


def test_a_path_ends_where_it_is_asked_to(options):
    options = spectral.trial(options)
    model = spectral.measured_model(options)
    plans = spectral.paths(model, options, {0, 2, 6, 9, 14, 19})
    for (_, end, k), plan in plans.items():
        assert len(plan.trajectory) == k
        assert (plan.trajectory[0], plan.trajectory[-1]) == (end, 19)
        assert set(plan.trajectory) <= {0, 1, 2, 3, 6, 9, 14, 19}
