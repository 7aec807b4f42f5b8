"""What training minimises: L_simple (Eq. 14), the variational bound (Eq. 5), and their hybrid."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ddpm.diffusion.bound_terms import mean_over_dims, vb_term_from_p
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import one_of

LossType = Literal["simple", "vlb", "hybrid"]
HYBRID_WEIGHT = 1e-3  # Nichol & Dhariwal 2021, lambda in L_simple + lambda L_vlb


def training_loss(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    x_start: Float[Tensor, "b *dims"],
    t: Int[Tensor, " b"],
    noise: Float[Tensor, "b *dims"],
    loss_type: LossType = "simple",
    grey_levels: int = 256,
) -> Float[Tensor, " b"]:
    """The loss of each image at one timestep (the body of Algorithm 1).

    Args:
        diffusion: the whole chain.
        denoiser: the network.
        x_start: images in [-1, 1], [b, c, h, w]; or points, [b, d].
        t: timesteps, [b], uniform on 0..T-1.
        noise: standard normal, as x_start.
        loss_type: simple is the mean squared error on what the network predicts. vlb is the
            term of Eq. 5 at t in bits/dim, not multiplied by T. hybrid is L_simple + 0.001 L_vlb,
            where the bound trains the variance only (its mean is detached).
        grey_levels: values a pixel can take, for the discrete decoder (vlb at t = 0: of images).

    Returns:
        [b]; simple has no unit, vlb is in bits/dim.

    Raises:
        DdpmError: an unknown loss, a network whose output has another shape than it should, images
            that are no floats, noise of another shape, or a t out of range.
    """
    one_of("the loss", loss_type, get_args(LossType))
    x_t = diffusion.q_sample(x_start, t, noise)
    output = diffusion.model_output(denoiser, x_t, t)
    prediction, variance_output = diffusion.split(output)

    bound = torch.zeros(len(t), device=x_t.device)
    if loss_type in ("vlb", "hybrid"):
        if loss_type == "hybrid" and variance_output is not None:
            output = torch.cat([prediction.detach(), variance_output], dim=1)
        # Clipping would cut the gradient of the bound, so it is off while training.
        p = diffusion.p_mean_variance_from_output(output, x_t, t, clip_sample=False)
        bound = vb_term_from_p(diffusion, p, x_start, x_t, t, grey_levels)
        if loss_type == "vlb":
            return bound
    is_epsilon = diffusion.prediction_type == "epsilon"
    target = noise if is_epsilon else diffusion.from_xstart(x_start, x_t, t)
    simple = mean_over_dims((target - prediction) ** 2)
    if loss_type == "simple":
        return simple
    return simple + HYBRID_WEIGHT * diffusion.num_timesteps * bound
