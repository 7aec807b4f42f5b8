"""What a page works with: one model, and what all pages of a server share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.foreign import HEAD, what_bytes_are
from ddpm.errors import DdpmError, check
from ddpm.likelihood.held_out import HeldOut
from ddpm.model import Ddpm
from ddpm.runs.folder import in_runs
from ddpm.runs.pins import keep
from ddpm.ui.examples import examples
from ddpm.ui.likely import held_out
from ddpm.ui.sessions import Inbox, Sessions
from ddpm.ui.uploads import base_name, exact, fitted
from ddpm.ui.work import Desk, Work


@dataclass
class Bench:
    """A model on the page.

    Args:
        name: as it was named on the command line.
        model: itself.
        path: the file that it was loaded from, if it has one.
        desk, sessions, inbox: shared by all models of a server.
    """

    name: str
    model: Ddpm
    path: Path | None = None
    desk: Desk = field(default_factory=Desk)
    sessions: Sessions = field(default_factory=Sessions)
    inbox: Inbox = field(default_factory=Inbox)
    _held_out: list[HeldOut | None] = field(default_factory=list)

    def held_out(self, work: Work) -> HeldOut | None:
        """Figures of held-out images, measured when they are first asked for."""
        if not self._held_out:
            self._held_out.append(held_out(self.model, work))
        return self._held_out[0]

    def keep(self) -> str:
        """Have a run keep the checkpoint for a file that is made; words about it, if it is in one.

        Raises:
            DdpmError: the checkpoint was removed before.
        """
        if self.path is None or not in_runs(self.path):
            return ""
        return keep(self.path, f"the checkpoint of {self.name}")

    def file(self, choice: str) -> tuple[bytes, str]:
        """The bytes and the name of what was handed in.

        Raises:
            DdpmError: nothing was, or it was put away.
        """
        kind, _, rest = choice.partition(":")
        check(kind == "upload", "choose an image or a file first, and wait until it has been read")
        token, _, name = rest.partition(":")
        return self.inbox.get(token), base_name(name)

    def image(self, choice: str) -> tuple[UInt8[Tensor, "c h w"], str]:
        """The chosen image in the model's size, and words about it.

        Args:
            choice: example:NUMBER or upload:TOKEN:NAME.

        Raises:
            DdpmError: there is no such image, or it cannot be read.
        """
        example = self._example(choice)
        return example if example is not None else fitted(*self.file(choice), self.model.format)

    def exact_image(self, choice: str) -> tuple[UInt8[Tensor, "c _h _w"], str]:
        """The chosen image as it is, and its name.

        Raises:
            DdpmError: as `image`, or it cannot be kept exactly.
        """
        example = self._example(choice)
        if example is not None:
            return example
        data, name = self.file(choice)
        return exact(data, name, self.model.format), name

    def _example(self, choice: str) -> tuple[Tensor, str] | None:
        """What is chosen, if it is an example."""
        kind, _, number = str(choice).partition(":")
        if kind != "example":
            return None
        known = examples(self.model.format)
        check(number.isdecimal() and int(number) < len(known), "choose an image first")
        return known[int(number)].image, known[int(number)].name

    def archive(self, choice: str) -> tuple[bytes, str]:
        """The file of the codec that was handed in.

        Raises:
            DdpmError: it is something else that is known by its first bytes.
        """
        data, name = self.file(choice)
        known = what_bytes_are(data[:HEAD])
        if known is not None:
            raise DdpmError(f"{name} is {known[0]}; {known[1]}")
        return data, name
