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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddpm import __version__
from ddpm.cli.drawing import Drawing
from ddpm.data.exact_files import numbered, write_images
from ddpm.errors import DdpmError, check
from ddpm.provenance import ARRAY, Provenance, read_provenance
from ddpm.runs.folder import is_alive
from ddpm.runtime import parallel
from ddpm.runtime.atomic import atomically, make_folder, to_json, write_text
from ddpm.runtime.progress import Progress
from ddpm.sampling import Callback

SETTINGS = "samples.json"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
OURS = re.compile(r"\d{6,}\.(png|npy)|samples\.json")


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
        png = self.folder / numbered(number)
        return png.with_suffix(".npy") if self.arrays else png

    def fill(
        self,
        numbers: range,
        callback: Callback | None = None,
        progress: Progress | None = None,
        finished: Callable[[], bool] = lambda: False,
    ) -> int:
        """Draw those of the images that are not there; returns how many that were.

        Args:
            numbers: of the images.
            callback: sees every step, for which none of the images may be there, and each is drawn.
            progress: counts network calls.
            finished: asked again and again: whether another process has ended the whole set, and
                perhaps removed the folder.

        Raises:
            DdpmError: there is something else in the folder, or images that were made otherwise.
        """
        drawing, size = self.drawing, self.drawing.batch_size
        try:
            missing, key = self.missing(numbers)
            check(
                callback is None or len(missing) == len(numbers),
                f"{self.folder} holds some of the images already, of which no strip can be drawn; "
                "leave --progressive out",
            )
            if key and callback is None:  # others are at work here, who begin elsewhere
                blocks = [missing[i : i + size] for i in range(0, len(missing), size)]
                random.Random(key).shuffle(blocks)
                missing = [number for block in blocks for number in block]

            def needed(number: int) -> bool:
                there = self.path(number).exists() or finished()
                return callback is not None or not there

            with parallel.agreement():
                self._sign.touch()
                for index, images in drawing.model.draw(
                    missing,
                    drawing.draw,
                    drawing.plan,
                    seed=drawing.seed,
                    batch_size=size,
                    needed=needed,
                    callback=callback,
                    progress=progress,
                ):
                    self._write(index.tolist(), images)
        finally:
            with contextlib.suppress(OSError):  # the folder may be gone, or may be a file
                self._sign.unlink()
        return len(missing)

    @property
    def _sign(self) -> Path:
        """Says to others that this process is at work in the folder."""
        return self.folder / f".{os.getpid()}@{socket.gethostname()}.working"

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
        """Prepare and sign the folder, and say which images it lacks; all processes agree.

        Returns:
            The numbers, and a key of this process if others are at work in the folder, else 0.

        Raises:
            DdpmError: there is something else in it, or images that were made otherwise.
        """
        facts = torch.zeros(len(numbers) + 1, dtype=torch.long)
        with parallel.agreement():
            if parallel.is_main():
                others = self._prepare(numbers)
                lacking = [i for i in numbers if not self._is_there(i)]
                facts[torch.tensor(lacking, dtype=torch.long) - numbers.start] = 1
                facts[-1] = os.getpid() if others else 0
        parallel.all_reduce_sum(facts)
        return [i for i, lacks in zip(numbers, facts[:-1], strict=True) if lacks], int(facts[-1])

    def _prepare(self, numbers: range) -> bool:
        """Refuse a folder of anything else; whether other processes are at work in it."""
        wanted = {**self.drawing.settings, "provenance": self.marked}
        _check(self.folder, wanted)
        if self.arrays:
            ours = {self.path(i).name for i in numbers}
            more = sum(path.name not in ours for path in self.folder.glob("*.npy"))
            check(
                more == 0,
                f"{self.folder} holds {more:,} images of a larger set, which would be lost; ask "
                "for all of them, or choose another --out",
            )
        make_folder(self.folder)
        host = socket.gethostname()
        for path in self.folder.glob(f".*@{host}.working"):
            if not is_alive(int(path.name[1:].split("@")[0])):
                path.unlink(missing_ok=True)
        self._sign.touch()  # before looking, so that of two that begin together one sees the other
        others = [sign for sign in self.folder.glob(".*.working") if sign != self._sign]
        if all(sign.match(f"*@{host}.working") for sign in others):
            remove_partials(self.folder, ".*.partial")  # else they may be another machine's
        if not (self.folder / SETTINGS).exists():
            about = {**wanted, "ddpm": __version__, "name": self.drawing.provenance(0).name}
            write_text(self.folder / SETTINGS, to_json({**about, "synthetic": True}, 1) + "\n")
        return bool(others)

    def _is_whole(self, path: Path) -> bool:
        """Whether a file can be read to its end."""
        channels, height, width = self.drawing.model.format.shape
        try:
            if self.arrays:
                return np.load(path).shape == (height, width, channels)
            with Image.open(path) as picture:
                picture.load()  # which fails if it is cut off, but for its last bytes
            return path.read_bytes().endswith(PNG_END)
        except (OSError, ValueError, EOFError, SyntaxError):
            return False

    def _is_there(self, number: int) -> bool:
        """Whether an image is there; what is left of one goes.

        Raises:
            DdpmError: it is another one.
        """
        path = self.path(number)
        if not path.exists():
            return False
        if not self._is_whole(path):  # cut off when the machine lost its power, say
            path.unlink(missing_ok=True)
            return False
        if self.arrays:
            return True
        found = read_provenance(path)
        same = found is not None and found.same_images(self.drawing.provenance(number))
        check(
            same or not self.marked,
            f"{path} is not the image of that number; choose an empty folder",
        )
        return True

    def pack(self, numbers: range, out: Path) -> None:
        """Make one .npz of the images, `arr_0` [n, h, w, c] of uint8, and remove the folder."""
        provenance = self.drawing.provenance(numbers.start, len(numbers)) if self.marked else None
        remove_partials(out.parent, f".{out.name}.*.partial")
        try:
            if not self.is_packed(numbers, out):
                atomically(out, lambda beside: self._pack(beside, numbers, provenance))
        except DdpmError:  # because another process has packed and removed them, perhaps
            if not self.is_packed(numbers, out):
                raise
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_packed(self, numbers: range, out: Path) -> bool:
        """Whether an .npz that is there holds just these images."""
        with contextlib.suppress(DdpmError, OSError, ValueError):  # a foreign file
            if self.marked:
                found = read_provenance(out)
                wanted = self.drawing.provenance(numbers.start, len(numbers))
                return found is not None and found.same_images(wanted)
            with np.load(out) as arrays:
                return "arr_0" in arrays.files and len(arrays["arr_0"]) == len(numbers)
        return False

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


def remove_partials(folder: Path, pattern: str) -> None:
    """Half-written files of processes of this machine that were killed."""
    for path in folder.glob(pattern):
        if not is_alive(int(path.name.split(".")[-2])):
            path.unlink(missing_ok=True)


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


def begun_with(settings: dict[str, Any], otherwise: int) -> int:
    """The batch size that a set keeps, since images are rounded otherwise at another one."""
    kept = settings.get("batch_size")
    return kept if isinstance(kept, int) and kept >= 1 else otherwise


def _check(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuse a folder of anything else."""
    if not folder.exists():
        return
    check(folder.is_dir(), f"{folder} is there already and is no folder; choose another --out")
    names = sorted(path.name for path in folder.iterdir())
    others = [name for name in names if not OURS.fullmatch(name) and not name.startswith(".")]
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
