"""diffusers' `UNet2DModel`: its configuration and the names of its tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ddpm.config import UNetConfig
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError, check
from ddpm.interop.naming import Naming, Tensors
from ddpm.interop.settings import Settings, shown

VERSION = "0.42.1"  # of diffusers, whose layout is written
AVERAGING = (  # what EMAModel writes beside the settings
    *("decay", "inv_gamma", "min_decay", "optimization_step", "power"),
    *("update_after_step", "use_ema_warmup"),
)
HEAD = 8  # diffusers' attention_head_dim where a file has none

CONSTANTS: dict[str, dict[str, Any]] = {
    "paper": {
        "norm_eps": 1e-6,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
    "openai": {
        "norm_eps": 1e-5,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    },
}
RES = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "conv_shortcut",
}
NAMING = Naming(
    single={
        "time1": "time_embedding.linear_1",
        "time2": "time_embedding.linear_2",
        "conv_in": "conv_in",
        "norm_out": "conv_norm_out",
        "conv_out": "conv_out",
        "class_rows": "class_embedding",
    },
    places={
        "down.res": "down_blocks.{level}.resnets.{block}",
        "down.attention": "down_blocks.{level}.attentions.{block}",
        "downsample": "down_blocks.{level}.downsamplers.0.conv",
        "middle1": "mid_block.resnets.0",
        "middle_attention": "mid_block.attentions.0",
        "middle2": "mid_block.resnets.1",
        "up.res": "up_blocks.{order}.resnets.{block}",
        "up.attention": "up_blocks.{order}.attentions.{block}",
        "upsample": "up_blocks.{order}.upsamplers.0.conv",
    },
    res=RES,
    attention={"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj": "to_out.0"},
)
OLD_NAMING = replace(
    NAMING,
    attention={
        "norm": "group_norm",
        "q": "query",
        "k": "key",
        "v": "value",
        "proj": "proj_attn",
    },
)


def naming_of(tensors: Tensors) -> Naming:
    """The names that a file has: those of before version 0.15, or today's."""
    return OLD_NAMING if "mid_block.attentions.0.query.weight" in tensors else NAMING


