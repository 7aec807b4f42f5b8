"""The Python API takes images as people have them, and answers mistakes with a sentence.

Types are not checked here, as they are not where the package is used.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm
from ddpm.errors import DdpmError
from full_range import full_range_model, one_thread
from helpers import measured_model, tiny_config, tiny_images
from runs.small_run import write
from typecheck import unchecked

GREY = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def models():
    """A grey and an RGB model of 256 grey levels, by their channels."""
    with one_thread():
        return {channels: full_range_model(channels) for channels in (1, 3)}


@pytest.fixture(autouse=True)
def as_installed():
    with unchecked(), one_thread():
        yield


def last(images):
    """The images as [n, h, w, c]."""
    return images if images.ndim == 4 else images[..., None]


def tensor(images):
    """The images as [n, c, h, w]."""
    return torch.from_numpy(last(images)).permute(0, 3, 1, 2).contiguous()


def as_pil(images):
    """A PIL image each."""
    return [Image.fromarray(image) for image in images]


def kind(thing):
    """The name of its type, for the names of tests."""
    return type(thing).__name__


def from_bytes(image):
    """A PIL image that has not been read yet."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return Image.open(buffer)


# -- what is taken -------------------------------------------------------------------------------

GIVEN = {  # beyond what test_given_images.py gives: how, and how many of the three
    "a picture that is not read yet": (lambda x, p: from_bytes(x[0]), 1),
    "a tuple of pictures": (lambda x, p: tuple(as_pil(x)), 3),
    "an array with gaps": (lambda x, p: np.repeat(last(x), 2, axis=0)[::2], 3),
    "an array turned around": (lambda x, p: last(x)[::-1][::-1], 3),
    "an array that may only be read": (lambda x, p: locked(last(x)), 3),
    "a tensor with gaps": (lambda x, p: tensor(np.repeat(x, 2, 0))[::2], 3),
    "lists in a list": (lambda x, p: [as_pil(x)[:1], [list(tensor(x)[1:])]], 3),
    "folders in folders": (lambda x, p: write(p / "a" / "b" / "c", x).parents[1], 3),
}


@pytest.mark.parametrize("images", [GREY, RGB], ids=["grey", "RGB"])
@pytest.mark.parametrize("name", GIVEN)
def test_images_are_compressed_however_they_are_given(models, tmp_path, name, images):
    model = models[images[0].ndim * 2 - 3]
    give, count = GIVEN[name]
    data = model.compress(give(images, tmp_path), steps=2)
    back = model.decompress(data).images
    assert torch.equal(torch.stack(list(back)), tensor(images)[:count])


@pytest.mark.parametrize("images", [GREY, RGB], ids=["grey", "RGB"])
@pytest.mark.parametrize("name", GIVEN)
def test_images_are_measured_however_they_are_given(models, tmp_path, name, images):
    model = models[images[0].ndim * 2 - 3]
    give, count = GIVEN[name]
    given = give(images, tmp_path)
    assert model.bits_per_dim(given) == pytest.approx(model.bits_per_dim(tensor(images)[:count]))
    assert len(model.bound(given).total) == count


# -- what is not ---------------------------------------------------------------------------------

WRONG = {  # beyond what test_given_images.py gives
    "words in an array": lambda p: np.array(["a", "b"]),
    "complex numbers": lambda p: torch.zeros(2, 1, 8, 8, dtype=torch.complex64),
    "an array of int8": lambda p: np.zeros((2, 8, 8, 1), np.int8),
    "dates": lambda p: np.zeros((2, 8, 8, 1), "datetime64[s]"),
    "a set of names": lambda p: {"a.png"},
    "a model": lambda p: measured_model(),
    "an empty folder": lambda p: p,
    "a folder of notes": lambda p: write_text(p / "a.txt").parent,
    "a home of nobody": lambda p: "~no-such-user/a.png",
    "a cut-off picture": lambda p: cut_off(),
    "a closed picture": lambda p: closed(),
}


def write_text(path):
    path.write_text("no image")
    return path


def locked(array):
    """Pictures in a file that is mapped into memory, say."""
    array = array.copy()
    array.flags.writeable = False
    return array


def closed():
    picture = from_bytes(GREY[0])
    picture.close()
    return picture


def cut_off():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()[:900]))


VERBS = ["compress", "bits_per_dim", "bound", "measure"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_image_of_the_model_is_a_sentence(models, tmp_path, name, verb):
    given = WRONG[name](tmp_path)
    before = models[1].denoising_error
    with pytest.raises(DdpmError) as caught:
        getattr(models[1], verb)(given)
    assert 10 < len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    assert models[1].denoising_error is before


# -- other mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        *({"n": 0}, {"n": -1}, {"n": 2.5}, {"n": "4"}, {"n": None}),
        *({"seed": -1}, {"seed": 1.5}, {"seed": "x"}, {"batch_size": 0}, {"batch_size": 1.5}),
        *({"sampler": "nonsense"}, {"sampler": 5}, {"sampler": None}),
        *({"plan": 5}, {"plan": "optimal"}),
        *({"steps": 0}, {"steps": 21}, {"steps": 2.5}, {"steps": "few"}),
        *({"sampler": "ddim", "eta": -1}, {"sampler": "ddim", "eta": 1.5}, {"eta": "x"}),
        *({"sampler": "dpm-solver", "eta": 0.5}, {"steps": 3, "plan": ddpm.Plan(5)}),
    ],
    ids=str,
)
def test_a_mistake_in_sampling_is_a_sentence(models, options):
    with pytest.raises(DdpmError):
        models[1].sample(**options)


@pytest.mark.parametrize(
    "options",
    [
        *({"steps": 3}, {"steps": 3, "sampler": "ddim"}, {"sampler": "ddim", "eta": 0.5}),
        *({"sampler": "ddim", "eta": 1, "steps": 3}, {"steps": 20}, {"steps": np.int64(3)}),
    ],
    ids=str,
)
def test_what_a_person_would_ask_of_sample_works(models, options):
    assert models[1].sample(np.int64(2), **options).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("path", [None, 5, b"x", "", "nowhere", [], "~no-such-user/x"], ids=str)
def test_what_is_no_model_is_a_sentence(path):
    with pytest.raises(DdpmError):
        ddpm.load(path)


@pytest.mark.parametrize(
    "data", [None, 5, [], torch.zeros(3), "nowhere.ddpm"], ids=lambda x: type(x).__name__
)
def test_what_is_no_archive_is_a_sentence(models, data):
    with pytest.raises(DdpmError):
        models[1].decompress(data)


@pytest.mark.parametrize(
    "images", [None, 5, [], GREY, torch.zeros(3, 1, 8, 8)], ids=lambda x: type(x).__name__
)
def test_what_cannot_be_trained_on_is_a_sentence(tmp_path, images):
    with pytest.raises(DdpmError):
        ddpm.train(tiny_config(steps=1), images, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", [None, {}, "digits"], ids=str)
def test_what_is_no_configuration_is_a_sentence(tmp_path, config):
    with pytest.raises(DdpmError):
        ddpm.train(config, tiny_images(), tmp_path / "run")
