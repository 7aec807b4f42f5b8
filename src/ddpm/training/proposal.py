"""Settings for images of one's own: size, colours, network and steps from what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from ddpm.config import Config, UNetConfig
from ddpm.data.arrays import Arrays
from ddpm.data.cifar10 import find_batches
from ddpm.data.decode import BrokenImage, open_picture, plain, upright
from ddpm.data.forms import look_at_file, look_into_folder
from ddpm.data.images import EncodedImages
from ddpm.data.splits import divide
from ddpm.errors import check
from ddpm.runtime.device import best_device
from ddpm.runtime.paths import exists, user_path

LOOKED_AT = 64  # images
SIZES = (8, 16, 32, 64, 128, 256)
CPU_SIZE = 64  # of images without a GPU
CPU_STEPS = 12_000  # at most without a GPU: some hours at 32x32
PASSES = 200  # over the images
NETWORKS = {  # by the side of the images: channels on a CPU and on a GPU, and the rest
    8: (32, 64, (1, 2), (4,)),
    16: (32, 64, (1, 2, 2), (8,)),
    32: (32, 128, (1, 2, 2, 2), (8,)),
    64: (32, 128, (1, 2, 2, 2), (16,)),
    128: (32, 128, (1, 1, 2, 2, 4), (16,)),
    256: (32, 128, (1, 1, 2, 2, 4, 4), (16,)),
}


def propose(path: str | Path, base: Config) -> tuple[Config, str]:
    """Settings for the images at a path, and a sentence with them as options.

    Args:
        path: see `open_data`.
        base: what is not proposed.

    Raises:
        DdpmError: there are no images.
    """
    side, grey, count, divided = _look(user_path(path))
    on_gpu = best_device().type == "cuda"
    fitting = [size for size in SIZES if size <= side and (on_gpu or size <= CPU_SIZE)]
    size = max(fitting, default=SIZES[0])
    small, large, mult, attention = NETWORKS[size]
    batch = 128 if on_gpu else 64
    steps = max(2000, int(round(PASSES * count / batch, -3)))
    channels = large if on_gpu else small
    predicts = "epsilon" if on_gpu else base.diffusion.prediction_type  # the paper's on a GPU
    config = replace(
        base,
        diffusion=replace(base.diffusion, prediction_type=predicts),
        data=replace(
            base.data,
            path=str(path),
            image_size=size,
            channels=1 if grey else 3,
            hold_out=0.0 if divided or count < 400 else 0.05,
        ),
        network=UNetConfig(
            ch=channels,
            ch_mult=mult,
            attn_resolutions=attention,
            dropout=0.1 if on_gpu else 0.0,
            norm_groups=32 if on_gpu else 16,
        ),
        training=replace(
            base.training,
            steps=steps if on_gpu else min(steps, CPU_STEPS),
            batch_size=batch,
            optimizer="adam" if on_gpu else base.training.optimizer,
            lr=2e-4 if on_gpu else base.training.lr,
        ),
    )
    return config, _said(config, side, grey, count)


def _said(config: Config, side: float, grey: bool, count: int) -> str:
    """The proposal as options."""
    data, network, training = config.data, config.network, config.training
    assert isinstance(network, UNetConfig)
    mult = " ".join(map(str, network.ch_mult))
    attention = " ".join(map(str, network.attn_resolutions))
    hold_out = f" --data.hold-out {data.hold_out:g}" if data.hold_out else ""
    return (
        f"proposed for {count:,} images to train on, {'grey' if grey else 'in colour'}, as a rule "
        f"{side:g} pixels on the shorter side: --data.image-size {data.image_size} "
        f"--data.channels {data.channels}{hold_out} --network.ch {network.ch} "
        f"--network.ch-mult {mult} --network.attn-resolutions {attention} "
        f"--network.dropout {network.dropout} --network.norm-groups {network.norm_groups} "
        f"--training.steps {training.steps} --training.batch-size {training.batch_size} "
        f"--training.lr {training.lr:g} --training.optimizer {training.optimizer} "
        f"--diffusion.prediction-type {config.diffusion.prediction_type}; each can be changed"
    )


def _look(path: Path) -> tuple[float, bool, int, bool]:
    """The usual shorter side, whether all is grey, how many images, and whether some are held
    out."""
    if str(path) == "digits":
        return 8, True, 1500, True
    check(exists(path), f"{path} does not exist; data.path needs a folder or a file of images")
    if find_batches(path) is not None:
        return 32, False, 50_000, True
    look = look_into_folder if path.is_dir() else look_at_file
    found = look(path, SIZES[-1], 3)
    if isinstance(found, Arrays):
        pixels, _ = found.read("train")
        return (
            min(pixels.shape[1:3]),
            pixels.ndim == 3 or pixels.shape[3] == 1,
            len(pixels),
            bool(found.divided().test),
        )
    divided = divide(found.listing.images)
    check(bool(divided.train), f"{path} holds no images to train on")
    encoded = found.open(divided.train, path.name)
    sides, grey = _sample(encoded)
    check(bool(sides), f"none of the images of {path} that were looked at can be read")
    return median(sides), grey, len(encoded), bool(divided.test)


def _sample(encoded: EncodedImages) -> tuple[list[int], bool]:
    """The shorter sides of some images, and whether none has colours."""
    count = len(encoded)
    sides, grey = [], True
    for i in range(min(count, LOOKED_AT)):
        try:
            picture = open_picture(encoded[i * count // min(count, LOOKED_AT)])
            pixels = np.asarray(plain(upright(picture.image), picture.bits, "RGB"))
        except BrokenImage:
            continue
        sides.append(min(pixels.shape[:2]))
        grey = grey and not bool((pixels != pixels[:, :, :1]).any())
    return sides, grey