def read_unet(
    settings: Settings, null_class: bool, image_size: int | None = None
) -> tuple[UNetConfig, ImageFormat, int]:
    """The network of a configuration, its images, and the channels of its output.

    Args:
        settings: of the file config.json.
        null_class: of a conditional network, the last class stands for none.
        image_size: side of the images, where the configuration does not say it.

    Raises:
        DdpmError: a setting, by name, that our network has no counterpart for.
    """
    name = settings.values.get("_class_name", "UNet2DModel")
    check(
        name == "UNet2DModel",
        f"{settings.where} is of {shown(name)}, and ddpm reads the networks of UNet2DModel",
    )
    channels = settings.get("in_channels", 3, low=1)
    outputs = settings.get("out_channels", 3, low=1)
    check(
        outputs in (channels, 2 * channels),
        f"'out_channels' in {settings.where} is {outputs}, and must be 'in_channels' ({channels}), "
        "or twice that for a learned variance",
    )
    height, width = image_sides(settings, image_size)
    widths = tuple(settings.get("block_out_channels", [224, 448, 672, 896]))
    whole = all(type(n) is int and n > 0 for n in widths) and len(widths) > 0
    check(
        whole and widths[0] % 2 == 0 and widths[0] > 2 and all(n % widths[0] == 0 for n in widths),
        f"'block_out_channels' in {settings.where} is {shown(widths)}, and ddpm has a counterpart "
        "only for multiples of its first entry, which is even and more than 2",
    )
    network = UNetConfig(
        ch=widths[0],
        ch_mult=tuple(n // widths[0] for n in widths),
        num_res_blocks=settings.get("layers_per_block", 2, low=1),
        attn_resolutions=attention_sides(settings, len(widths), min(height, width)),
        dropout=float(settings.get("dropout", 0.0, float)),
        norm_groups=settings.get("norm_num_groups", 32, low=1),
        head_channels=settings.get("attention_head_dim", HEAD, (int, type(None)), low=1),
        variant=variant_of(settings),
        classes=classes_of(settings, null_class),
    )
    check_sizes(settings, network, (height, width))
    only_as_in_the_paper(settings, network)
    settings.finish()
    if "attention_head_dim" not in settings.values:
        settings.notes.append(
            f"{settings.where} does not say attention_head_dim, so it is diffusers' default: "
            f"heads of {HEAD} channels"
        )
    return network, ImageFormat(channels, height, width), outputs


def image_sides(settings: Settings, image_size: int | None) -> tuple[int, int]:
    """Height and width."""
    size = settings.get("sample_size", None, (int, list, type(None)))
    size = image_size if size is None else size
    sides: list[Any] = size if isinstance(size, list) else [size, size]
    check(
        len(sides) == 2 and all(type(side) is int and side > 0 for side in sides),
        f"'sample_size' in {settings.where} is {shown(size)}; write the side of the images there, "
        "or give it with --image-size where the file does not say it",
    )
    return sides[0], sides[1]


def check_sizes(settings: Settings, network: UNetConfig, sides: tuple[int, int]) -> None:
    """Refuse sizes that do not divide into one another.

    Raises:
        DdpmError: a setting, by name.
    """
    widths = [network.ch * mult for mult in network.ch_mult]
    levels = [min(sides) >> level for level in range(len(widths))]
    attending = {n for n, side in zip(widths, levels, strict=True)
                 if side in network.attn_resolutions} | {widths[-1]}  # fmt: skip
    heads = network.head_channels or 1
    for key, value, fits in (
        ("norm_num_groups", network.norm_groups, all(n % network.norm_groups == 0 for n in widths)),
        ("attention_head_dim", network.head_channels, all(n % heads == 0 for n in attending)),
        ("sample_size", shown(sides), not any(n % 2 ** (len(widths) - 1) for n in sides)),
    ):
        check(
            fits,
            f"'{key}' in {settings.where} is {value}, which does not fit to its "
            f"'block_out_channels' ({shown(widths)})",
        )
    check(
        0 <= network.dropout < 1,
        f"'dropout' in {settings.where} is {network.dropout}, and must lie in [0, 1)",
    )


def attention_sides(settings: Settings, levels: int, side: int) -> tuple[int, ...]:
    """The sides at which there is attention.

    Raises:
        DdpmError: blocks of another kind, or others on the way up than on the way down.
    """
    kinds = {}
    for way in ("Down", "Up"):
        key = f"{way.lower()}_block_types"
        plain, attention = f"{way}Block2D", f"Attn{way}Block2D"
        default = [plain] + [attention] * (levels - 1)
        kinds[way] = settings.get(key, default if way == "Down" else default[::-1])
        other = [kind for kind in kinds[way] if kind not in (plain, attention)]
        check(
            not other,
            f"'{key}' in {settings.where} has {shown(other[:1])}, and ddpm has a counterpart only "
            f"for {plain} and {attention}",
        )
        check(
            len(kinds[way]) == levels,
            f"'{key}' in {settings.where} has {len(kinds[way])} entries, and 'block_out_channels' "
            f"{levels}",
        )
    down = ["Attn" in kind for kind in kinds["Down"]]
    check(
        down == ["Attn" in kind for kind in reversed(kinds["Up"])],
        f"'up_block_types' in {settings.where} has attention at other levels than "
        "'down_block_types', for which ddpm has no counterpart",
    )
    sides = [side >> level for level in range(levels)]
    return tuple(size for size, attends in zip(sides, down, strict=True) if attends)


def variant_of(settings: Settings) -> Any:
    """The paper's constants, or those that are diffusers' defaults.

    Raises:
        DdpmError: some of both, or others.
    """
    read = {
        "norm_eps": settings.get("norm_eps", 1e-5, float),
        "downsample_padding": settings.get("downsample_padding", 1),
        "flip_sin_to_cos": settings.get("flip_sin_to_cos", True),
        "freq_shift": settings.get("freq_shift", 0, (int, float)),
    }
    for variant, constants in CONSTANTS.items():
        if read == constants:
            return variant
    alike = max(CONSTANTS.values(), key=lambda known: sum(read[k] == known[k] for k in read))
    odd = next(key for key in read if read[key] != alike[key])
    raise DdpmError(
        f"'{odd}' in {settings.where} is {shown(read[odd])}, and with its other settings ddpm has "
        f"a counterpart only for {shown(alike[odd])}"
    )


def classes_of(settings: Settings, null_class: bool) -> int:
    """Classes, without the null class.

    Raises:
        DdpmError: nothing says that the last one stands for none, which our networks need.
    """
    settings.must_be("class_embed_type", None)
    rows = settings.get("num_class_embeds", None, (int, type(None)))
    if rows is None:
        check(not null_class, f"{settings.where} knows no classes, so it has no null class either")
        return 0
    check(
        null_class and rows > 1,
        f"'num_class_embeds' in {settings.where} is {rows}, and ddpm's conditional networks need "
        "a last class that stands for none; if it is one, say so with --null-class, and if all are "
        "real classes the model cannot be imported",
    )
    return rows - 1


def only_as_in_the_paper(settings: Settings, network: UNetConfig) -> None:
    """Refuse what the paper's network does not have.

    Raises:
        DdpmError: a setting, by name.
    """
    settings.must_be("act_fn", "silu", "swish")
    settings.must_be("center_input_sample", False)
    settings.must_be("time_embedding_type", "positional")
    settings.must_be("time_embedding_dim", None, 4 * network.ch)
    settings.must_be("mid_block_type", "UNetMidBlock2D")
    settings.must_be("mid_block_scale_factor", 1)
    settings.must_be("downsample_type", "conv")
    settings.must_be("upsample_type", "conv")
    settings.must_be("attn_norm_num_groups", None, network.norm_groups)
    settings.must_be("resnet_time_scale_shift", "default")
    settings.must_be("add_attention", True)
    settings.pass_over(("num_train_timesteps", *AVERAGING))  # the first: of learned embeddings only


def write_unet(network: UNetConfig, image_format: ImageFormat, outputs: int) -> dict[str, Any]:
    """The configuration of our network; the inverse of `read_unet`.

    Raises:
        DdpmError: a setting that diffusers has no counterpart for.
    """
    check(
        network.ch_mult[0] == 1,
        f"network.ch_mult begins with {network.ch_mult[0]}, and diffusers' UNet2DModel with 1; "
        "export the weights alone with --format safetensors",
    )
    height, width = image_format.height, image_format.width
    sides = [min(height, width) >> level for level in range(len(network.ch_mult))]
    down = ["Attn" * (side in network.attn_resolutions) + "DownBlock2D" for side in sides]
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": VERSION,
        "act_fn": "silu",
        "add_attention": True,
        "attention_head_dim": network.head_channels,
        "attn_norm_num_groups": None,
        "block_out_channels": [network.ch * mult for mult in network.ch_mult],
        "center_input_sample": False,
        "class_embed_type": None,
        "down_block_types": down,
        "downsample_type": "conv",
        "dropout": float(network.dropout),
        "in_channels": image_format.channels,
        "layers_per_block": network.num_res_blocks,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2D",
        "norm_num_groups": network.norm_groups,
        "num_class_embeds": network.classes + 1 if network.classes else None,
        "num_train_timesteps": None,
        "out_channels": outputs,
        "resnet_time_scale_shift": "default",
        "sample_size": height if height == width else [height, width],
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(down)],
        "upsample_type": "conv",
        **CONSTANTS[network.variant],
    }
