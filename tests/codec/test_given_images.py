"""The verbs of a model take images as a person has them, and tell what is no image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.errors import DdpmError
from full_range import full_range_model, one_thread
from helpers import measured_model
from typecheck import unchecked


@pytest.fixture(scope="module")
def models():
    """Of 1 and 3 channels with 256 grey levels, and (17) grey ones of 17 levels."""
    with one_thread():
        return {1: full_range_model(1), 3: full_range_model(3), 17: measured_model()}


@pytest.fixture(autouse=True)
def quick():
    """Without threads that wait for each other."""
    with one_thread():
        yield


def images(kind):
    """Three random images of a model's grey levels, [3, c, h, w]."""
    levels, channels = (17, 1) if kind == 17 else (256, kind)
    generator = torch.Generator().manual_seed(kind)
    return torch.randint(0, levels, (3, channels, 8, 8), generator=generator).to(torch.uint8)


def arrays(tensor, kind):
    """The same with the channels last, on the scale of files: [n, h, w, c]."""
    values = tensor.permute(0, 2, 3, 1).numpy()
    return np.round(values * (255 / 16)).astype(np.uint8) if kind == 17 else values


def pictures(tensor, kind):
    """The same as PIL images."""
    return [Image.fromarray(a[:, :, 0] if kind != 3 else a) for a in arrays(tensor, kind)]


def files(tensor, kind, folder):
    """The same as PNG files."""
    paths = [folder / f"{i}.png" for i in range(len(tensor))]
    for path, picture in zip(paths, pictures(tensor, kind), strict=True):
        picture.save(path)
    return paths


def levels(tensor):
    """The same as arrays of the model's own grey levels."""
    return tensor.permute(0, 2, 3, 1).numpy()


# Ways to give images: how many of the three, and from (tensor, kind of model, a folder).
ONE = {
    "path": lambda t, k, f: files(t, k, f)[0],
    "path-as-text": lambda t, k, f: str(files(t, k, f)[0]),
    "picture": lambda t, k, f: pictures(t, k)[0],
    "array": lambda t, k, f: levels(t)[0],
    "tensor": lambda t, k, f: t[0],
}
ALL = {
    "folder": lambda t, k, f: files(t, k, f) and f,
    "folder-as-text": lambda t, k, f: files(t, k, f) and str(f),
    "paths": files,
    "paths-as-text": lambda t, k, f: [str(path) for path in files(t, k, f)],
    "pictures": lambda t, k, f: pictures(t, k),
    "batch-array": lambda t, k, f: levels(t),
    "arrays": lambda t, k, f: list(levels(t)),
    "batch-tensor": lambda t, k, f: t,
    "tensors": lambda t, k, f: list(t),
    "tuple-of-tensors": lambda t, k, f: tuple(t),
    "of-everything": lambda t, k, f: [files(t, k, f)[0], pictures(t, k)[1], levels(t)[2]],
    "array-not-in-a-row": lambda t, k, f: np.asfortranarray(levels(t)),
    "tensor-not-in-a-row": lambda t, k, f: t.transpose(2, 3).contiguous().transpose(2, 3),
}
GREY_ONLY = {
    "array-of-rows": lambda t, k, f: levels(t)[0][:, :, 0],
    "arrays-of-rows": lambda t, k, f: [a[:, :, 0] for a in levels(t)],
    "grey-picture-in-rgb": lambda t, k, f: pictures(t, k)[0].convert("RGB"),
}
WAYS = [
    *((kind, name, way, 1) for kind in (1, 3, 17) for name, way in ONE.items()),
    *((kind, name, way, 3) for kind in (1, 3, 17) for name, way in ALL.items()),
    *(
        (kind, n, way, 3 if "arrays" in n else 1)
        for kind in (1, 17)
        for n, way in GREY_ONLY.items()
    ),
]


@pytest.mark.parametrize(
    ("kind", "way", "count"),
    [pytest.param(k, way, n, id=f"{k}-{name}") for k, name, way, n in WAYS],
)
def test_compress_takes_images_in_every_way(kind, way, count, models, tmp_path):
    with unchecked():
        data = models[kind].compress(way(images(kind), kind, tmp_path), steps=2)
    back = models[kind].decompress(data)
    assert back.exact
    assert torch.equal(torch.stack(back.images), images(kind)[:count])


