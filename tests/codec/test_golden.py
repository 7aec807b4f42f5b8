"""Files written once by a model that ships are decoded for ever, however the arithmetic goes.

`tests/golden` has an archive with names, a single image and a picture of several tiles; each with
the digest of its pixels. They are written anew (`python tests/codec/test_golden.py`) only with a
new shipped model.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm.codec import decompress, parse, transmission
from ddpm.loading import load

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = "cifar10-small"
SETTINGS = [
    {},
    {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    {"ATEN_CPU_CAPABILITY": "default"},
    {"OMP_NUM_THREADS": "1"},
    {"OMP_NUM_THREADS": "2"},
    {"BATCH": "1"},
    {"BATCH": "7", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
]


def digests(images):
    """Of shape and pixels of each image."""
    return [
        hashlib.sha256(f"{tuple(image.shape)}".encode() + image.numpy().tobytes()).hexdigest()
        for image in images
    ]


def decoded():
    """What every golden file decodes to, and whether that is told to be exact."""
    transmission.BATCH = int(os.environ.get("BATCH", transmission.BATCH))
    model = load(MODEL, device="cpu").for_codec()
    found = {}
    for path in sorted(GOLDEN.glob("*.ddpm")):
        result = decompress(model, path.read_bytes())
        assert result.exact
        found[path.name] = digests(result.images)
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_golden_files_decode_everywhere(setting):
    code = "import json, test_golden; print(json.dumps(test_golden.decoded()))"
    paths = [str(Path(__file__).parent), str(Path(transmission.__file__).parents[2])]
    env = os.environ | setting | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((GOLDEN / "digests.json").read_text())


def test_what_they_are():
    headers = {path.stem: parse(path.read_bytes()).header for path in GOLDEN.glob("*.ddpm")}
    assert headers["archive"].names is not None
    assert headers["archive"].count == 8
    assert headers["single"].count == 1
    assert headers["picture"].sizes == ((70, 45),)
    assert not any(header.stored for header in headers.values())


def write():
    """The files, of images that come along."""
    model, images = load(MODEL, device="cpu"), embedded()
    mosaic = torch.cat([torch.cat(list(images[i : i + 3]), dim=2) for i in (8, 11, 14)], dim=1)
    sets = {
        "archive": (list(images[:8]), [f"folder/{i}.png" for i in range(8)]),
        "single": ([images[20]], None),
        "picture": ([mosaic[:, :70, :45].contiguous()], None),
    }
    found = {}
    for name, (chosen, names) in sets.items():
        (GOLDEN / f"{name}.ddpm").write_bytes(model.compress(chosen, names=names))
        found[f"{name}.ddpm"] = digests(chosen)
    (GOLDEN / "digests.json").write_text(json.dumps(found, indent=1) + "\n")


def embedded():
    """Smooth pictures of many colours, the same everywhere: integers only."""
    y, x = np.mgrid[:32, :32]
    found = []
    for i in range(24):
        waves = [(i * 7 + c * 5 + 3) * x * (c + 1) // 4 + (i * 11 + c) * y // 3 for c in range(3)]
        bumps = [((x - i) ** 2 + (y - 2 * i % 32) ** 2) * (c + 1) // 5 for c in range(3)]
        planes = [
            np.where(b < 60, 200 - b, (w % 64) + 40 * c)
            for c, (w, b) in enumerate(zip(waves, bumps, strict=True))
        ]
        found.append(np.stack(planes).clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(found))


if __name__ == "__main__":
    write()
