"""Inception of 2015-12-05, the network of FID, KID and the Inception score, as TorchScript.

It is the file that StyleGAN2-ADA and clean-fid load, a translation of the TensorFlow graph that
FID was defined with. It takes uint8 [n, 3, h, w] of any size, which it resizes itself.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.errors import DdpmError, check
from ddpm.runtime.device import exact_arithmetic
from ddpm.runtime.paths import exists, user_path

NAME = "inception-2015-12-05.pt"
PUBLISHED = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/" + NAME
VARIABLE = "DDPM_INCEPTION"
SIZE = 2048  # features


def find_inception(path: str | os.PathLike[str] | None = None) -> Path:
    """Where the file is.

    Args:
        path: as a user gave it; else the environment variable DDPM_INCEPTION says it, or it lies
            in the cache of torch.hub.

    Raises:
        DdpmError: it is not there; says which file, where it is published, where to put it.
    """
    cache = Path(torch.hub.get_dir()) / "checkpoints" / NAME
    named = path or os.environ.get(VARIABLE) or None
    found = cache if named is None else user_path(named)
    if exists(found) and found.is_file():
        return found
    said = "" if named is None else f" ({found} is not there)"
    raise DdpmError(
        f"the features of Inception need its TorchScript file {NAME}{said}: get it from "
        f"{PUBLISHED} and put it at {cache}, or say where it is with --inception PATH or "
        f"{VARIABLE}; --features cifar10 and --features pixels need no file"
    )


class Inception:
    """The network, seen to do what it should.

    Args:
        path: of the file.
        device: where it runs.

    Raises:
        DdpmError: it is no TorchScript, or not of this signature.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path, self.device = path, device
        try:
            with warnings.catch_warnings():  # PyTorch would like other files than TorchScript
                warnings.simplefilter("ignore")
                self.network = torch.jit.load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise DdpmError(
                f"{path} is no TorchScript file that can be loaded; get {NAME} from {PUBLISHED}"
            ) from error
        trial = torch.arange(2 * 3 * 32 * 32, device=device).remainder(256).to(torch.uint8)
        features, probabilities = self(trial.reshape(2, 3, 32, 32))
        sums = probabilities.sum(dim=1) if probabilities.ndim == 2 else torch.zeros(1)
        check(
            features.shape == (2, SIZE)
            and probabilities.shape[:1] == (2,)
            and bool((probabilities >= 0).all() and ((sums - 1).abs() < 1e-3).all()),
            f"{path} is another network: of two images it makes features of shape "
            f"{tuple(features.shape)} and not (2, {SIZE}), or no probabilities; get {NAME} from "
            f"{PUBLISHED}",
        )

    def __call__(
        self, images: UInt8[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Features [n, 2048], and the probabilities of the Inception score [n, 1008].

        The last layer's bias is left out for these, as the score's authors have it.

        Raises:
            DdpmError: the file is of another signature.
        """
        try:
            # TF32 would make the features those of a slightly different network.
            with torch.inference_mode(), exact_arithmetic():
                features = self.network(images.to(self.device), return_features=True)
                probabilities = self.network(images.to(self.device), no_output_bias=True)
            return features.float(), probabilities.float()
        except (RuntimeError, AttributeError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise DdpmError(
                f"{self.path} is another network: it cannot be called with uint8 images and "
                f"return_features=True or no_output_bias=True; get {NAME} from {PUBLISHED}"
            ) from error
