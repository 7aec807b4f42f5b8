"""What the codec needs of a model: numbers to compute with, and nothing of where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from ddpm.codec.coding import Coding
from ddpm.codec.planning import Errors, choose_route
from ddpm.codec.route import Route
from ddpm.data.images import ImageFormat
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.likelihood.spectral_error import SpectralError

VERSION = b"2"  # of what decoders compute: another one would not decode the files of this


@dataclass(frozen=True, eq=False)
class CodecModel:
    """A model as sender and receiver both have it.

    Args:
        chain: gives the chain over some timesteps, rising, with the variance of the coding.
        diffusion: the whole chain.
        denoiser: the network as it is called, in fp32.
        network: the same, for its weights.
        error: of the network, in the coordinates of that variance.
        coding: the last stage, and the route of a single image.
        format: of its images.
        classes: that the network knows.
        given: the class that it is called with and the guidance; None for no class.
    """

    chain: Callable[[tuple[int, ...]], GaussianDiffusion]
    diffusion: GaussianDiffusion
    denoiser: Denoiser
    network: nn.Module
    error: Errors
    coding: Coding
    format: ImageFormat
    classes: int = 0
    given: tuple[int, float] | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def can_walk(self, route: Route) -> bool:
        """Whether a route begins where this model's chain does."""
        return route.timesteps[0] == self.diffusion.num_timesteps - 1

    def route(self, tiles: int, steps: int | None = None, last: int | None = None) -> Route:
        """The cheapest route for parts of so many tiles; see `ddpm.codec.planning`.

        Raises:
            DdpmError: a number of steps or a last timestep that the model does not have.
        """
        if (tiles, steps, last) == (1, None, None):
            return self.coding.route
        ends = self.coding.ends
        return choose_route(self.diffusion.schedule, self.error, ends, tiles, steps, last).route

    @cached_property
    def fingerprint(self) -> int:
        """64 bits of all that a decoder computes with; a file holds the lowest of them."""
        diffusion, error = self.diffusion, self.error
        digest = hashlib.blake2b(VERSION, digest_size=8)
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        digest.update(diffusion.prediction_type.encode() + bytes([diffusion.clip_sample]))
        digest.update(np.array([*self.format.shape, self.format.levels], "<i8").tobytes())
        digest.update(getattr(self.network, "untold", "").encode())
        if self.given is not None:
            digest.update(f"class {self.given[0]}, guidance {self.given[1]!r}".encode())
        colours = error.colours if isinstance(error, SpectralError) else np.zeros(0)
        for array in (diffusion.schedule.betas, error.timesteps, colours, error.xstart_mse):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(self.coding.digest())
        return int.from_bytes(digest.digest(), "little")
