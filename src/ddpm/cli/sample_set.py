"""Sets of samples, a folder or an .npz: never a mix, and gone on with where they were left.

Any number of processes may fill the same set at the same time, started together or on their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm import __version__
from ddpm.cli.drawing import Drawing
from ddpm.data.exact_files import numbered, write_images
from ddpm.errors import DdpmError, check
from ddpm.provenance import ARRAY, Provenance, read_provenance
from ddpm.runs.folder import is_alive
from ddpm.runtime import parallel
from ddpm.runtime.atomic import atomically, check_writable, to_json, write_text
from ddpm.runtime.progress import Progress
from ddpm.sampling import Callback

SETTINGS = "samples.json"
PNG_BEGIN, PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
IMAGE = r"\d{6,}\.(png|npy)"
OURS = re.compile(  # the images, and what a process leaves for a moment
    rf"{IMAGE}|samples\.json|\.writable|\.({IMAGE}|samples\.json|\.writable)\.\d+\.partial|\.\d+@.*\.working"
)


@dataclass
class SampleSet:
    """The images of a drawing, in a folder that holds nothing else.

    Args:
        folder: of the set.
        drawing: what decides the images.
        marked: whether each carries its provenance.
        arrays: of .npy files (of an .npz that is being made) instead of PNGs.
    """

    folder: Path
    drawing: Drawing
    marked: bool = True
    arrays: bool = False

    def path(self, number: int) -> Path:
        """Where an image lies."""
        png = numbered(self.folder, number)
        return png.with_suffix(".npy") if self.arrays else png

    def fill(
        self,
        numbers: range,
        batch_size: int = 64,
        callback: Callback | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Draw those of the images that are not there; returns how many that were.

        Args:
            numbers: of the images.
            batch_size: images at a time; that many are held in memory.
            callback: sees every step, for which none of the images may be there.
            progress: counts network calls.

        Raises:
            DdpmError: there is something else in the folder, or images that were made otherwise.
        """
        missing, key = self.missing(numbers)
        check(
            callback is None or len(missing) == len(numbers),
            f"{self.folder} holds some of the images already, of which no strip can be drawn; "
            "leave --progressive out",
        )
        if key:  # others are at work here, who begin elsewhere
            blocks = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
            random.Random(key).shuffle(blocks)
            missing = [number for block in blocks for number in block]
        drawing = self.drawing
        with self.at_work(), parallel.agreement():
            for index, images in drawing.model.draw(
                missing,
                drawing.draw,
                drawing.plan,
                seed=drawing.seed,
                batch_size=batch_size,
                needed=lambda number: not self.path(number).exists(),
                callback=callback,
                progress=progress,
            ):
                self._write(index.tolist(), images)
        return len(missing)

    def _write(self, numbers: list[int], images: torch.Tensor) -> None:
        """Images of a batch, each whole or not at all."""
        paths, image_format = [self.path(i) for i in numbers], self.drawing.model.format
        if not self.arrays:
            texts = [self.drawing.provenance(i).chunks() if self.marked else {} for i in numbers]
            write_images(list(images), paths, image_format, texts)
            return
        for values, path in zip(image_format.to_bytes(images.numpy()), paths, strict=True):
            atomically(path, partial(_save_array, values.transpose(1, 2, 0)))

    def missing(self, numbers: range) -> tuple[list[int], int]:
        """Prepare the folder, and say which images it lacks; all processes agree.

        Returns:
            The numbers, and a key of this process if others are at work in the folder, else 0.

        Raises:
            DdpmError: there is something else in it, or images that were made otherwise.
        """
        facts = torch.zeros(len(numbers) + 1, dtype=torch.long)
        with parallel.agreement():
            if parallel.is_main():
                others = self._prepare()
                lacking = [i for i in numbers if not self._is_there(i)]
                for number in lacking:  # cut off when the machine lost its power, say
                    self.path(number).unlink(missing_ok=True)
                facts[torch.tensor(lacking, dtype=torch.long) - numbers.start] = 1
                facts[-1] = os.getpid() if others else 0
        parallel.all_reduce_sum(facts)
        return [i for i, lacks in zip(numbers, facts[:-1], strict=True) if lacks], int(facts[-1])

    def _prepare(self) -> bool:
        """Refuse a folder of anything else; whether other processes are at work in it."""
        wanted = {**self.drawing.settings, "provenance": self.marked}
        _check(self.folder, wanted)
        check_writable(self.folder)
        for path in self.folder.glob(".*.partial"):
            if not is_alive(int(path.name.split(".")[-2])):  # of a process that was killed
                path.unlink(missing_ok=True)
        host = socket.gethostname()
        for path in self.folder.glob(f".*@{host}.working"):
            if not is_alive(int(path.name[1:].split("@")[0])):
                path.unlink(missing_ok=True)
        if not (self.folder / SETTINGS).exists():
            about = {**wanted, "ddpm": __version__, "name": self.drawing.provenance(0).name}
            write_text(self.folder / SETTINGS, to_json({**about, "synthetic": True}, 1) + "\n")
        return any(self.folder.glob(".*.working"))

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Leaves a sign in the folder that others see."""
        sign = self.folder / f".{os.getpid()}@{socket.gethostname()}.working"
        sign.touch()
        try:
            yield
        finally:
            sign.unlink(missing_ok=True)

    def _is_there(self, number: int) -> bool:
        """Whether an image is there as a whole.

        Raises:
            DdpmError: it is another one.
        """
        path = self.path(number)
        try:
            if self.arrays:
                channels, height, width = self.drawing.model.format.shape
                return np.load(path).shape == (height, width, channels)
            data = path.read_bytes()
        except (FileNotFoundError, ValueError, EOFError):
            return False
        if not (data.startswith(PNG_BEGIN) and data.endswith(PNG_END)):
            return False
        if self.marked:
            wanted, found = self.drawing.provenance(number), read_provenance(path)
            same = found is not None and (found.model, found.settings, found.index) == (
                wanted.model,
                wanted.settings,
                wanted.index,
            )
            check(same, f"{path} is not the image of that number; choose an empty folder")
        return True

    def pack(self, numbers: range, out: Path) -> None:
        """Make one .npz of the images, `arr_0` [n, h, w, c] of uint8, and remove the folder."""
        provenance = self.drawing.provenance(numbers.start, len(numbers)) if self.marked else None
        try:
            atomically(out, lambda beside: self._pack(beside, numbers, provenance))
        except DdpmError:  # because another process has packed and removed them, perhaps
            if not out.exists():
                raise
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pack(self, beside: Path, numbers: range, provenance: Provenance | None) -> None:
        """Image by image, so that they need no memory."""
        channels, height, width = self.drawing.model.format.shape
        shape = (len(numbers), height, width, channels)
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            with archive.open(_member("arr_0"), "w", force_zip64=True) as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for number in numbers:
                    member.write(np.load(self.path(number)).tobytes())
            if provenance is not None:
                with archive.open(_member(ARRAY), "w") as member:
                    np.lib.format.write_array(member, np.array(provenance.document()))


def _member(name: str) -> zipfile.ZipInfo:
    """A member of an .npz without a date: the same images make the same file."""
    return zipfile.ZipInfo(f"{name}.npy")


def _save_array(values: np.ndarray, path: Path) -> None:
    """np.save would give the name an ending."""
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(values))


def stored_settings(folder: Path) -> dict[str, Any]:
    """How the images of a folder were made; empty if there are none.

    Raises:
        DdpmError: it is damaged.
    """
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise DdpmError(f"{folder / SETTINGS} is damaged; choose an empty folder") from error
    check(isinstance(found, dict), f"{folder / SETTINGS} is damaged; choose an empty folder")
    return dict(found)


def _check(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuse a folder of anything else."""
    if not folder.exists():
        return
    check(folder.is_dir(), f"{folder} is there already and is no folder; choose another --out")
    names = sorted(path.name for path in folder.iterdir())
    others = [name for name in names if not OURS.fullmatch(name)]
    check(
        not others,
        f"{folder} holds {', '.join(others[:3])}, which no sampling made; choose an empty folder",
    )
    if not any(name[0] != "." for name in names):
        return
    check(SETTINGS in names, f"{folder} holds images of unknown origin; choose an empty folder")
    found = stored_settings(folder)
    differing = [key for key, value in wanted.items() if found.get(key) != value]
    check(
        not differing,
        f"{folder} holds samples of another {' and '.join(differing)}; choose an empty folder",
    )
