"""Models of the Hugging Face hub, in the cache that huggingface_hub keeps."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ddpm.errors import DdpmError
from ddpm.interop.diffusers import CONFIG, INDEX, OURS, SCHEDULER, WEIGHTS

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
FILE = re.compile(r".*\.(safetensors|bin|pt|pth|ckpt|pkl|json|npz|zip|tar|gz)", re.IGNORECASE)
COMMIT = re.compile(r"[0-9a-f]{40}")
SETTINGS = (
    *(INDEX, CONFIG, SCHEDULER, OURS),
    *(f"unet/{CONFIG}", f"unet_ema/{CONFIG}", f"scheduler/{SCHEDULER}"),
)
ORDER = (  # of weights that a model may have several of; what is found ends the search
    (  # the averaged ones are fetched in any form, since they are meant where there are both
        *(f"{WEIGHTS}.safetensors", f"{WEIGHTS}.safetensors.index.json"),
        *(f"{WEIGHTS}.ema.safetensors", f"{WEIGHTS}.ema.bin"),
    ),
    (f"{WEIGHTS}.bin", f"{WEIGHTS}.bin.index.json"),
    (f"{WEIGHTS}.*.safetensors",),
    (f"{WEIGHTS}.*.bin",),
)


def is_hub_id(source: str) -> bool:
    """Whether a word may name a model of the hub: owner/name, or owner/name@revision."""
    return ID.fullmatch(source) is not None and FILE.fullmatch(source) is None


def download(source: str, unet_of: Callable[[Path], Path]) -> Path:
    """The folder of a model, from the local cache or the network.

    With HF_HUB_OFFLINE=1 only the cache is asked. The settings come first, so that nothing large is
    fetched of what is no DDPM; then the weights of its network and no others; pickles only where
    there is no safetensors.

    Args:
        source: owner/name, or owner/name@revision.
        unet_of: finds the folder of the network below that of the settings, and refuses what is no
            model of the kind that is read.

    Raises:
        DdpmError: huggingface_hub is not installed, or the model cannot be had.
    """
    name, _, revision = source.partition("@")
    folder = fetch(source, name, revision or None, SETTINGS)
    unet = unet_of(folder)
    below = unet.relative_to(folder)
    if COMMIT.fullmatch(folder.name):
        revision = folder.name  # so that the weights are of the settings, whatever happens there
    for patterns in ORDER:
        wanted = [(below / pattern).as_posix() for pattern in patterns]
        fetch(source, name, revision or None, (*SETTINGS, *wanted))
        if any(True for pattern in patterns for _ in unet.glob(pattern)):
            break
    return folder


def fetch(source: str, name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """The folder of a model, once the files of `patterns` that it has are in it.

    Raises:
        DdpmError: see `download`.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise DdpmError(
            f"there is no {source} here, and huggingface_hub, which would look for it on the "
            "Hugging Face hub, is not installed; install it with `pip install huggingface_hub`"
        ) from error
    try:
        with quietly(bars=patterns is not SETTINGS and sys.stderr.isatty()):
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # of the network, the disk or the hub: they have dozens of kinds
        raise DdpmError(
            f"there is no {source} here, and it cannot be had from the Hugging Face hub: "
            f"{reason(error, name, revision)}"
        ) from error


def reason(error: Exception, name: str, revision: str | None) -> str:
    """Why a model cannot be had, and what a user can do about it."""
    from huggingface_hub import constants

    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return (
            f"its owner asks for consent to conditions; give it at {constants.ENDPOINT}/{name} and "
            "log in with `hf auth login`"
        )
    if "RevisionNotFoundError" in kinds:
        return f"it has no revision '{revision}' there"
    if "RepositoryNotFoundError" in kinds:
        return "it is not there, or is private and needs `hf auth login`"
    if kinds & {"LocalEntryNotFoundError", "IncompleteSnapshotError", "OfflineModeIsEnabled"}:
        if constants.HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE is set; set it to 0 to ask the network"
        else:
            why = "the hub cannot be reached; try again with a network"
        return f"the cache {constants.HF_HUB_CACHE} does not have it whole, and {why}"
    said = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return f"{type(error).__name__}, {said[:200]}"


@contextlib.contextmanager
def quietly(bars: bool) -> Iterator[None]:
    """Without the notices of huggingface_hub, and without its progress bars unless they are to
    stay."""
    from huggingface_hub import utils

    verbosity, shown = utils.logging.get_verbosity(), not utils.are_progress_bars_disabled()
    utils.logging.set_verbosity_error()
    if shown and not bars:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.logging.set_verbosity(verbosity)
        if shown:
            utils.enable_progress_bars()
