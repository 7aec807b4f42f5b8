"""Bits of held-out images, as a file keeps them."""

import math

import pytest
import torch

from ddpm.errors import DdpmError
from ddpm.likelihood.held_out import HeldOut


def test_what_is_stored_is_what_comes_back():
    kept = HeldOut((3.25, 4.5), "Bilder, 그림 (test)")
    tensors = kept.tensors()
    assert HeldOut.from_tensors({"ema.weight": torch.zeros(2)} | tensors) == kept
    assert HeldOut.from_tensors({"ema.weight": torch.zeros(2)}) is None
    for name in tensors:
        with pytest.raises(KeyError):
            HeldOut.from_tensors({key: v for key, v in tensors.items() if key != name})


@pytest.mark.parametrize("values", [(), (1.0, math.nan), (math.inf,)])
def test_what_is_no_number_is_refused(values):
    with pytest.raises(DdpmError, match="one or more numbers"):
        HeldOut(values, "images")
