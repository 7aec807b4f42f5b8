"""Training with a learned schedule: where its parameters live, and the bound that moves them."""

from __future__ import annotations

from torch import Tensor, nn

from ddpm.config import Config
from ddpm.diffusion.bound_terms import prior_bpd
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.diffusion.importance import BoundTimes
from ddpm.diffusion.learned import PART, LearnedLogSnr, learned_diffusion
from ddpm.diffusion.losses import training_loss
from ddpm.errors import check
from ddpm.networks.sharding import is_sharded


def add_schedule(network: nn.Module, config: Config) -> nn.Module:
    """Give the network of a run the parameters of its schedule, if that is learned.

    As a part of the network they are optimised, averaged, clipped, kept and exchanged between
    processes as its weights are; its forward pass does not know of them.

    Raises:
        DdpmError: every process holds only a shard of the weights.
    """
    learned = config.diffusion.learned() if hasattr(config.diffusion, "learned") else None
    if learned is not None:
        check(
            not is_sharded(),
            "a learned schedule cannot be sharded; train without FSDP, or with another "
            "diffusion.schedule",
        )
        network.add_module(PART, learned)
    return network


def schedule_of(network: nn.Module) -> LearnedLogSnr | None:
    """The learned schedule of a run's network; None where it is not learned."""
    found = getattr(network, PART, None)
    return found if isinstance(found, LearnedLogSnr) else None


def bound_loss(
    schedule: LearnedLogSnr,
    like: GaussianDiffusion,
    denoiser: Denoiser,
    x_start: Tensor,
    quantile: Tensor,
    noise: Tensor,
    grey_levels: int,
) -> Tensor:
    """An unbiased estimate of the whole bound (Eq. 5) of each image, in bits/dim, from one t.

    t is drawn as often as the bound weighs its error under the schedule as it stands, and its term
    is divided by that probability; L_T is added. Its gradient is that of the bound by the weights
    and, through x_t and the constants, by the schedule.

    Args:
        schedule: whose parameters get gradients.
        like: the other settings of the diffusion.
        denoiser: the network.
        x_start: images in [-1, 1], [b, c, h, w].
        quantile: which t, [b] in (0, 1].
        noise: standard normal, as x_start.
        grey_levels: of the images.
    """
    diffusion = learned_diffusion(schedule, like)
    times = BoundTimes(diffusion.schedule, x_start.device)
    t = times.at(quantile)
    term = training_loss(diffusion, denoiser, x_start, t, noise, "vlb", grey_levels)
    return term / times.probability[t].to(term.dtype) + prior_bpd(diffusion, x_start)
