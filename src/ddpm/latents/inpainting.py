"""A part of an image filled in by the reverse process, without training (RePaint)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ddpm.errors import check, whole_number
from ddpm.latents.batches import batches, counted
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress
from ddpm.runtime.randomness import Randomness
from ddpm.sampling import repaint

STEPS = 250  # of a chain, before repeats; as in the RePaint paper
JUMP = 10  # steps of a stretch; as there


def inpaint(
    model: Ddpm,
    images: UInt8[Tensor, "n c h w"],
    mask: Bool[Tensor, "*mask"],
    *,
    seed: int = 0,
    plan: Plan | None = None,
    repeats: int = 10,
    jump: int | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> UInt8[Tensor, "n c h w"]:
    """Fill in a part of images; the rest comes back as it was, bit for bit.

    The noise is that of the reverse process (ancestral sampling): a deterministic sampler has none
    to repeat. Where everything is filled in, the images are samples.

    Args:
        model: whose reverse process.
        images: grey levels of the model's format; what they show under the mask does not matter.
        mask: True where an image is to be filled in, [h, w] for all or [n, 1, h, w].
        seed: which fillings. That of the i-th image depends on seed, i and the image only.
        plan: timesteps and variance; 250 steps (or all T, if they are fewer) where it says nothing.
        repeats: how often each stretch of the chain is walked, at least 1; more make the filling
            fit what is around it better.
        jump: steps of a stretch, at least 1; 10 by default, or as many as the chain has room for.
            See `ddpm.sampling.repaint.levels`.
        batch_size: images at a time, at least 1; 64 by default, or fewer large ones.
        progress: counts network calls.

    Returns:
        Grey levels, on the CPU.

    Raises:
        DdpmError: images of another format, a mask of another size or that fills in nothing, a
            number out of range, or a plan that does not fit.
    """
    model.format.check(images)
    whole_number("the seed", seed, 0)
    fill, parts = check_mask(mask, images), batches(model, len(images), batch_size)
    chain = model.chain(planned(model, plan))
    jump = checked_jump(chain.num_timesteps, repeats, jump)
    calls = len(parts) * repaint.calls(chain.num_timesteps, repeats, jump)
    denoiser = counted(model, progress, calls, "sampling")
    source, device, filled = Randomness(seed, "inpaint"), model.device, images.cpu().clone()
    for part in parts:
        with torch.inference_mode():
            x = repaint.repaint(
                chain,
                denoiser,
                model.format.to_unit(filled[part]).to(device),
                fill[part].to(device),
                partial(source.normal, part.to(device), model.format.shape),
                repeats=repeats,
                jump=jump,
            )
            filled[part] = model.format.from_unit(x).cpu()  # which undoes to_unit exactly
    return filled


def planned(model: Ddpm, plan: Plan | None) -> Plan:
    """The plan of an inpainting without gaps.

    Raises:
        DdpmError: it is no plan, or does not fit the model.
    """
    if plan is None or (plan.steps is None and plan.trajectory is None):
        steps = min(STEPS, model.diffusion.num_timesteps)
        plan = replace(plan or Plan(), steps=steps)
    return model.plan_samples("ancestral", plan)[1]


def checked_jump(steps: int, repeats: int, jump: int | None) -> int:
    """The steps of a stretch.

    Raises:
        DdpmError: there is no room for one in the chain, so that nothing would be repeated.
    """
    if jump is None:
        return min(JUMP, max(steps - 1, 1))
    whole_number("jump", jump, 1)
    check(
        repeats == 1 or jump < steps,
        f"a stretch of {jump} steps does not fit into a chain of {steps}, so nothing would be "
        "repeated; lower jump, or take more steps",
    )
    return jump


def check_mask(mask: Tensor, images: Tensor) -> Tensor:
    """A mask as [n, 1, h, w].

    Raises:
        DdpmError: it is not bool, of another size, or fills in nothing.
    """
    check(
        mask.dtype == torch.bool,
        f"the mask must be of type bool, True where the image is to be filled in, got {mask.dtype}",
    )
    count, _, height, width = images.shape
    check(
        tuple(mask.shape) in ((height, width), (count, 1, height, width)),
        f"the mask must be [{height}, {width}] or [{count}, 1, {height}, {width}], as the images "
        f"are, got {list(mask.shape)}",
    )
    check(
        len(images) == 0 or bool(mask.any()),
        "the mask keeps the whole image, so there is nothing to fill in",
    )
    return mask.cpu().expand(count, 1, height, width)
