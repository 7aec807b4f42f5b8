"""The model card that goes with an exported model: what is known of it, and nothing else."""

from __future__ import annotations

from ddpm.model import Ddpm


def model_card(model: Ddpm, title: str) -> str:
    """A README.md for the hub.

    Args:
        model: what is exported.
        title: what it is called.
    """
    network, diffusion, history = model.config.network, model.diffusion, model.history
    known = [
        ("images", str(model.format)),
        ("parameters", f"{model.num_parameters:,}"),
        ("network", "the U-Net of Ho, Jain & Abbeel 2020: " + settings_of(network)),
        (
            "diffusion",
            f"T = {diffusion.num_timesteps:,}, betas {diffusion.schedule.betas[0]:.3g} to "
            f"{diffusion.schedule.betas[-1]:.3g}; predicts {diffusion.prediction_type}; "
            f"variance {diffusion.variance_type}; x_0 {'' if diffusion.clip_sample else 'not '}"
            "clipped to [-1, 1]",
        ),
        ("weights", "averaged" if history.origin is None else f"imported from {history.origin}"),
    ]
    if history.began_from:
        known.append(("training began from", history.began_from))
    if history.data:
        known.append(("data", history.data))
    if history.step:
        known.append(("training", training_of(model)))
    if model.class_names:
        known.append(("classes", ", ".join(model.class_names)))
    rows = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in known)
    return f"{FRONT}\n# {title}\n\n| | |\n| --- | --- |\n{rows}\n\n{use_of(model)}\n{ORIGIN}"


FRONT = """---
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags:
- ddpm
- diffusers
- unconditional-image-generation
---
"""
ORIGIN = """
Exported by `ddpm export`; `ddpm import` brings it back, for bits/dim, figures and compression.
What the pictures show is invented. The licence of the weights, and of what they were trained on,
is not known to this card; please add it.
"""


def settings_of(network: object) -> str:
    """The settings of a network, one after another."""
    return ", ".join(f"{key} {value}" for key, value in vars(network).items())


def training_of(model: Ddpm) -> str:
    """What the weights have been through."""
    history, training = model.history, model.config.training
    hours = f"{history.seconds / 3600:.1f} hours" if history.seconds else "an unknown time"
    loss = history.loss or training.loss
    since = " since then" * (history.began_from is not None)
    return (
        f"{history.images:,} images seen{since} in {hours}, the last {history.step:,} steps of "
        f"{training.batch_size} with loss {loss}, learning rate {training.lr:g}, "
        f"EMA {training.ema_decay:g}"
    )


def use_of(model: Ddpm) -> str:
    """How diffusers draws with it, and where it cannot."""
    lines = []
    if model.format.levels != 256:
        lines.append(
            f"The images have {model.format.levels} grey levels, spread over -1..1; diffusers "
            "gives them 256, so what it draws lies between the levels."
        )
    if model.config.classes:
        null = model.config.classes
        lines.append(
            f"The network takes class labels 0..{null - 1}, and {null}, the null class, for none; "
            "`DDPMPipeline` gives none, so call the unet itself: `unet(x, t, class_labels=labels)`."
        )
    else:
        lines.append(
            "```python\nfrom diffusers import DDPMPipeline\n\n"
            'pipeline = DDPMPipeline.from_pretrained("this folder")\n'
            f"images = pipeline(num_inference_steps={model.diffusion.num_timesteps}).images\n```"
        )
    error = model.denoising_error
    if error is not None and error.calibration is not None:
        lines.append(
            "The calibration of its predicted x_0 stays behind, since diffusers has no place for "
            "it: its DDIM and DPM-Solver++ draw as ours do with `--no-calibrated`, which can be "
            "oversaturated. `ddpm import` and `ddpm measure` find it again."
        )
    return "\n\n".join(lines)
