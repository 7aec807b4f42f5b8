"""CIFAR-10's python batches, read without running what a pickle may contain."""

from __future__ import annotations

import codecs
import pickle
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ddpm.data.images import MemoryImages
from ddpm.errors import DdpmError, check

FILES = {
    "train": [f"data_batch_{i}" for i in range(1, 6)],
    "test": ["test_batch"],
}


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


def find_batches(folder: Path) -> Path | None:
    """The folder that holds `data_batch_1`: this one or its `cifar-10-batches-py`."""
    for candidate in (folder, folder / "cifar-10-batches-py"):
        if (candidate / "data_batch_1").is_file():
            return candidate
    return None


def cifar10_batches(folder: Path, split: Literal["train", "test"]) -> MemoryImages:
    """The images of one split as [n, 3, 32, 32].

    Raises:
        DdpmError: a batch file is missing or is not what it should be.
    """
    images, labels = [], []
    for name in FILES[split]:
        path = folder / name
        check(path.is_file(), f"{path} is missing; unpack cifar-10-python.tar.gz again")
        try:
            with path.open("rb") as file, warnings.catch_warnings():
                # The original files say dtype(align=0), which NumPy now wants to be a bool.
                warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
                batch = _ArraysOnly(file, encoding="bytes").load()
            images.append(np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
            labels.append(np.asarray(batch[b"labels"], dtype=np.int64))
        except Exception as error:  # damaged bytes can make a pickle raise anything
            raise DdpmError(
                f"{path} is not a CIFAR-10 batch ({error}); unpack cifar-10-python.tar.gz again"
            ) from error
    return MemoryImages(
        torch.from_numpy(np.concatenate(images)),
        name=f"CIFAR-10 ({split})",
        labels=torch.from_numpy(np.concatenate(labels)),
    )
