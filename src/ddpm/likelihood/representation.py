"""What the network makes of an image on its way to the noise: activations, averaged over space.

The image is diffused for t steps (Eq. 4) and the network is called once; what a layer holds then is
a description of the image that nobody labelled anything for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ddpm.data.images import ImageFormat, Indexed
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import check, whole_number
from ddpm.networks.activations import check_layers, pooled, watched
from ddpm.runtime.progress import Counter, Progress
from ddpm.runtime.randomness import Randomness

AT_A_TIME = 256  # images of 32x32 pixels in a call


def content_numbers(images: UInt8[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
    """A number for each image that depends on its pixels alone."""
    digests = (hashlib.blake2b(i.tobytes(), digest_size=8).digest() for i in images.cpu().numpy())
    return torch.tensor([int.from_bytes(d, "little", signed=True) for d in digests]).long()


def activations(
    network: nn.Module,
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    image_format: ImageFormat,
    images: Indexed,
    t: int,
    layers: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> dict[str, Float[Tensor, "n channels"]]:
    """The activations of some layers at x_t ~ q(x_t | x_0), averaged over space, in one pass.

    Args:
        network: whose layers.
        denoiser: calls it, once for each x_t.
        diffusion: the whole chain.
        image_format: of the images.
        images: uint8 [n, c, h, w] or a data source, of which one batch is read at a time.
        t: steps of diffusion, 1..T.
        layers: see `ddpm.networks.activations.layer_names`; parts of them will do, too.
        seed: decides the noise, which depends on (seed, the image's pixels) only and is the same at
            every t.
        batch_size: images in one network call, 256 by default, or fewer large ones.
        device: where the network is; the CPU by default.
        progress: counts images.

    Returns:
        float32 [n, channels] on the CPU, by layer.

    Raises:
        DdpmError: no such layer, one that gives no image of channels, t out of range, or images of
            another format.
    """
    total = diffusion.num_timesteps
    t = whole_number("t", t, 1)
    check(t <= total, f"t counts steps of diffusion and must lie in 1..{total}, got {t}")
    whole_number("the seed", seed, 0)
    size = image_format.batch(AT_A_TIME) if batch_size is None else batch_size
    whole_number("batch_size", size, 1)
    check_layers(network, layers)
    check(len(images) > 0, "there are no images to describe")
    noise, counter = Randomness(seed, "features"), Counter(progress, len(images), "features")
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for rows in torch.arange(len(images)).split(size):
        batch = images[rows]
        image_format.check(batch)
        x_start = image_format.to_unit(batch.to(device or "cpu"))
        numbers = content_numbers(batch).to(x_start.device)
        times = torch.full_like(numbers, t - 1)
        x_t = diffusion.q_sample(x_start, times, noise.normal(numbers, image_format.shape))
        with torch.inference_mode(), watched(network, layers) as seen:
            denoiser(x_t, times)
        for layer in layers:
            found[layer].append(pooled(seen, layer, len(rows), t).cpu().clone())
        counter.advance(len(rows))
    return {layer: torch.cat(parts) for layer, parts in found.items()}
