"""A run, trained once and laid out anew for each test, always at the same place."""

import shutil

import pytest

from ddpm.cli import main
from full_range import one_thread
from helpers import checkpoint_path
from runs.small_run import BEGIN, pictures, write


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """`kept` holds the images `pets` and `run`, trained on them; each test works in `w`."""
    here = tmp_path_factory.mktemp("runs")
    write(here / "w" / "pets", pictures())
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.chdir(here / "w")
        assert main(BEGIN) == 0
    shutil.copytree(here / "w", here / "kept")
    return here


@pytest.fixture
def complete(template, monkeypatch):
    """The working folder, where `run` has come to its end: four steps, and measured."""
    shutil.rmtree(template / "w")
    shutil.copytree(template / "kept", template / "w")
    monkeypatch.chdir(template / "w")
    # Counting the arithmetic takes longer than doing it.
    monkeypatch.setattr("ddpm.training.throughput.forward_flops", lambda network, shape: 10**6)
    with one_thread():
        yield template / "w"


@pytest.fixture
def halfway(complete):
    """The same with `run` at step 2 of 4, as after a loss of power."""
    checkpoint_path("run", 4).unlink()
    return complete
