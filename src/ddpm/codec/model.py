"""What the codec needs of a model: numbers to compute with, and nothing of where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from ddpm.data.images import ImageFormat
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import check
from ddpm.likelihood.denoising_error import DenoisingError

MAX_STEPS = 255  # that the header can say


@dataclass(frozen=True, eq=False)
class CodecModel:
    """A model as sender and receiver both have it.

    Args:
        chain: gives the chain of K steps, with the analytic variance.
        diffusion: the whole chain.
        denoiser: the network as it is called.
        network: the same, for its weights.
        denoising_error: of the network.
        format: of its images.
        precision: that the network computes in.
        classes: that the network knows.
        given: the class that it is called with and the guidance; None for no class.
    """

    chain: Callable[[int], GaussianDiffusion]
    diffusion: GaussianDiffusion
    denoiser: Denoiser
    network: nn.Module
    denoising_error: DenoisingError
    format: ImageFormat
    precision: str
    classes: int = 0
    given: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        check(
            not self.diffusion.learns_variance,
            "compression needs a model with a fixed variance; this one learned its own",
        )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def max_steps(self) -> int:
        """The largest K of a file."""
        return min(MAX_STEPS, self.diffusion.num_timesteps)

    @cached_property
    def fingerprint(self) -> int:
        """24 bits that differ for other weights, schedules, errors, another precision or class."""
        diffusion, error = self.diffusion, self.denoising_error
        digest = hashlib.blake2b(digest_size=3)
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        read_as = (diffusion.prediction_type, diffusion.clip_sample, self.precision)
        digest.update(repr((*read_as, self.format)).encode())
        digest.update(getattr(self.network, "untold", "").encode())
        if self.given is not None:
            digest.update(f"class {self.given[0]}, guidance {self.given[1]!r}".encode())
        for array in (diffusion.schedule.betas, error.timesteps, error.xstart_mse):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(np.ascontiguousarray(error.decoder_bpd).tobytes())
        return int.from_bytes(digest.digest(), "little")
