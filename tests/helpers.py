"""What many tests share: a network and a run so small that a step takes milliseconds."""

from dataclasses import replace
from pathlib import Path

import torch

from ddpm.config import Config, DataConfig, DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.data.images import ImageFormat, MemoryImages
from ddpm.model import Ddpm
from ddpm.runs.checkpoint import load_checkpoint
from ddpm.runs.folder import RunFolder
from ddpm.runs.history import History
from ddpm.runs.log import read_stats

BRIEFLY = ("--last-stage-steps", "2")  # for `ddpm measure`, where the last stage does not matter


def tiny_config(dropout=0.0, flip=False, timesteps=20, channels=1, **training):
    """8x8 images, 8 channels on one level, T = 20."""
    options = {
        "steps": 20,
        "batch_size": 4,
        "lr": 1e-3,
        "warmup": 5,
        "ema_decay": 0.9,
        "save_every": 10,
        "sample_every": 0,
        "log_every": 5,
        **training,
    }
    return Config(
        data=DataConfig(path="digits", image_size=8, channels=channels, flip=flip),
        network=UNetConfig(
            ch=8,
            ch_mult=(1,),
            num_res_blocks=1,
            attn_resolutions=(),
            dropout=dropout,
            norm_groups=4,
        ),
        diffusion=DiffusionConfig(timesteps=timesteps, beta_end=0.2),
        training=TrainingConfig(**options),
    )


def with_training(config, **changes):
    """`config` with other training settings."""
    return replace(config, training=replace(config.training, **changes))


def tiny_images(n=10, grey_levels=17, channels=1, seed=1):
    """`n` random images of 8x8 pixels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, grey_levels, (n, channels, 8, 8), generator=generator)
    return MemoryImages(pixels.to(torch.uint8), grey_levels, "noise")


def tiny_model(seed=0, **options):
    """A model whose every weight matters: normal numbers instead of a near-zero last layer."""
    config = tiny_config(**options)
    image_format = ImageFormat(config.data.channels, 8, 8, 17)
    network = config.build_network(image_format.shape)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    history = History(data="noise", step=3, images=12, seconds=1.5)
    return Ddpm(config, image_format, network.requires_grad_(False), history=history)


def measured_model(n=40, coded=True, **options):
    """The same with its denoising error measured on `n` random images, and with a last stage that
    has hardly learned from them."""
    model = tiny_model(**options)
    images = tiny_images(n, channels=model.format.channels)
    model.measure(images)
    if coded:
        model.learn_coding(images, steps=5)
    return model


def checkpoints(run):
    """All checkpoints of a run, oldest first."""
    return RunFolder(Path(run)).checkpoints()


def checkpoint_path(run, step):
    """Where a run keeps the checkpoint of a step."""
    return RunFolder(Path(run)).checkpoint(step)


def stats_of(run):
    """The lines of a run's log."""
    return read_stats(RunFolder(Path(run)))


def tensors_of(what):
    """Everything that a checkpoint holds: of a result, a run's folder or a file."""
    path = Path(getattr(what, "checkpoint", what))
    return load_checkpoint(checkpoints(path)[-1] if path.is_dir() else path, training=True)[0]
