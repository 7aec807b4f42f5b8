"""State dicts of openai/improved-diffusion, where the network is the paper's.

Its constants are others (variant openai), which no weights tell; nor do they tell the heads of the
attentions, the size of the images or the diffusion. Networks that scale and shift by the time
embedding, its default, are not the paper's and are refused.
"""

from __future__ import annotations

import re
from pathlib import Path

from ddpm.config import DiffusionConfig, UNetConfig
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError, check
from ddpm.interop.foreign import Foreign, Told, assemble, multiples
from ddpm.interop.naming import Naming, Tensors, check_dense, shape_of

RES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
}
NAMING = Naming(
    single={
        "time1": "time_embed.0",
        "time2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "norm_out": "out.0",
        "conv_out": "out.2",
    },
    places={
        "down.res": "input_blocks.{index}.0",
        "down.attention": "input_blocks.{index}.1",
        "downsample": "input_blocks.{index}.0.op",
        "middle1": "middle_block.0",
        "middle_attention": "middle_block.1",
        "middle2": "middle_block.2",
        "up.res": "output_blocks.{index}.0",
        "up.attention": "output_blocks.{index}.1",
        "upsample": "output_blocks.{index}.{after}.conv",
    },
    res=RES,
    attention={"norm": "norm", "q": "q", "k": "k", "v": "v", "proj": "proj_out"},
)
GROUPS = 32  # of its GroupNorm32
HEADS = 4  # by its default
SCALING, TIMES = "rescale_timesteps", 1000  # of the times that its networks are called with
NUMBERED = re.compile(r"input_blocks\.([0-9]{1,4})\.")
STRIDED = re.compile(r"input_blocks\.([0-9]{1,4})\.0\.op\.weight")
QKV = re.compile(r"(.*)\.qkv\.(weight|bias)")


def is_openai(tensors: Tensors) -> bool:
    """Whether tensors are named as in improved-diffusion."""
    return "input_blocks.0.0.weight" in tensors


def read_openai(tensors: Tensors, path: Path, told: Told) -> Foreign:
    """The model of a state dict.

    Args:
        tensors: by their names.
        path: where they were read.
        told: what they do not say; the heads and the size of the images must be told.

    Raises:
        DdpmError: they are of another network, or something must be told.
    """
    where = str(path)
    told.only(where, "image_size", "norm_groups", "heads", "diffusion", "ignore")
    heads, side = told.heads, told.image_size
    if heads is None or side is None:
        raise DdpmError(
            f"{where} is in the naming of improved-diffusion, which does not tell the heads of its "
            f"attentions (num_heads, by default {HEADS}) nor the size of its images; give --heads "
            "and --image-size"
        )
    network, image_format, outputs = layout(tensors, heads, side, told.norm_groups, where)
    diffusion, note = told.papers_diffusion(image_format, outputs, path)
    check_times(told, diffusion, where)
    separate = separated(tensors, heads, where)
    model = assemble(
        separate, NAMING, network, diffusion, image_format, outputs, where=where, origin=path.name
    )
    return Foreign(model, "improved-diffusion", (note,))


def check_times(told: Told, diffusion: DiffusionConfig, where: str) -> None:
    """Refuse times that the network does not know: trained as by default, it is called with
    t * 1000 / T instead of t.

    Raises:
        DdpmError: T is not 1,000, and nobody said that it was trained otherwise.
    """
    steps = diffusion.build().num_timesteps
    for name in told.ignore:
        check(
            name == SCALING and steps != TIMES,
            f"--ignore {name} has no effect on {where}",
        )
    check(
        steps == TIMES or SCALING in told.ignore,
        f"with T = {steps:,} the network of {where} was, by default ({SCALING}), trained with "
        f"t * {TIMES} / T instead of t, for which ddpm has no counterpart; if it was trained "
        f"without, say so with --ignore {SCALING}",
    )


def layout(
    tensors: Tensors, heads: int, side: int, norm_groups: int | None, where: str
) -> tuple[UNetConfig, ImageFormat, int]:
    """The network that tensors are of, its images, and the channels of its output.

    Raises:
        DdpmError: it is not the paper's.
    """
    classes = "label_emb.weight" in tensors
    check(not classes, f"{where} knows classes (label_emb) and none that stands for no class")
    ch, channels = shape_of(tensors, "input_blocks.0.0.weight", where)[:2]
    outputs = shape_of(tensors, "out.2.weight", where)[0]
    count = 1 + max(int(found[1]) for found in map(NUMBERED.match, tensors) if found)
    strided = sorted(int(found[1]) for found in map(STRIDED.fullmatch, tensors) if found)
    per_level = strided[0] if strided else count
    check(per_level > 1, f"{where} has levels without a res-block")
    firsts = range(1, count, per_level)
    widths = [first_width(tensors, i, where) for i in firsts]
    attending = [k for k, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in tensors]
    ch_mult = multiples(widths, ch, where)
    network = UNetConfig(
        ch=ch,
        ch_mult=ch_mult,
        num_res_blocks=per_level - 1,
        attn_resolutions=tuple(side >> level for level in attending),
        dropout=0.0,
        norm_groups=norm_groups or GROUPS,
        head_channels=head_channels({*(widths[k] for k in attending), widths[-1]}, heads, where),
        variant="openai",
    )
    return network, ImageFormat(channels, side, side), outputs


def first_width(tensors: Tensors, block: int, where: str) -> int:
    """The channels of a level, from its first res-block.

    Raises:
        DdpmError: there is none, or it scales and shifts.
    """
    width = shape_of(tensors, f"input_blocks.{block}.0.in_layers.2.weight", where)[0]
    check(
        shape_of(tensors, f"input_blocks.{block}.0.emb_layers.1.weight", where)[0] == width,
        f"{where} scales and shifts by the time embedding (use_scale_shift_norm), which the "
        "paper's network does not",
    )
    return width


def head_channels(widths: set[int], heads: int, where: str) -> int | None:
    """The channels of a head, where all attentions have as many heads; None for one head.

    Args:
        widths: of all attentions.
        heads: of each.
        where: the weights were read, for messages.

    Raises:
        DdpmError: no heads of one size make them up.
    """
    shown = " and ".join(map(str, sorted(widths)))
    check(
        heads > 0 and all(width % heads == 0 for width in widths),
        f"{where} has attention over {shown} channels, which do not divide into {heads} heads; "
        "give its num_heads with --heads",
    )
    if heads == 1:
        return None
    check(
        len(widths) == 1,
        f"{where} has attention over {shown} channels, so that its {heads} heads differ in size, "
        "and ddpm has heads of one size",
    )
    return min(widths) // heads


def separated(tensors: Tensors, heads: int, where: str) -> Tensors:
    """Queries, keys and values by themselves: theirs lie in one tensor, head by head.

    Raises:
        DdpmError: a tensor does not divide into them.
    """
    apart: Tensors = {}
    for name, value in tensors.items():
        found = QKV.fullmatch(name)
        if found is None:
            apart[name] = value
            continue
        check_dense(value, f"'{name}' in {where}")
        check(
            value.ndim > 0 and value.shape[0] > 0 and value.shape[0] % (3 * heads) == 0,
            f"'{name}' in {where} has the shape {tuple(value.shape)}, which does not divide into "
            f"queries, keys and values of {heads} heads",
        )
        for i, part in enumerate(value.unflatten(0, (heads, 3, -1)).unbind(1)):
            apart[f"{found[1]}.{'qkv'[i]}.{found[2]}"] = part.flatten(0, 1)
    return apart
