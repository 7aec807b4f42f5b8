"""`ddpm figure NAME RUN [IMAGES]`: the paper's figures of a trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from ddpm.cli.given import Given
from ddpm.cli.outcome import finish, tell
from ddpm.cli.own_images import Chosen, choose_images
from ddpm.cli.parse import parse, positional, say, typed
from ddpm.cli.progress import progress_bar
from ddpm.cli.sample import free_name
from ddpm.data.exact_files import save_png
from ddpm.data.open import Split
from ddpm.errors import check
from ddpm.figures.figure import Figure, SampledFigure, at_a_time
from ddpm.figures.interpolation import InterpolatedFigure
from ddpm.figures.named import FIGURES, figure_named
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.provenance import Provenance
from ddpm.runtime.atomic import check_writable
from ddpm.runtime.device import Precision, resolve_precision
from ddpm.runtime.paths import exists, user_path

# Options that a figure has beside its own: name, type, default, help.
Option = tuple[str, Any, Any, str]
SAVED: list[Option] = [
    ("out", Path | None, None, "The PNG; NAME.png in the current folder by default."),
    ("provenance", bool, True, "Write into the file what made it, and that it is synthetic."),
]
SHOWN: list[Option] = [
    (
        "split",
        Split | None,
        None,
        "Of a data set, test (held out) or train; for most figures held-out images by default.",
    ),
    (
        "pick",
        tuple[int, ...] | None,
        None,
        "The numbers of the images to show, from 0, in their order; the first ones by default.",
    ),
]
CALLED: list[Option] = [
    (
        "precision",
        Precision | None,
        None,
        "Of the network: fp32 or bf16; what it was trained in by default.",
    ),
]


def run(argv: Sequence[str]) -> int:
    """Parse, read, draw, write, say what was made."""
    if not argv or argv[0] in ("-h", "--help"):
        say(overview())
        return 0
    name, kind = argv[0], figure_named(argv[0])
    run_name, rest = positional(argv[1:], "a run or checkpoint", f"figure {name}")
    images = None
    if rest and not rest[0].startswith("-"):
        images, rest = rest[0], rest[1:]
        check(
            kind.split is not None,
            f"the figure {name} shows no images of yours; leave {images} out",
        )
    args = parse(options_of(kind), rest, f"figure {name}")
    figure: Figure = args.figure
    out = free_name(Path(f"{name}.png")) if args.out is None else user_path(args.out)
    check(out.suffix.lower() == ".png", f"a figure is a PNG; give --out a .png, not {out}")
    check(not exists(out), f"{out} is there already and is not overwritten; choose another --out")
    model = load(run_name, precision=getattr(args, "precision", None))
    model = getattr(args, "given", Given()).to(model)
    figure.check(model)
    chosen = choose(model, figure, images, args)
    check_writable(out.parent)
    with progress_bar() as progress:
        drawn = figure.draw(model, None if chosen is None else chosen.images, progress=progress)
    text = provenance(model, run_name, name, images, rest, args) if args.provenance else None
    save_png(drawn.picture, out, text)
    shown = "" if chosen is None else f" ({chosen.words})"
    told = {f"ddpm info {typed(out)}": "what it comes from"} if args.provenance else None
    tell(caption=drawn.caption, images=None if chosen is None else chosen.words)
    finish(f"{name} in {out}: {drawn.caption}{shown}", made=[out], then=told)
    return 0


def overview() -> str:
    """All figures, with what each shows."""
    width = max(map(len, FIGURES)) + 2
    lines = "\n".join(f"  {name:<{width}}{kind.shows}" for name, kind in FIGURES.items())
    return (
        "usage: ddpm figure NAME RUN [IMAGES] [--out FILE.png]\n\n"
        f"{lines}\n\n"
        "RUN is a run, a checkpoint or a model of `ddpm models`; IMAGES an image, a folder or a\n"
        "data set of your own for figures that show images, by default held-out ones of the\n"
        "model's data. `ddpm figure NAME --help` shows the options of one."
    )


def options_of(kind: type[Figure]) -> Any:
    """A figure's own options and those that have an effect on it."""
    extra = [*SAVED]
    if kind.split is not None:
        # Of a whole set there is nothing to pick.
        extra += SHOWN if kind().wanted is not None else SHOWN[:1]
    if kind.network:
        extra += CALLED
    fields: list[Any] = [("figure", kind, dataclasses.field(default_factory=kind))]
    if kind.network and not kind.every_class:
        fields.append(("given", Given, dataclasses.field(default_factory=Given)))
    for option, kind_of, default, words in extra:
        fields.append((option, Annotated[kind_of, tyro.conf.arg(help=words)], default))
    made = dataclasses.make_dataclass("Options", fields, frozen=True)
    made.__doc__ = kind.__doc__
    prefixes: Any = tyro.conf.OmitArgPrefixes
    return prefixes[made]


def choose(model: Ddpm, figure: Figure, images: str | None, args: Any) -> Chosen | None:
    """The images that a figure shows, if it shows any."""
    if figure.split is None:
        return None
    numbers: Sequence[int] | None = None
    if figure.wanted is not None:
        numbers = range(figure.wanted) if args.pick is None else args.pick
        check(
            len(numbers) == figure.wanted,
            f"this figure shows {figure.wanted:,} images, and --pick names {len(numbers):,}",
        )
    return choose_images(model, images, args.split, figure.split, numbers)


def provenance(
    model: Ddpm, run_name: str, name: str, images: str | None, rest: list[str], args: Any
) -> dict[str, str]:
    """What the file says of itself: the command but for --out, and every option of the figure."""
    shown = [] if images is None else [images]
    command = ["figure", name, run_name, *shown, *rest]
    settings = dataclasses.asdict(args.figure)
    if "plan" in settings:
        settings["plan"] = told_plan(model, args.figure).document()
    if "batch_size" in settings:  # which decides how the network's sums are rounded
        settings["batch_size"] = at_a_time(model, settings["batch_size"])
    if args.figure.network:
        drawn = isinstance(args.figure, SampledFigure | InterpolatedFigure)
        exact = resolve_precision(model.precision or "auto", model.device)
        settings["precision"] = model.drawing_precision() if drawn else exact
    if model.label is not None:
        settings |= {"class": model.label, "guidance": model.guidance}
    return Provenance.of(model, run_name, command, **settings).chunks()


def told_plan(model: Ddpm, figure: Any) -> Plan:
    """A figure's plan as it was asked for, and whether its predicted x_0 were calibrated."""
    plan: Plan = figure.plan
    if not hasattr(figure, "sampler"):
        return plan
    _, used = model.plan_samples(figure.sampler, plan, eta=getattr(figure, "eta", None))
    return dataclasses.replace(plan, calibrated=used.calibrated)
