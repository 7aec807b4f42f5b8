"""CIFAR-10 as its authors publish it: Python batches, read without running what a pickle may
contain, or binary ones; as a folder or still in the tar.gz.
"""

from __future__ import annotations

import codecs
import io
import pickle
import tarfile
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from ddpm.data.foreign import check_genuine
from ddpm.data.images import MemoryImages
from ddpm.data.splits import Split
from ddpm.errors import DdpmError, check

FILES: dict[Split, list[str]] = {
    "train": [f"data_batch_{i}" for i in range(1, 6)],
    "test": ["test_batch"],
}
FOLDERS = {"": "cifar-10-batches-py", ".bin": "cifar-10-batches-bin"}  # by the files' ending
ARCHIVES = {"": "cifar-10-python.tar.gz", ".bin": "cifar-10-binary.tar.gz"}
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # bytes of an image in a binary batch, its label first


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds NumPy arrays and plain values, and refuses to call anything else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            "_reconstruct": np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
            "ndarray": np.ndarray,
            "dtype": np.dtype,
            "_frombuffer": np._core.numeric._frombuffer,  # type: ignore[attr-defined]
            "encode": codecs.encode,
        }
        if module.split(".")[0] in ("numpy", "_codecs") and name in allowed:
            return allowed[name]
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")


@dataclass(frozen=True)
class Batches:
    """Where the batches are.

    Args:
        path: a folder or a tar archive.
        ending: of the files: nothing for Python batches, .bin for binary ones.
    """

    path: Path
    ending: str

    def read(self, split: Split) -> dict[str, bytes]:
        """The contents of a split's files.

        Raises:
            DdpmError: one is missing, or the archive is damaged.
        """
        names = [name + self.ending for name in FILES[split]]
        again = f"unpack {ARCHIVES[self.ending]} again"
        if self.path.is_dir():
            for name in names:
                check((self.path / name).is_file(), f"{self.path / name} is missing; {again}")
                check_genuine(self.path / name)
            return {name: (self.path / name).read_bytes() for name in names}
        check_genuine(self.path)
        found: dict[str, bytes] = {}
        try:
            with tarfile.open(self.path) as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() else None
                    name = PurePosixPath(member.name).name
                    if file is not None and name in names:
                        found[name] = file.read()
        except (OSError, tarfile.TarError, EOFError) as error:
            raise DdpmError(f"cannot read {self.path} ({error}); download it again") from error
        missing = [name for name in names if name not in found]
        check(not missing, f"{self.path} holds no {', '.join(missing)}; download it again")
        return {name: found[name] for name in names}


def find_batches(path: Path) -> Batches | None:
    """The batches that a path names: its own, those of the folder below it that the archive makes,
    or those of the archive, which may also be named itself."""
    for ending, folder in FOLDERS.items():
        for candidate in (path, path / folder):
            if (candidate / f"data_batch_1{ending}").is_file():
                return Batches(candidate, ending)
    for ending, archive in ARCHIVES.items():
        for candidate in (path, path / archive):
            if candidate.is_file() and candidate.name == archive:
                return Batches(candidate, ending)
    return None


def cifar10_batches(batches: Batches, split: Split) -> MemoryImages:
    """The images of one split as [n, 3, 32, 32].

    Raises:
        DdpmError: a batch file is missing or is not what it should be.
    """
    images, labels = [], []
    for name, data in batches.read(split).items():
        try:
            pixels, classes = _binary(data) if batches.ending else _pickled(data)
            images.append(pixels.reshape(-1, 3, 32, 32))
            labels.append(classes.astype(np.int64))
        except Exception as error:  # damaged bytes can make a pickle raise anything
            raise DdpmError(
                f"{batches.path / name} is not a CIFAR-10 batch ({error}); "
                f"unpack {ARCHIVES[batches.ending]} again"
            ) from error
    return MemoryImages(
        torch.from_numpy(np.concatenate(images)),
        name=f"CIFAR-10 ({split})",
        labels=torch.from_numpy(np.concatenate(labels)),
        class_names=NAMES,
    )


def _pickled(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of a Python batch."""
    with warnings.catch_warnings():
        # The original files say dtype(align=0), which NumPy now wants to be a bool.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        batch = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    return np.asarray(batch[b"data"], dtype=np.uint8), np.asarray(batch[b"labels"])


def _binary(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of a binary batch."""
    check(
        len(data) > 0 and len(data) % RECORD == 0,
        f"its {len(data):,} bytes are no whole number of images",
    )
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    return records[:, 1:].copy(), records[:, 0]
