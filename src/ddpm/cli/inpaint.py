"""`ddpm inpaint RUN IMAGE MASK -o OUT`: fill in a part of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from ddpm.cli.given import Given
from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse, positional, typed
from ddpm.cli.progress import progress_bar
from ddpm.data.decode import BrokenImage, open_picture
from ddpm.data.exact_files import image_paths, losses, numbered, to_levels, write_images
from ddpm.data.images import ImageFormat
from ddpm.diffusion.gaussian import VarianceType
from ddpm.errors import DdpmError, check
from ddpm.latents.inpainting import checked_jump, inpaint, planned
from ddpm.likelihood.plan import Plan, TrajectoryName
from ddpm.loading import load
from ddpm.model import DRAWN, Ddpm
from ddpm.provenance import Provenance
from ddpm.runtime.atomic import check_writable
from ddpm.runtime.device import Precision
from ddpm.runtime.paths import exists, user_path

WHITE = 128  # the darkest grey of 0..255 that counts as white in a mask


@dataclass(frozen=True)
class Inpaint:
    """Fill in a part of an image by the reverse process (RePaint), without training.

    MASK is an image of the same size: white is filled in, black is kept, and a grey counts as the
    nearer of the two.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """A .png, or a folder of PNGs for several fillings."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1
    """How many fillings; the i-th of a seed is the same whatever -n and --batch-size."""
    seed: int = 0
    """Which fillings."""
    steps: int | None = None
    """Timesteps of the chain: 250 by default, or all if the model has fewer."""
    trajectory: TrajectoryName | tuple[int, ...] | None = None
    """Which timesteps: even, quadratic, optimal (of least bits), or the timesteps themselves; the
    best known for that many steps by default."""
    variance: VarianceType | None = None
    """fixed_small, fixed_large, analytic or spectral; the best known for that many steps by
    default."""
    repeats: int = 10
    """How often each stretch of the chain is walked: more make the filling fit better what is
    around it, and take as much longer."""
    jump: int | None = None
    """Timesteps of a stretch: 10 by default, or as many as the chain has room for."""
    given: Annotated[Given, tyro.conf.arg(name="")] = field(default_factory=Given)
    batch_size: int | None = None
    """Fillings at a time; 64 by default, or fewer large ones."""
    precision: Precision | None = None
    """Of the network: fp32 or bf16, or auto: on a CPU the faster one for pictures, and fp32 for
    bits."""
    provenance: bool = True
    """Write into every file what made it, and that it is synthetic."""


def run(argv: Sequence[str]) -> int:
    """Parse, read, fill in, write, say what was made."""
    name, rest = positional(argv, "a run or checkpoint", "inpaint")
    image_path, rest = positional(rest, "an image after the run", "inpaint")
    mask_path, rest = positional(rest, "a mask after the image", "inpaint")
    called = f"inpaint {name or 'RUN'} {image_path or 'IMAGE'} {mask_path or 'MASK'}"
    args = parse(Inpaint, rest, called)
    check_arguments(args)
    out = user_path(args.out)
    paths = image_paths(out, [numbered(i) for i in range(args.n)])
    model = args.given.to(load(name, precision=args.precision))
    plan = planned(model, Plan(args.steps, args.trajectory, args.variance))
    image = read_one(user_path(image_path), model.format)
    model.format.check_shape(image[None])
    white, greys = read_mask(user_path(mask_path), image)
    jump = checked_jump(model.chain(plan).num_timesteps, args.repeats, args.jump)
    check_writable(paths[0].parent)
    with progress_bar() as progress:
        images = inpaint(
            model,
            image.expand(args.n, *image.shape),
            white,
            seed=args.seed,
            plan=plan,
            repeats=args.repeats,
            jump=args.jump,
            batch_size=args.batch_size or model.format.batch(DRAWN),
            progress=progress,
        )
    origin = provenance(model, name, (image_path, mask_path), replace(args, jump=jump), plan)
    texts = [replace(origin, index=i).chunks() if args.provenance else {} for i in range(args.n)]
    write_images(list(images), paths, model.format, texts, replace=False)
    filled = f"{int(white.sum()):,} of {white.numel():,} pixels filled in"
    greys_said = f" ({greys:,} greys of the mask counted as the nearer of white and black)"
    fillings = "" if args.n == 1 else f", {args.n:,} times"
    tell(filled=int(white.sum()), pixels=white.numel(), fillings=args.n, plan=str(plan))
    finish(
        f"{filled}{greys_said * (greys > 0)}{fillings}: {out}; the other pixels are as they were",
        f"RePaint, {plan}, every {jump} steps {args.repeats} times",
        made=[out],
        then={f"ddpm info {typed(paths[0])}": "what it comes from"} if args.provenance else None,
    )
    return 0


def check_arguments(args: Inpaint) -> None:
    """Refuse numbers out of range, before a model is read."""
    for option, value, least in (
        ("-n", args.n, 1),
        ("--seed", args.seed, 0),
        ("--repeats", args.repeats, 1),
        ("--jump", 1 if args.jump is None else args.jump, 1),
        ("--batch-size", 1 if args.batch_size is None else args.batch_size, 1),
    ):
        check(value >= least, f"{option} must be at least {least}, got {value}")


def read_one(path: Path, image_format: ImageFormat) -> Tensor:
    """One image file as a model's grey levels, with nothing lost; uint8 [c, h, w] of any size.

    Raises:
        DdpmError: there is none, or it cannot be read or kept exactly.
    """
    channels = image_format.channels
    check(channels in (1, 3), f"no image file has {channels} channels")
    check(exists(path), f"{path} does not exist")
    check(not path.is_dir(), f"{path} is a folder; name one image")
    try:
        picture = open_picture(path.read_bytes())
    except BrokenImage as error:
        raise DdpmError(f"{path} cannot be read as an image ({error})") from error
    lost = losses(picture, image_format)
    check(not lost, f"{path} cannot be kept exactly ({', '.join(lost)}); convert it first")
    return to_levels(picture, image_format)


def read_mask(path: Path, image: Tensor) -> tuple[Tensor, int]:
    """A mask for an image.

    Args:
        path: of a picture without colours.
        image: [c, h, w].

    Returns:
        bool [h, w], True where it is white; and how many of its pixels are neither white nor black.

    Raises:
        DdpmError: it cannot be read, has colours or another size, or nothing is white.
    """
    height, width = image.shape[1:]
    values = read_one(path, ImageFormat(1, height, width))[0]
    check(
        values.shape == image.shape[1:],
        f"{path} has {values.shape[1]}x{values.shape[0]} pixels and the image {width}x{height}; a "
        "mask is as large as its image",
    )
    white = values >= WHITE
    check(
        bool(white.any()),
        f"{path} has no white pixel, and white is what is filled in; black is kept",
    )
    return white, int(((values > 0) & (values < 255)).sum())


def provenance(
    model: Ddpm, name: str, files: tuple[str, str], args: Inpaint, plan: Plan
) -> Provenance:
    """Of the fillings; the files by their names only, since their paths tell of their owner."""
    precision = model.drawing_precision()
    steps = plan.steps or (None if plan.trajectory else model.diffusion.num_timesteps)
    image, mask = (Path(file).name for file in files)
    options: dict[str, object] = {"-n": args.n, "--seed": args.seed, "--steps": steps}
    options |= {"--trajectory": plan.trajectory, "--variance": plan.variance}
    options |= {"--repeats": args.repeats, "--jump": args.jump, "--precision": precision}
    options |= {"--class": args.given.label, "--guidance": args.given.guidance}
    words = ["inpaint", name, image, mask]
    for option, value in options.items():
        if isinstance(value, tuple):
            words += [option, *map(str, value)]
        elif value is not None:
            words += [option, str(value)]
    settings = {"image": image, "mask": mask, "seed": args.seed, "plan": plan.document()}
    settings |= {"repeats": args.repeats, "jump": args.jump, "precision": precision}
    if model.label is not None:
        settings |= {"class": model.label, "guidance": model.guidance}
    return Provenance.of(model, name, words, **settings)
