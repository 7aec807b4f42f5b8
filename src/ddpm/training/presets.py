"""Named configurations: the paper's, exactly, small ones, and one for images of one's own.

Each function's docstring says what a run costs and what it should reach.
"""

from __future__ import annotations

from dataclasses import replace

from ddpm.config import Config, DataConfig, DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.errors import DdpmError, check
from ddpm.registry import import_object, lookup, register


@register("preset", "digits")
def digits() -> Config:
    """The embedded 8x8 digits, for a first look, for tests and for teaching; flips are off.

    Costs about 3 minutes on 2 CPU cores. Reaches samples that a classifier recognises nearly as
    often as real held-out digits; RESULTS.md has the figures, and those of the paper's Adam.
    """
    return Config(
        data=DataConfig(path="digits", image_size=8, channels=1, flip=False),
        network=UNetConfig(
            ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), dropout=0, norm_groups=8
        ),
        training=TrainingConfig(
            steps=2000,
            batch_size=128,
            optimizer="muon",
            lr=4e-3,
            lr_decay="cosine",
            warmup=160,
            ema_decay=0.995,
            stratified_time=True,
            save_every=500,
            sample_every=1000,
            log_every=20,
        ),
    )


@register("preset", "cifar10")
def cifar10() -> Config:
    """The paper's CIFAR-10 model: 35.7M parameters, 800k steps of 128 images.

    The paper reports FID 3.17, Inception score 9.46 and at most 3.75 bits/dim; its training took
    10.6 hours on a TPU v3-8. A faithful run passes FID 9.2 at 47k, 4.1 at 187k steps.
    """
    return Config()


@register("preset", "cifar10-small")
def cifar10_small() -> Config:
    """The network of the model `cifar10-small` that comes with the package: 3.3M parameters.

    Two networks of a quarter of the paper's width, one for t < 200 and one above, which know the
    ten classes and predict v. For CPUs: this run takes 2.7 hours on two cores. The shipped weights
    were trained on a GPU first; their model card says how, and what they reach.
    """
    base = images()
    return replace(
        base,
        network=UNetConfig(
            ch=32,
            ch_mult=(1, 2, 2),
            attn_resolutions=(8,),
            dropout=0.0,
            norm_groups=16,
            classes=10,
            switch=200,
        ),
        training=replace(base.training, batch_size=128, lr=3e-3, time_sampling="both"),
    )


@register("preset", "images")
def images() -> Config:
    """A folder of your own: size, network and steps are proposed from the images in --data.

    `ddpm train images --data FOLDER` says what it proposes, as options that can be changed. Without
    a GPU images become at most 64x64, the network is small and predicts v, and the run takes some
    hours.
    """
    base = cifar10()
    return replace(
        base,
        network=UNetConfig(ch=32, attn_resolutions=(8,), dropout=0.0, norm_groups=16),
        diffusion=replace(base.diffusion, prediction_type="v_prediction"),
        training=replace(
            base.training,
            steps=12_000,
            batch_size=64,
            optimizer="muon",
            lr=2e-3,
            lr_decay="cosine",
            warmup=200,
            ema_decay=0.9995,
            stratified_time=True,
            save_every=1000,
            sample_every=1000,
        ),
    )


def _paper_256(steps: int, flip: bool, ch: int = 128) -> Config:
    return Config(
        data=DataConfig(image_size=256, channels=3, flip=flip),
        network=UNetConfig(ch=ch, ch_mult=(1, 1, 2, 2, 4, 4), dropout=0.0),
        diffusion=DiffusionConfig(variance_type="fixed_small"),
        training=TrainingConfig(steps=steps, batch_size=64, lr=2e-5),
    )


@register("preset", "lsun-bedroom")
def lsun_bedroom() -> Config:
    """LSUN Bedroom 256x256: 113.7M parameters, 2.4M steps of 64, no flips.

    The paper reports FID 6.36. `--data` is the folder of bedroom_train_lmdb (docs/data.md).
    """
    return _paper_256(2_400_000, flip=False)


@register("preset", "lsun-bedroom-large")
def lsun_bedroom_large() -> Config:
    """The large Bedroom model: 255.7M parameters (very likely ch 192).

    The paper reports FID 4.90 after 1.15M steps.
    """
    return _paper_256(1_150_000, flip=False, ch=192)


@register("preset", "lsun-church")
def lsun_church() -> Config:
    """LSUN Church 256x256: 113.7M parameters, 1.2M steps of 64.

    The paper reports FID 7.89.
    """
    return _paper_256(1_200_000, flip=True)


@register("preset", "lsun-cat")
def lsun_cat() -> Config:
    """LSUN Cat 256x256: 113.7M parameters, 1.8M steps of 64.

    The paper reports FID 19.75.
    """
    return _paper_256(1_800_000, flip=True)


@register("preset", "celebahq")
def celebahq() -> Config:
    """CelebA-HQ 256x256: 113.7M parameters, 0.5M steps of 64.

    The paper shows samples and gives no FID. `--data` is a folder of images or Parquet files.
    """
    return _paper_256(500_000, flip=True)


def get_preset(name: str) -> Config:
    """The configuration called `name`.

    Args:
        name: a registered name, or the dotted path of a function without arguments or of a
            `Config`, such as my_package.my_preset.

    Raises:
        DdpmError: there is none; lists the known ones.
    """
    found = import_object(name) if "." in name else lookup("preset", name)
    try:
        config = found() if callable(found) else found
    except TypeError as error:
        raise DdpmError(
            f"{name} is no preset ({error}); it must be a ddpm.Config, or a function without "
            "arguments that returns one"
        ) from error
    check(isinstance(config, Config), f"{name} does not give a ddpm.Config but {config!r:.100}")
    return config
