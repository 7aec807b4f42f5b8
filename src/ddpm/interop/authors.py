"""State dicts in the naming of the authors' code, which its PyTorch conversions and DDIM's share.

The names tell the layout of the network. They do not tell the size of the images (taken from where
the attention is: the paper has it at 16x16), the groups (32 in the paper) and the diffusion.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ddpm.config import Config, DiffusionConfig, UNetConfig
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError, check
from ddpm.interop.foreign import Foreign, Told, assemble, multiples
from ddpm.interop.naming import Naming, Tensors, shape_of

RES = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time": "temb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "nin_shortcut",
}
NAMING = Naming(
    single={
        "time1": "temb.dense.0",
        "time2": "temb.dense.1",
        "conv_in": "conv_in",
        "norm_out": "norm_out",
        "conv_out": "conv_out",
    },
    places={
        "down.res": "down.{level}.block.{block}",
        "down.attention": "down.{level}.attn.{block}",
        "downsample": "down.{level}.downsample.conv",
        "middle1": "mid.block_1",
        "middle_attention": "mid.attn_1",
        "middle2": "mid.block_2",
        "up.res": "up.{level}.block.{block}",
        "up.attention": "up.{level}.attn.{block}",
        "upsample": "up.{level}.upsample.conv",
    },
    res=RES,
    attention={"norm": "norm", "q": "q", "k": "k", "v": "v", "proj": "proj_out"},
)
PAPER_SIDE = 16  # where the paper's networks have attention
GROUPS = 32
LEVEL = re.compile(r"down\.([0-9]{1,4})\.")
BLOCKS = re.compile(r"down\.0\.block\.[0-9]+\.conv1\.weight")
MOST_BLOCKS = 1000  # of a network on its way down
DESCRIPTION = "ddpm_model"  # of the text in a safetensors file


def is_authors(tensors: Tensors) -> bool:
    """Whether tensors are named as in the authors' code."""
    return "temb.dense.0.weight" in tensors or "down.0.block.0.norm1.weight" in tensors


def read_authors(tensors: Tensors, text: dict[str, str], path: Path, told: Told) -> Foreign:
    """The model of a state dict.

    Args:
        tensors: by their names.
        text: that stands beside them; what `ddpm export` wrote there tells everything.
        path: where they were read.
        told: what they do not say.

    Raises:
        DdpmError: they are of no such network, or something must be told.
    """
    where, notes = str(path), list[str]()
    if DESCRIPTION in text:
        told.only(where)
        network, diffusion, image_format, outputs = described(text[DESCRIPTION], where)
    else:
        told.only(where, "image_size", "norm_groups", "diffusion")
        network, image_format, outputs = layout(tensors, told, where, notes)
        diffusion, note = told.papers_diffusion(image_format, outputs, path)
        notes.append(note)
    model = assemble(
        tensors, NAMING, network, diffusion, image_format, outputs, where=where, origin=path.name
    )
    return Foreign(model, "the authors' naming", tuple(notes))


def layout(
    tensors: Tensors, told: Told, where: str, notes: list[str]
) -> tuple[UNetConfig, ImageFormat, int]:
    """The network that tensors are of, its images, and the channels of its output.

    Raises:
        DdpmError: they are of no such network, or something must be told.
    """
    ch, channels = shape_of(tensors, "conv_in.weight", where)[:2]
    outputs = shape_of(tensors, "conv_out.weight", where)[0]
    numbers = [int(found[1]) for found in map(LEVEL.match, tensors) if found]
    levels = range(1 + max(numbers, default=0))
    widths = [shape_of(tensors, f"down.{i}.block.0.conv1.weight", where)[0] for i in levels]
    attending = [i for i in levels if f"down.{i}.attn.0.q.weight" in tensors]
    network = UNetConfig(
        ch=ch,
        ch_mult=multiples(widths, ch, where),
        num_res_blocks=sum(bool(BLOCKS.fullmatch(name)) for name in tensors),
        attn_resolutions=(),
        dropout=0.0,
        norm_groups=told.norm_groups or GROUPS,
    )
    side = told.image_size
    if side is None:
        check(
            len(attending) == 1,
            f"{where} does not tell the size of its images; give it with --image-size",
        )
        side = PAPER_SIDE << attending[0]
        notes.append(
            f"images of {side}x{side} are assumed, since the paper has attention at "
            f"{PAPER_SIDE}x{PAPER_SIDE}; another size is given with --image-size"
        )
    sides = tuple(side >> level for level in attending)
    return replace(network, attn_resolutions=sides), ImageFormat(channels, side, side), outputs


def described(text: str, where: str) -> tuple[UNetConfig, DiffusionConfig, ImageFormat, int]:
    """What `description` wrote: network, diffusion, images; and the channels of the output.

    Raises:
        DdpmError: it is damaged, or of another version.
    """
    try:
        stored = json.loads(text)
        config, image_format = Config.from_dict(stored["config"]), ImageFormat(**stored["images"])
        network, diffusion = config.network, config.diffusion
        if not (isinstance(network, UNetConfig) and isinstance(diffusion, DiffusionConfig)):
            raise ValueError("it is of no U-Net of the paper")
        if network.classes:
            raise ValueError("the authors' networks know no classes")
        if network.num_res_blocks * len(network.ch_mult) > MOST_BLOCKS:
            raise ValueError("its network has no end of res-blocks")
        outputs = image_format.channels * (1 + diffusion.build().learns_variance)
        with torch.device("meta"):  # whether its settings can be settings
            network.build(image_format.shape, outputs)
        return network, diffusion, image_format, outputs
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise DdpmError(f"what {where} says of its model cannot be read ({said})") from error


def description(config: Config, image_format: ImageFormat) -> dict[str, str]:
    """What stands beside weights, so that they can be imported again without a question."""
    groups = {k: v for k, v in config.to_dict().items() if k in ("network", "diffusion")}
    return {DESCRIPTION: json.dumps({"config": groups, "images": asdict(image_format)})}
