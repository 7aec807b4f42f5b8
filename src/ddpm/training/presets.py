"""Named configurations: the paper's, exactly, and two small ones.

Each function's docstring says what a run costs and what it should reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ddpm.config import Config, DataConfig, DiffusionConfig, NetworkConfig, TrainingConfig
from ddpm.errors import DdpmError


def digits() -> Config:
    """The embedded 8x8 digits, for a first look, for tests and for teaching; flips are off.

    Costs about 3 minutes on 2 CPU cores. Reaches samples that a classifier recognises nearly as
    often as real held-out digits; RESULTS.md has the figures.
    """
    return Config(
        data=DataConfig(path="digits", image_size=8, channels=1, flip=False),
        network=NetworkConfig(
            ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), dropout=0, norm_groups=8
        ),
        training=TrainingConfig(
            steps=2400,
            batch_size=128,
            lr=2e-3,
            lr_decay="cosine",
            warmup=200,
            ema_decay=0.995,
            save_every=600,
            sample_every=800,
            log_every=20,
        ),
    )


def cifar10() -> Config:
    """The paper's CIFAR-10 model: 35.7M parameters, 800k steps of 128 images.

    The paper reports FID 3.17, Inception score 9.46 and at most 3.75 bits/dim; its training took
    10.6 hours on a TPU v3-8. A faithful run passes FID 9.2 at 47k, 4.1 at 187k steps.
    """
    return Config()


def cifar10_small() -> Config:
    """The CIFAR-10 network at half the width (about 9M parameters) for CPUs and small GPUs.

    Costs about a fifth of the full network's arithmetic a step. It has not been trained yet: the
    model of this name that comes with the package has a quarter of the width (RESULTS.md).
    """
    base = cifar10()
    return replace(
        base,
        network=replace(base.network, ch=64),
        training=replace(base.training, steps=200_000, warmup=1000, ema_decay=0.999),
    )


def _paper_256(steps: int, flip: bool, ch: int = 128) -> Config:
    return Config(
        data=DataConfig(image_size=256, channels=3, flip=flip),
        network=NetworkConfig(ch=ch, ch_mult=(1, 1, 2, 2, 4, 4), dropout=0.0),
        diffusion=DiffusionConfig(variance_type="fixed_small"),
        training=TrainingConfig(steps=steps, batch_size=64, lr=2e-5),
    )


def lsun_bedroom() -> Config:
    """LSUN Bedroom 256x256: 113.7M parameters, 2.4M steps of 64, no flips.

    The paper reports FID 6.36. `--data` is the folder of bedroom_train_lmdb (docs/data.md).
    """
    return _paper_256(2_400_000, flip=False)


def lsun_bedroom_large() -> Config:
    """The large Bedroom model: 255.7M parameters (very likely ch 192).

    The paper reports FID 4.90 after 1.15M steps.
    """
    return _paper_256(1_150_000, flip=False, ch=192)


def lsun_church() -> Config:
    """LSUN Church 256x256: 113.7M parameters, 1.2M steps of 64.

    The paper reports FID 7.89.
    """
    return _paper_256(1_200_000, flip=True)


def lsun_cat() -> Config:
    """LSUN Cat 256x256: 113.7M parameters, 1.8M steps of 64.

    The paper reports FID 19.75.
    """
    return _paper_256(1_800_000, flip=True)


def celebahq() -> Config:
    """CelebA-HQ 256x256: 113.7M parameters, 0.5M steps of 64.

    The paper shows samples and gives no FID. `--data` is a folder of images or Parquet files.
    """
    return _paper_256(500_000, flip=True)


PRESETS: dict[str, Callable[[], Config]] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar10-small": cifar10_small,
    "lsun-bedroom": lsun_bedroom,
    "lsun-bedroom-large": lsun_bedroom_large,
    "lsun-church": lsun_church,
    "lsun-cat": lsun_cat,
    "celebahq": celebahq,
}


def get_preset(name: str) -> Config:
    """The configuration called `name`, or a DdpmError that lists the known ones."""
    if name not in PRESETS:
        raise DdpmError(f"unknown preset '{name}'; choose from {', '.join(PRESETS)}")
    return PRESETS[name]()
