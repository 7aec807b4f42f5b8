"""Set-up for all tests: shapes are checked at run time, and every test starts from one seed."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TERM", "dumb")
os.environ["DDPM_PRECISION"] = "fp32"  # no stopwatch decides what a test sees

from jaxtyping import install_import_hook

install_import_hook("ddpm", "typecheck.check")

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
