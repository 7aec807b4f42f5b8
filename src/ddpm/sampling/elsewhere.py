"""What a model is asked by code that is not ours: the noise in x_t, and a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import check


def predicted_noise(
    diffusion: GaussianDiffusion, denoiser: Denoiser, x: Tensor, t: Tensor | float
) -> Tensor:
    """The noise that a network sees in x_t, whatever it predicts (docs/other-samplers.md).

    It belongs to the predicted x_0 as it is, not clipped.

    Args:
        diffusion: the chain.
        denoiser: the network.
        x: x_t, [b, c, h, w], of any float type.
        t: time indices of the chain, [b] or one for all; whole numbers of any type.

    Returns:
        float32, [b, c, h, w].

    Raises:
        DdpmError: a time outside the chain or between two of its own.
    """
    last = diffusion.num_timesteps - 1
    times = torch.as_tensor(t, device=x.device).expand(len(x))
    check(
        bool(((times == times.long()) & (times >= 0) & (times <= last)).all()),
        f"the network knows the whole times 0..{last} and was asked for others; round them "
        "(k-diffusion: quantize=True)",
    )
    x, times = x.float(), times.long()
    prediction, _ = diffusion.split(diffusion.model_output(denoiser, x, times))
    if diffusion.prediction_type == "epsilon":
        return prediction.clone()  # nobody could write to a tensor of inference mode
    return diffusion.convert(prediction, x, times, "epsilon")


def without_gradient(forward: Denoiser) -> Denoiser:
    """A denoiser in inference mode, which refuses to be differentiated.

    What is computed from x and its output would have a gradient, but without the network's share.

    Raises:
        DdpmError: from the denoiser, when a gradient is asked for.
    """

    def call(x: Tensor, t: Tensor) -> Tensor:
        check(
            not (x.requires_grad and torch.is_grad_enabled()),
            "a denoiser has no gradient; differentiate the network itself, model.network, or "
            "detach x",
        )
        with torch.inference_mode():
            return forward(x, t)

    return call
