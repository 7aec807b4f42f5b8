"""Set-up for all tests: shapes are checked at run time, and every test starts from one seed."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TERM", "dumb")
os.environ["DDPM_PRECISION"] = "fp32"  # no stopwatch decides what a test sees
if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core, which must not wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook("ddpm", "typecheck.check")

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch

import typecheck


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _short_chains(monkeypatch):
    """Those of the tests end with the image in sight, which every training would say."""
    monkeypatch.setattr("ddpm.training.loop.SHOWS", 1.0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Before the fixtures of a test."""
    typecheck.begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """What a test printed may be no UTF-8, which is all that processes can tell each other."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report
