"""Where a picture comes from: what images that a model made, and figures, say of themselves.

The paper's section 6 fears generated pictures that deceive. Here each one carries what made it, and
that it is synthetic, in its own file: as text chunks of a PNG (one of them for people, one for this
package, and the mark of the IPTC, which other programs look for), or as an array of an .npz.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddpm import __version__
from ddpm.data.decode import Quiet
from ddpm.errors import DdpmError
from ddpm.model import Ddpm
from ddpm.pretrained import pretrained
from ddpm.runs.checkpoint import checksum, model_tensors
from ddpm.runtime.atomic import to_json
from ddpm.runtime.paths import user_path

__all__ = ["Provenance", "is_marked", "read_provenance"]

KEY = "ddpm"  # of the text chunk, and of what it holds
ARRAY = "provenance"  # of an .npz
SYNTHETIC = "Synthetic: made by a diffusion model, not photographed or drawn by hand"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    "Iptc4xmpExt:DigitalSourceType="
    '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    "</rdf:RDF></x:xmpmeta>"
)


@dataclass(frozen=True)
class Provenance:
    """What a picture is known by.

    Args:
        model: fingerprint of its numbers and its image format; see `fingerprint`.
        name: of the model; see `model_name`.
        command: arguments of `ddpm` that draw it again, but for --out.
        settings: seed, sampler, plan, precision and what else decides it.
        index: the number of the image; None for pictures of several.
        version: of this package.
        synthetic: always true.
    """

    model: str
    name: str
    command: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    index: int | None = None
    version: str = field(default=__version__, compare=False)
    synthetic: bool = True

    @staticmethod
    def of(model: Ddpm, name: str, command: Sequence[str], **settings: Any) -> Provenance:
        """Of a picture that is not one numbered image.

        Args:
            model: which made it.
            name: of the model, as a user typed it.
            command: arguments of `ddpm`, of which --out is left out, and paths from the root or
                the home folder are shortened as `model_name` does.
            settings: what decides the picture.
        """
        words = tuple(map(_shortened, _without_out(command)))
        plain = {k: _shortened(v) if isinstance(v, str) else v for k, v in settings.items()}
        return Provenance(fingerprint(model), model_name(name), words, json.loads(to_json(plain)))

    def document(self) -> str:
        """As JSON, on one line."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    def same_images(self, other: Provenance) -> bool:
        """Whether two say of the same images, whatever the model was called and who drew them."""
        ours, theirs = ((one.model, dict(one.settings), one.index) for one in (self, other))
        return ours == theirs

    def chunks(self) -> dict[str, str]:
        """The text chunks of a PNG."""
        return {
            "Description": SYNTHETIC,
            "Software": f"ddpm {self.version}",
            KEY: self.document(),
            "XML:com.adobe.xmp": XMP,
        }

    @staticmethod
    def parse(document: str) -> Provenance:
        """The inverse of `document`.

        Raises:
            DdpmError: it is no such document.
        """
        try:
            values = json.loads(document)
            known = {key: values[key] for key in Provenance.__dataclass_fields__}
            words, settings, index = known["command"], known["settings"], known["index"]
            texts = [known["model"], known["name"], known["version"], *words]
            if not (
                isinstance(words, list)
                and isinstance(settings, dict)
                and (index is None or isinstance(index, int))
                and all(isinstance(text, str) for text in texts)
            ):
                raise ValueError("it is not what this version writes")
        except (ValueError, TypeError, KeyError) as error:
            raise DdpmError(f"its provenance is damaged ({error})") from error
        return Provenance(**{**known, "command": tuple(words), "synthetic": True})


def _without_out(command: Sequence[str]) -> list[str]:
    """Arguments but for --out (-o) and its value."""
    kept: list[str] = []
    skipping = False
    for word in command:
        if not skipping and word not in ("--out", "-o") and not word.startswith("--out="):
            kept.append(word)
        skipping = not skipping and word in ("--out", "-o")
    return kept


def _shortened(word: str) -> str:
    """A word of a command; of a path that tells of its owner only the end, also behind a =."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{model_name(value) if value else ''}"


def fingerprint(model: Ddpm) -> str:
    """The checksum of everything that decides what a model draws: weights, betas, measured error,
    what the output means, format of the images."""
    tensors = model_tensors(model.network.state_dict(), model.diffusion, model.denoising_error)
    diffusion = model.diffusion
    read_as: list[object] = [
        diffusion.prediction_type,
        diffusion.variance_type,
        diffusion.clip_sample,
    ]
    untold = getattr(model.network, "untold", "")
    read_as += [untold] if untold else []
    return checksum(tensors, {**asdict(model.format), "read_as": read_as})


def model_name(typed: str) -> str:
    """What a model is called in pictures: as it was typed, so that the command can be typed again;
    of a path from the root or the home folder only its end, since it tells of its owner."""
    path = Path(typed)
    if typed in pretrained() or not (path.is_absolute() or {"..", "~"} & set(path.parts)):
        return typed
    return user_path(typed).resolve().name


def read_provenance(path: Path) -> Provenance | None:
    """What a picture or an .npz says of itself; None if it says nothing.

    Raises:
        DdpmError: it cannot be read, or what it says is damaged.
    """
    try:
        document = _in_arrays(path) if path.suffix.lower() == ".npz" else _in_picture(path)
        return None if document is None else Provenance.parse(document)
    except DdpmError as error:
        raise DdpmError(f"{path}: {error}") from error
    except Exception as error:  # a foreign file makes Pillow and NumPy raise anything
        raise DdpmError(f"{path} cannot be read as a picture or an .npz ({error})") from error


def is_marked(path: Path) -> bool:
    """Whether a picture says where it comes from."""
    try:
        return _in_picture(path) is not None
    except Exception:  # perhaps only its text is damaged, or misleads Pillow
        return KEY.encode() + b"\0" in path.read_bytes()


def _in_picture(path: Path) -> str | None:
    """The document in a picture's text, before or behind its pixels."""
    with Quiet.context(), Image.open(path) as picture:
        picture.load()
        found = {**picture.info, **getattr(picture, "text", {})}.get(KEY)
    return None if found is None else str(found)


def _in_arrays(path: Path) -> str | None:
    """The document in an .npz."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return str(arrays[ARRAY]) if ARRAY in arrays.files else None
