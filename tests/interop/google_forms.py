"""The configurations of google/ddpm-cifar10-32 and google/ddpm-*-256 in their public forms, narrow
copies of them with random weights, and the folders that they come in."""

import json

import torch
from diffusers import DDPMScheduler, UNet2DModel

UNET_CIFAR10 = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
UNET_CIFAR10_LATER = UNET_CIFAR10 | {
    "_diffusers_version": "0.24.0",
    "add_attention": True,
    "attention_head_dim": None,
    "attn_norm_num_groups": None,
    "class_embed_type": None,
    "downsample_type": "conv",
    "dropout": 0.0,
    "num_class_embeds": None,
    "num_train_timesteps": None,
    "resnet_time_scale_shift": "default",
    "upsample_type": "conv",
}
UNET_256 = UNET_CIFAR10 | {
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "sample_size": 256,
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}
UNETS = {
    "cifar10": UNET_CIFAR10,
    "cifar10, one head": UNET_CIFAR10 | {"attention_head_dim": None},
    "cifar10, later": UNET_CIFAR10_LATER,
    "256": UNET_256,
    "256, one head": UNET_256 | {"attention_head_dim": None},
}
SMALL = UNET_CIFAR10_LATER | {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 8,
}
SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.1.1",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "variance_type": "fixed_large",
}
SCHEDULER_LATER = SCHEDULER | {
    "_diffusers_version": "0.24.0",
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "leading",
}


def narrow(unet, by=4):
    """The same layout with a fraction of the channels."""
    return unet | {"block_out_channels": [n // by for n in unet["block_out_channels"]]}


def random_unet(settings, seed=0):
    """diffusers' network of these settings, every weight of it a number that matters."""
    generator = torch.Generator().manual_seed(seed)
    network = UNet2DModel.from_config(settings).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


def write_json(path, values):
    """A file of settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def write_pipeline(folder, network, settings, scheduler=SCHEDULER, flat=False, pickled=False):
    """A pipeline's folder; flat, as the models of google lie on the hub, it has none in it."""
    unet = folder if flat else folder / "unet"
    network.save_pretrained(unet, safe_serialization=not pickled)
    write_json(unet / "config.json", settings)
    below = folder if flat else folder / "scheduler"
    write_json(below / "scheduler_config.json", scheduler)
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "DDPMPipeline",
            "_diffusers_version": "0.1.1",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        },
    )
    return folder


def steps(scheduler, **settings):
    """diffusers' scheduler, of DDPM by default."""
    return DDPMScheduler.from_config(scheduler, **settings)
