"""docs/file-format.md is enough for another implementation: one that follows it decodes what was
written for ever, and what is written today."""

import json

import pytest
import torch
from second_decoder import decode
from test_golden import GOLDEN, MODEL, digests

from ddpm.loading import load
from ddpm.pretrained import pretrained
from helpers import measured_model, tiny_images

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["single", "picture", "archive"])
def test_golden_files_decode(name):
    """A single image, tiles with a border, an archive with names and a route of its own."""
    data = (GOLDEN / f"{name}.ddpm").read_bytes()
    model = load(MODEL, device="cpu")
    images, agree = decode(data, pretrained()[MODEL], model.denoiser("fp32"))
    assert agree
    found = digests([torch.from_numpy(image).to(torch.uint8) for image in images])
    assert found == json.loads((GOLDEN / "digests.json").read_text())[f"{name}.ddpm"]


@pytest.mark.parametrize("options", [{}, {"channels": 3}], ids=str)
def test_files_of_today_decode(tmp_path, options):
    """Of 17 levels: several sizes, parts, blocks, routes, and paths of several segments."""
    model = measured_model(**options)
    model.save(tmp_path / "m.safetensors")
    some = tiny_images(80, channels=model.format.channels, seed=3).images
    wide = torch.cat([some[0], some[1]], dim=2)[:, :5]
    sets = [
        (list(some), {}),
        ([some[0]], {}),
        ([some[2], wide, some[3][:, :1, :1]], {"names": ["a/b", "c", "d"]}),
        ([wide], {"steps": 3, "last_timestep": 4}),
    ]
    for images, how in sets:
        found, agree = decode(
            model.compress(images, **how), tmp_path / "m.safetensors", model.denoiser("fp32")
        )
        assert agree
        assert all((a == b.numpy()).all() for a, b in zip(found, images, strict=True))
