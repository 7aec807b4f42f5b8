"""What decides the images that a command draws, and how it is written down beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.provenance import Provenance, fingerprint, model_name
from ddpm.runtime.atomic import to_json
from ddpm.runtime.device import Floats
from ddpm.sampling import Sampler


@dataclass(frozen=True)
class Drawing:
    """How images are drawn; with a number this decides each of them.

    Args:
        model: with its class and guidance, if any.
        name: of the model, as it was typed.
        sampler: the name of one.
        eta: of ddim; None for its default.
        plan: of the chain, as the user gave it.
        seed: which images.
        batch_size: images in one network call, which decides how it rounds.

    Raises:
        DdpmError: they do not go together.
    """

    model: Ddpm
    name: str
    sampler: str = "ancestral"
    eta: float | None = None
    plan: Plan = field(default_factory=Plan)
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "plan", self._planned[1])

    @cached_property
    def _planned(self) -> tuple[Sampler, Plan]:
        return self.model.plan_samples(self.sampler, self.plan, eta=self.eta)

    @property
    def draw(self) -> Sampler:
        """The sampler itself."""
        return self._planned[0]

    @cached_property
    def precision(self) -> Floats:
        """fp32 or bf16; see `Ddpm.drawing_precision`."""
        return self.model.drawing_precision()

    def __str__(self) -> str:
        eta = "" if self.eta is None else f" (eta {self.eta:g})"
        total = self.model.diffusion.num_timesteps
        plan = str(self.plan).replace("all steps", f"all {total:,} steps")
        return f"{self.sampler}{eta}, {plan}{self._class_words()}"

    def _class_words(self) -> str:
        model = self.model
        if model.label is None:
            return ""
        name = model.class_names[model.label] if model.class_names else str(model.label)
        return f", class {name}, guidance {model.guidance:g}"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that decides what the i-th image is, as JSON knows it."""
        found = {
            "model": fingerprint(self.model),
            "seed": self.seed,
            "sampler": self.sampler if self.eta is None else f"{self.sampler} (eta {self.eta:g})",
            "plan": self.plan.document(),
            "precision": self.precision,
            "batch_size": self.batch_size,
        }
        if self.model.label is not None:
            found |= {"class": self.model.label, "guidance": self.model.guidance}
        return json.loads(to_json(found))

    def command(self, first: int, n: int) -> tuple[str, ...]:
        """The arguments of `ddpm` that draw the images from number `first` on, but for --out."""
        words = ["sample", model_name(self.name), "-n", n, "--first", first, "--seed", self.seed]
        words += ["--sampler", self.sampler]
        if self.eta is not None:
            words += ["--eta", self.eta]
        own, plan = isinstance(self.plan.trajectory, tuple), self.plan
        if plan.steps is not None and not own:
            words += ["--steps", plan.steps]
        if plan.trajectory is not None:
            words += ["--trajectory", *([plan.trajectory] if not own else plan.trajectory)]
        if plan.variance is not None:
            words += ["--variance", plan.variance]
        if plan.calibrated is not None:
            words += ["--calibrated" if plan.calibrated else "--no-calibrated"]
        if self.model.label is not None:
            name = self.model.class_names[self.model.label]  # a number could be another's name
            words += [f"--class={name}", "--guidance", self.model.guidance]
        words += ["--precision", self.precision, "--batch-size", self.batch_size]
        return tuple(map(str, words))

    def provenance(self, first: int, n: int | None = None) -> Provenance:
        """Of the image of a number, or of a picture of n of them."""
        name, settings = model_name(self.name), dict(self.settings)
        if n is not None:
            settings |= {"first": first, "images": n}
        command, index = self.command(first, n or 1), first if n is None else None
        return Provenance(settings.pop("model"), name, command, settings, index)
