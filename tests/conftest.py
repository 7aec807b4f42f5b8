"""Set-up for all tests: shapes are checked at run time, and every test starts from one seed."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TERM", "dumb")

from jaxtyping import install_import_hook

install_import_hook("ddpm", "typecheck.check")

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
