"""The smallest models of other code bases: 8x8 images, two levels of 8 channels, T = 10."""

import functools
import json
import shutil

import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

UNET = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [8, 8],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_size": 8,
    "time_embedding_type": "positional",
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.1.1",
    "beta_end": 0.2,
    "beta_schedule": "linear",
    "beta_start": 0.001,
    "clip_sample": True,
    "num_train_timesteps": 10,
    "trained_betas": None,
    "variance_type": "fixed_large",
}
INDEX = {
    "_class_name": "DDPMPipeline",
    "_diffusers_version": "0.1.1",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}
SAFE, PICKLED = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def random_unet(settings=UNET):
    """diffusers' network of these settings, always the same; every weight of it matters."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = UNet2DModel.from_config(settings).eval()
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


@functools.cache
def _weights():
    return {name: value.detach().clone() for name, value in random_unet().state_dict().items()}


def weights():
    """The tensors of `UNET`, by diffusers' names."""
    return {name: value.clone() for name, value in _weights().items()}


def write_json(path, values):
    """A file of settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values))


def write_unet(folder, tensors=None, settings=UNET, pickled=False):
    """A network's folder."""
    write_json(folder / "config.json", settings)
    tensors = weights() if tensors is None else tensors
    if pickled:
        torch.save(tensors, folder / PICKLED)
    else:
        save_file(tensors, folder / SAFE)
    return folder


def write_flat(folder, tensors=None, settings=UNET, scheduler=SCHEDULER, pickled=False):
    """A pipeline with all files in one folder, as google/ddpm-cifar10-32 lies on the hub."""
    write_unet(folder, tensors, settings, pickled)
    write_json(folder / "scheduler_config.json", scheduler)
    write_json(folder / "model_index.json", INDEX)
    return folder


def write_nested(folder, tensors=None, settings=UNET, scheduler=SCHEDULER, pickled=False):
    """A pipeline with a folder for each part."""
    write_unet(folder / "unet", tensors, settings, pickled)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(folder / "model_index.json", INDEX)
    return folder


LAYOUTS = {"flat": write_flat, "nested": write_nested}


def write_cached(cache, name, source, commit=COMMIT, ref="main"):
    """A model's folder in the cache of huggingface_hub, as one revision of owner/name."""
    stored = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(source, stored / "snapshots" / commit)
    (stored / "refs").mkdir(exist_ok=True)
    (stored / "refs" / ref).write_text(commit)
    return stored / "snapshots" / commit


def close(found, expected, what):
    scale = expected.abs().max()
    assert float((found - expected).abs().max() / scale) < 1e-5, what


def same_network(theirs, model):
    """Both answer the same, for images so dark that the constant of a norm can be seen."""
    size = model.format.height, model.format.width
    x = 0.1 * torch.randn(3, model.format.channels, *size)
    t = torch.tensor([0, 3, 900])
    with torch.no_grad():
        expected = theirs(x, t).sample
        close(model.denoiser()(x, t), expected, theirs.config)
    assert model.config.network.dropout == theirs.config.dropout  # for going on with training