VERBS = {
    "bits_per_dim": lambda model, given: model.bits_per_dim(given),
    "bound": lambda model, given: model.bound(given).mean,
    "measure": lambda model, given: model.measure(given).xstart_mse.tolist(),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("kind", "way", "count"),
    [pytest.param(k, way, n, id=f"{k}-{name}") for k, name, way, n in WAYS if k == 3]
    + [pytest.param(17, GREY_ONLY["array-of-rows"], 1, id="17-array-of-rows")],
)
def test_measuring_takes_images_in_every_way(kind, way, count, verb, models, tmp_path):
    model = replace(models[kind])  # measuring changes it
    with unchecked():
        given = VERBS[verb](model, way(images(kind), kind, tmp_path))
        assert given == VERBS[verb](model, images(kind)[:count])


# What is no image of the grey model of 17 levels, whose images are [1, 8, 8].
MISTAKES = {
    "floats-of-minus-1-to-1": torch.rand(2, 1, 8, 8) * 2 - 1,
    "floats-of-0-to-1": torch.rand(2, 1, 8, 8),
    "floats-of-grey-levels": images(17).float(),
    "one-image-of-floats": torch.rand(1, 8, 8),
    "doubles": images(17).double(),
    "halves": images(17).half(),
    "not-numbers": torch.full((2, 1, 8, 8), float("nan")),
    "int64": images(17).long(),
    "int32": images(17).int(),
    "int8": images(17).to(torch.int8),
    "booleans": images(17) > 8,
    "array-of-floats": levels(images(17)).astype(float),
    "array-of-int64": levels(images(17)).astype(np.int64),
    "array-of-16-bits": levels(images(17)).astype(np.uint16),
    "array-of-booleans": levels(images(17)) > 8,
    "array-of-objects": levels(images(17)).astype(object),
    "levels-beyond-17": torch.full((2, 1, 8, 8), 17, dtype=torch.uint8),
    "array-of-levels-beyond-17": np.full((2, 8, 8, 1), 200, np.uint8),
    "one-level-beyond-17": torch.full((1, 8, 8), 255, dtype=torch.uint8),
    "three-channels": images(17).repeat(1, 3, 1, 1),
    "two-channels": images(17).repeat(1, 2, 1, 1),
    "array-of-three-channels": levels(images(17)).repeat(3, axis=3),
    "channels-first-in-an-array": images(17).numpy(),
    "channels-last-in-a-tensor": images(17).permute(0, 2, 3, 1),
    "five-axes": images(17)[None],
    "one-axis": images(17).flatten(),
    "a-number-in-a-tensor": torch.tensor(3, dtype=torch.uint8),
    "no-images": images(17)[:0],
    "no-pixels": torch.zeros(1, 1, 0, 8, dtype=torch.uint8),
    "an-empty-list": [],
    "an-empty-array": np.zeros((0, 8, 8, 1), np.uint8),
    "one-bad-among-good": [*images(17), images(17)[0].float()],
    "a-picture-with-colours": Image.new("RGB", (8, 8), (255, 0, 0)),
    "a-picture-of-other-levels": Image.new("L", (8, 8), 3),
    "a-picture-with-transparency": Image.new("LA", (8, 8), (0, 9)),
    "a-picture-of-16-bits": Image.fromarray(np.full((8, 8), 900, np.uint16)),
    "a-picture-of-floats": Image.new("F", (8, 8), 0.5),
    "nowhere": "/nowhere/at/all.png",
    "nowhere-in-a-list": ["/nowhere/at/all.png"],
    "a-file-that-is-no-picture": __file__,
    "none": None,
    "none-in-a-list": [None],
    "a-number": 5,
    "an-object": object(),
    "bytes": b"\x89PNG",
    "lists-of-numbers": [[0, 1], [2, 3]],
    "a-dictionary": {"images": images(17)},
    "the-type-itself": Image.Image,
}
CALLS = {
    "compress": lambda model, given: model.compress(given),
    **VERBS,
}


@pytest.mark.parametrize("verb", CALLS)
@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_no_image_is_told(name, verb, models):
    with unchecked(), pytest.raises(DdpmError) as caught:
        CALLS[verb](models[17], MISTAKES[name])
    assert 10 < len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("verb", ["bits_per_dim", "bound", "measure"])
@pytest.mark.parametrize("shape", [(16, 16), (8, 9), (4, 4)])
def test_another_size_is_told_with_both(shape, verb, models):
    with unchecked(), pytest.raises(DdpmError, match=rf"8\D+8.*{shape[0]}\D+{shape[1]}"):
        VERBS[verb](models[1], np.zeros((2, *shape, 1), np.uint8))


@pytest.mark.parametrize("verb", CALLS)
def test_an_unreadable_file_is_named(verb, models, tmp_path):
    (tmp_path / "a.png").write_bytes(b"junk")
    with unchecked(), pytest.raises(DdpmError, match=r"a\.png"):
        CALLS[verb](models[17], tmp_path)
