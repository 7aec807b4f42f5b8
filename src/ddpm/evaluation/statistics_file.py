"""Statistics files: `mu` and `sigma` as pytorch-fid and EDM have them, and what they are of.

A file of ours says in `about` (JSON) which features of which images it holds. Other programs read
`mu` and `sigma` and pass over the rest; files of theirs say nothing, which is told.
"""

from __future__ import annotations

import json
import logging
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ddpm import __version__
from ddpm.errors import DdpmError, check
from ddpm.evaluation.frechet import Gaussian
from ddpm.evaluation.measured import Measured
from ddpm.evaluation.score import ClassifierScore
from ddpm.evaluation.statistics import Statistics
from ddpm.runtime.atomic import atomically, to_json

ARRAYS = ("mu", "sigma")
ASYMMETRY = 1e-5  # of a covariance, for its largest number: float32 rounds to 1e-7
SHIPPED = {split: Path(__file__).with_name(f"cifar10-{split}.npz") for split in ("train", "test")}

log = logging.getLogger("ddpm")


def write_statistics(
    path: Path,
    measured: Measured,
    *,
    split: str = "",
    vectors: Float[np.ndarray, "m d"] | None = None,
) -> None:
    """Write a set's statistics.

    Args:
        path: of the .npz file.
        measured: the set.
        split: of the set the images are, where it is known.
        vectors: features of some of the images, to be written in float16; the kernel distance and
            precision and recall need some.

    Raises:
        DdpmError: there are too many features, or no room.
    """
    found = measured.statistics
    if found is None:
        raise DdpmError(f"the covariance of the {measured.features} of such images is too large")
    about = {
        "features": measured.features,
        "set": measured.name,
        "split": split,
        "count": measured.count,
        "version": __version__,
        "score": None if measured.score is None else asdict(measured.score),
    }
    arrays = {"mu": found.mu, "sigma": found.sigma, "about": np.array(to_json(about))}
    if vectors is not None:
        arrays["vectors"] = vectors.astype(np.float16)

    def save(partial: Path) -> None:
        with partial.open("wb") as file:  # a bare name would be given an ending
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    atomically(path, save)


def is_statistics(path: Path) -> bool:
    """Whether a file holds `mu` and `sigma`, and no images beside them."""
    if path.suffix.lower() != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return names.issuperset(ARRAYS) and "arr_0" not in names


def read_statistics(path: Path, features: str, size: int) -> Measured:
    """Statistics of a file, which must be of the features that are asked for.

    Args:
        path: of the .npz file.
        features: their name. A file that does not say of which it is is believed, which is told.
        size: numbers of a vector.

    Raises:
        DdpmError: the file is damaged, of other features, or no statistics.
    """
    arrays = _read(path)
    missing = [name for name in ARRAYS if name not in arrays]
    check(not missing, f"{path} holds no {' and no '.join(missing)}; it is no statistics file")
    about = _about(arrays, path)
    said = about.get("features")
    check(
        said in (None, features),
        f"{path} holds statistics of the features {said}, and {features} are asked for",
    )
    mu, sigma = (_numbers(path, name, arrays[name]) for name in ARRAYS)
    check(
        mu.shape == (size,) and sigma.shape == (size, size),
        f"{path} holds mu of shape {list(mu.shape)} and sigma of shape {list(sigma.shape)}, but "
        f"the {features} features of these images have {size:,} numbers",
    )
    check(
        float(abs(sigma - sigma.T).max()) <= ASYMMETRY * float(abs(sigma).max()),
        f"the sigma of {path} is no covariance: it is not symmetric",
    )
    try:
        Gaussian.of_statistics(Statistics(mu, sigma))
    except DdpmError as error:
        raise DdpmError(f"the sigma of {path} is no covariance: {error}") from error
    vectors = None
    if "vectors" in arrays:
        vectors = _numbers(path, "vectors", arrays["vectors"]).astype(np.float32)
        check(
            vectors.ndim == 2 and len(vectors) >= 2 and vectors.shape[1] == size,
            f"{path} is damaged: its vectors have shape {list(vectors.shape)}",
        )
    if not about:
        log.warning(
            "%s does not say of which features, set and number of images it is; it is taken to be "
            "of %s",
            *(path, features),
        )
    count = about.get("count")
    score = _score(about)
    name = str(about.get("set") or path.name)
    return Measured(name, features, Statistics(mu, sigma, count), count, vectors, score, about)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; nothing pickled is read."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            check(not isinstance(loaded, np.ndarray), f"{path} holds a single array and no .npz")
            wanted = {*ARRAYS, "about", "vectors"}.intersection(loaded.files)
            return {name: loaded[name] for name in wanted}
    except DdpmError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise DdpmError(f"{path} cannot be read as a statistics file ({reason})") from error


def _about(arrays: dict[str, np.ndarray], path: Path) -> dict[str, Any]:
    """What a file says of itself."""
    if "about" not in arrays:
        return {}
    try:
        found = json.loads(str(arrays["about"]))
        score = _score(found)
        numbers = [] if score is None else [n for n in asdict(score).values() if n is not None]
        check(all(type(n) in (int, float) for n in numbers), "a score that is no number")
        words = [found.get(key) for key in ("features", "set", "split")]
        check(all(isinstance(word, str | None) for word in words), "names that are no words")
        count = found.get("count")
        check(count is None or (type(count) is int and count >= 2), f"a count of {count!r}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DdpmError(f"what {path} says of itself is damaged ({error})") from error
    return dict(found)


def _score(about: dict[str, Any]) -> ClassifierScore | None:
    """What the classifier made of the images, if it is told."""
    return None if about.get("score") is None else ClassifierScore(**about["score"])


def _numbers(path: Path, name: str, array: np.ndarray) -> Float[np.ndarray, "..."]:
    """A real and finite array in float64."""
    check(array.dtype.kind == "f", f"{name} of {path} holds {array.dtype} and no real numbers")
    check(bool(np.isfinite(array).all()), f"{name} of {path} holds numbers that are not finite")
    return array.astype(np.float64)
