"""Sets of images in every form give the same pixels; what cannot be measured as it is is refused;
statistics files say what they are of.
"""

import gc
import io
import json
import logging
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import NoProbabilities, OneArgument, SmallInception, save_script, small_classifier

from ddpm.data.images import MemoryImages
from ddpm.errors import DdpmError
from ddpm.evaluation import (
    SourceSet,
    disk,
    get_features,
    measure,
    open_set,
    read_statistics,
    statistics_of,
    write_statistics,
)
from ddpm.evaluation.features import check_features, measure_name
from ddpm.evaluation.image_sets import SomeOf
from ddpm.evaluation.inception import NAME, VARIABLE, find_inception
from ddpm.evaluation.quality import compare
from ddpm.evaluation.statistics_file import is_statistics


def pixels(n=11, side=6, channels=3, seed=0):
    """Random pictures, [n, h, w, c]."""
    shape = (n, side, side, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_folder(folder, images, suffix="png", mode=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        (picture if mode is None else picture.convert(mode)).save(folder / f"{i:03d}.{suffix}")
    return folder


def write_zip(path, images):
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(images):
            data = io.BytesIO()
            Image.fromarray(image).save(data, "PNG")
            archive.writestr(f"{i:03d}.png", data.getvalue())
    return path


def saved(save):
    def write(path, images):
        save(path, images)
        return path

    return write


FORMS = {
    "a folder": ("set", write_folder),
    "a deep folder": ("set", lambda p, x: write_folder(p / "a" / "b", x).parent.parent),
    "a zip": ("set.zip", write_zip),
    "npz": ("x.npz", saved(lambda p, x: np.savez(p, arr_0=x))),
    "compressed npz": ("x.npz", saved(lambda p, x: np.savez_compressed(p, arr_0=x))),
    "npz of labels too": ("x.npz", saved(lambda p, x: np.savez(p, arr_0=x, arr_1=np.arange(11)))),
    "npz of two arrays of images": ("x.npz", saved(lambda p, x: np.savez(p, masks=x, arr_0=x))),
    "npz of another name": ("x.npz", saved(lambda p, x: np.savez(p, drawn=x))),
    "channels first": ("x.npz", saved(lambda p, x: np.savez(p, x.transpose(0, 3, 1, 2)))),
    "npy": ("x.npy", saved(np.save)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 4, 11, 100])
def test_every_form_of_a_set_gives_its_pixels_in_batches_of_any_size(form, size, tmp_path):
    name, write = FORMS[form]
    images = pixels()
    found = open_set(write(tmp_path / name, images))
    batches = list(found.batches(size))
    assert len(found) == 11
    assert found.shape == (3, 6, 6)
    assert [len(b) for b in batches] == [size] * (11 // size) + [11 % size] * (11 % size > 0)
    assert np.array_equal(torch.cat(batches).numpy(), images.transpose(0, 3, 1, 2))
    assert np.array_equal(torch.cat(list(found.batches(size))), torch.cat(batches))  # once more


@pytest.mark.parametrize("form", ["npz", "npy", "folder"])
def test_grey_sets_are_grey(form, tmp_path):
    images = pixels(channels=1)
    if form == "folder":
        path = write_folder(tmp_path / "grey", images)
    else:
        path = tmp_path / f"x.{form}"
        (np.save if form == "npy" else np.savez)(path, images[:, :, :, 0])
    found = open_set(path)
    assert found.shape == (1, 6, 6)
    assert np.array_equal(torch.cat(list(found.batches(4)))[:, 0], images[:, :, :, 0])


def test_images_of_17_grey_levels_are_measured_as_they_are_written():
    source = MemoryImages(torch.randint(0, 17, (5, 1, 8, 8), dtype=torch.uint8), 17)
    (batch,) = SourceSet(source).batches(9)
    assert np.array_equal(batch.numpy(), np.round(source.images.numpy() * (255 / 16)))


def test_some_of_a_set_are_seeded_and_spread_over_it(tmp_path):
    np.savez(tmp_path / "x.npz", np.arange(100, dtype=np.uint8).repeat(12).reshape(100, 2, 2, 3))
    whole = open_set(tmp_path / "x.npz")

    def numbers(seed, size=7):
        return torch.cat(list(SomeOf(whole, 30, seed).batches(size)))[:, 0, 0, 0].tolist()

    assert len(set(numbers(0))) == 30
    assert numbers(0) == numbers(0, 100) != numbers(1)
    assert max(numbers(0)) > 60 > 40 > min(numbers(0))
    with pytest.raises(DdpmError, match="has 100 images, and 101"):
        SomeOf(whole, 101)


def test_a_large_array_is_read_in_memory_of_a_batch(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", np.zeros((2000, 64, 64, 3), np.uint8))
    gc.collect()
    tracemalloc.start()
    count = sum(len(batch) for batch in open_set(tmp_path / "x.npz").batches(10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2000
    assert peak < 5e6  # of 24.6e6 bytes


def odd_size(folder):
    write_folder(folder, pixels())
    Image.fromarray(pixels(1, 7)[0]).save(folder / "larger.png")
    return folder


def turned(folder):
    """A picture that is as large as the others only as it is stored."""
    write_folder(folder, pixels(2, 6))
    picture, exif = Image.fromarray(pixels(1, 8)[0][:6]), Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.png", exif=exif)
    return folder


def cut_off(folder):
    write_folder(folder, pixels(side=40))
    path = folder / "003.png"
    path.write_bytes(path.read_bytes()[:200])
    return folder


def damaged(path, images):
    np.savez(path, images)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    return path


def shortened(path):
    np.savez(path, pixels())
    path.write_bytes(path.read_bytes()[:-100])
    return path


def animated(folder):
    write_folder(folder, pixels())
    frames = [Image.fromarray(x) for x in pixels(2)]
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])
    return folder


def two_splits(folder):
    write_folder(folder / "train", pixels())
    write_folder(folder / "test", pixels())
    return folder


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


REFUSED = {
    "nothing there": (lambda p: p / "none", "does not exist"),
    "an empty folder": (lambda p: p, "no images"),
    "two sizes": (lambda p: odd_size(p / "s"), "2 sizes"),
    "one turned": (lambda p: turned(p / "s"), "2 sizes"),
    "a broken one": (lambda p: cut_off(p / "s"), "003.png"),
    "an animation": (lambda p: animated(p / "s"), "several frames"),
    "training and held-out images": (lambda p: two_splits(p / "s"), "one split"),
    "floats": (lambda p: npz(p / "x.npz", a=np.zeros((4, 8, 8, 3))), "float64"),
    "one image": (lambda p: npz(p / "x.npz", a=np.zeros((8, 8, 3), np.uint8)), "no images"),
    "no images": (lambda p: npz(p / "x.npz", a=np.zeros((0, 8, 8, 3), np.uint8)), "no images"),
    "two unnamed": (
        lambda p: npz(p / "x.npz", a=pixels(), b=pixels()),
        "several arrays",
    ),
    "objects": (lambda p: npz(p / "x.npz", a=np.array([{}, []], dtype=object)), "no images"),
    "a damaged npz": (lambda p: damaged(p / "x.npz", pixels(50)), "x.npz"),
    "a cut off npz": (lambda p: shortened(p / "x.npz"), "x.npz"),
    "text called npz": (lambda p: (p / "x.npz").write_text("hello") and p / "x.npz", "x.npz"),
    "text called npy": (lambda p: (p / "x.npy").write_text("hello") and p / "x.npy", "x.npy"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_refused_in_a_sentence(name, tmp_path):
    make, words = REFUSED[name]
    with pytest.raises(DdpmError, match=words):
        list(open_set(make(tmp_path)).batches(4))


def test_what_changes_figures_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ddpm")
    folder = write_folder(tmp_path / "s", pixels(3))
    write_folder(folder / "b", pixels(2), "jpg")
    Image.fromarray(pixels(1)[0][:, :, 0]).save(folder / "grey.png")
    Image.fromarray(pixels(1, channels=4)[0]).save(folder / "clear.png")
    (folder / "notes.txt").write_text("x")
    found = open_set(folder)
    assert sum(map(len, found.batches(3))) == 7
    told = caplog.text
    assert "7 images; left out 1: 1 other files" in told
    assert "1 of 7 images in s are grey" in told
    assert "2 of 7 images in s are of forms that may have lost detail (JPEG)" in told
    assert "1 of 7 images in s are no plain 8-bit colours" in told
    assert "clear.png (transparency)" in told


# -- features ------------------------------------------------------------------------------------


def test_pixels_are_scaled_to_minus_1_and_1():
    found = get_features("pixels", (1, 2, 2))
    vectors = found(torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)).vectors
    np.testing.assert_allclose(vectors, [[-1, 1, -0.6, -0.2]], atol=1e-6)
    assert found.size == 4


def test_the_classifiers_features_are_its_last_layer_and_its_classes(monkeypatch):
    network = small_classifier()
    monkeypatch.setattr("ddpm.evaluation.features.trained_classifier", lambda: network)
    images = torch.from_numpy(pixels(4, 32).transpose(0, 3, 1, 2).copy())
    found = get_features("cifar10", (3, 32, 32))(images)
    x = images.float() / 127.5 - 1
    np.testing.assert_allclose(found.vectors, network.features(x).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, network(x).softmax(1).numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("cifar10", shape) for shape in ((1, 32, 32), (3, 16, 16), (3, 32, 31), (4, 32, 32))),
        *(("inception", shape) for shape in ((1, 64, 64), (4, 64, 64), (2, 8, 8))),
        ("vgg", (3, 32, 32)),
    ],
)
def test_images_without_such_features_are_refused(name, shape):
    with pytest.raises(DdpmError):
        check_features(name, shape)


def test_inception_is_called_as_the_published_file_is(tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.evaluation.inception.SIZE", 16)
    path, network = save_script(SmallInception(), tmp_path / "i.pt"), SmallInception()
    images = torch.from_numpy(pixels(5, 9).transpose(0, 3, 1, 2).copy())
    found = get_features("inception", (3, 9, 9), inception=path)(images)
    with torch.no_grad():
        expected = network(images, return_features=True), network(images, no_output_bias=True)
    np.testing.assert_allclose(found.vectors, expected[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.probabilities, expected[1].numpy(), rtol=1e-5)


def test_inception_is_found_by_path_by_the_environment_and_in_torchs_cache(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "hub" / "checkpoints" / NAME
    for path in (cached, tmp_path / "named.pt", tmp_path / "other.pt"):
        with pytest.raises(DdpmError, match=r"https://.*inception-2015-12-05.pt"):
            find_inception(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert find_inception() == cached
    monkeypatch.setenv(VARIABLE, str(tmp_path / "named.pt"))
    assert find_inception() == tmp_path / "named.pt"
    assert find_inception(tmp_path / "other.pt") == tmp_path / "other.pt"


NETWORKS = {
    "no TorchScript": lambda p: p.write_bytes(b"hello" * 99),
    "an empty file": lambda p: p.touch(),
    "a pickle": lambda p: torch.save({"a": torch.zeros(3)}, p),
    "an archive of other things": lambda p: write_zip(p, pixels(2)),
    "another signature": lambda p: save_script(OneArgument(), p),
    "other features": lambda p: save_script(SmallInception(17), p),
    "no probabilities": lambda p: save_script(NoProbabilities(), p),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_another_file_than_inceptions_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.evaluation.inception.SIZE", 16)
    NETWORKS[name](tmp_path / "i.pt")
    with pytest.raises(DdpmError, match=r"inception-2015-12-05\.pt"):
        get_features("inception", (3, 8, 8), inception=tmp_path / "i.pt")


def test_only_inceptions_distances_have_the_fields_names():
    measures = ("frechet", "kernel", "score", "precision", "recall", "known")
    names = {f: [measure_name(m, f, 49_984) for m in measures] for f in ("cifar10", "pixels")}
    for feature, found in names.items():
        assert all(feature in name and name.endswith("_49984") for name in found)
        assert not any("fid" in name or "kid" in name or "inception" in name for name in found)
    assert measure_name("frechet", "inception", 50_000) == "fid_50000"
    assert measure_name("kernel", "inception", 999) == "kid_999"
    assert measure_name("score", "inception", 7) == "inception_score_7"


# -- one pass over a set -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_measured_set_has_the_features_of_every_image(size, tmp_path):
    images = pixels(13, 4)
    np.savez(tmp_path / "x.npz", images)
    features = get_features("pixels", (3, 4, 4))
    with disk() as room:
        found = measure(open_set(tmp_path / "x.npz"), features, room, batch_size=size)
        folder = room.folder
        expected = features(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).vectors
        assert found.count == len(found.vectors) == 13
        assert np.array_equal(found.vectors, expected)
        assert list(folder.iterdir())
    np.testing.assert_allclose(found.statistics.sigma, np.cov(expected.T.astype(float)), atol=1e-12)
    assert not folder.exists()


def test_the_room_on_disk_is_given_back_after_an_error_too(tmp_path):
    folder = cut_off(tmp_path / "s")
    found = open_set(folder)
    with pytest.raises(DdpmError, match="003"), disk() as room:
        measure(found, get_features("pixels", found.shape), room)
    assert not room.folder.exists()


def test_a_single_image_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", pixels(1))
    with disk() as room, pytest.raises(DdpmError, match="1 image;"):
        measure(open_set(tmp_path / "x.npz"), get_features("pixels", (3, 6, 6)), room)


def test_pixels_of_large_images_are_compared_without_their_covariance(tmp_path):
    for seed in (0, 1):
        np.savez(tmp_path / f"{seed}.npz", pixels(9, 64, seed=seed))  # 12,288 numbers
    features = get_features("pixels", (3, 64, 64))
    with disk() as room:
        a, b = (measure(open_set(tmp_path / f"{s}.npz"), features, room) for s in (0, 1))
        assert a.statistics is None
        x, y = (np.array(z.vectors, dtype=float) for z in (a, b))
        found = compare(a, b)[0]
        with pytest.raises(DdpmError, match="too large"):
            write_statistics(tmp_path / "s.npz", a)
    mean = ((x.mean(0) - y.mean(0)) ** 2).sum()
    x, y = ((z - z.mean(0)) / np.sqrt(8) for z in (x, y))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    assert found.name == "frechet_pixels_9"
    assert found.value == pytest.approx(mean + (x**2).sum() + (y**2).sum() - 2 * cross, rel=1e-6)


# -- statistics files ----------------------------------------------------------------------------


def measured_pixels(tmp_path, room, n=20):
    np.savez(tmp_path / "x.npz", pixels(n, 2))
    return measure(open_set(tmp_path / "x.npz"), get_features("pixels", (3, 2, 2)), room)


def test_a_statistics_file_says_all_that_it_is_of(tmp_path):
    path = tmp_path / "s.npz"
    with disk() as room:
        found = measured_pixels(tmp_path, room)
        write_statistics(path, found, split="train", vectors=found.vectors[:5])
        vectors = np.array(found.vectors[:5])
    again = read_statistics(path, "pixels", 12)
    assert np.array_equal(again.statistics.mu, found.statistics.mu)
    assert np.array_equal(again.statistics.sigma, found.statistics.sigma)
    assert (again.name, again.count) == ("x.npz", 20)
    np.testing.assert_allclose(again.vectors, vectors, atol=1e-3)
    with np.load(path) as arrays:  # as other programs read it
        assert {"mu", "sigma", "about"} <= set(arrays.files)
        about = json.loads(str(arrays["about"]))
    assert about.items() >= {"features": "pixels", "split": "train", "count": 20}.items()
    assert "version" in about
    assert is_statistics(path)
    assert not is_statistics(tmp_path / "x.npz")


def test_files_of_pytorch_fid_are_read_and_said_to_say_nothing(tmp_path, caplog):
    expected = statistics_of(np.random.default_rng(0).normal(size=(40, 16)))
    np.savez(tmp_path / "s.npz", mu=expected.mu, sigma=expected.sigma)
    found = read_statistics(tmp_path / "s.npz", "inception", 16)
    assert np.array_equal(found.statistics.sigma, expected.sigma)
    assert (found.count, found.vectors, found.score) == (None, None, None)
    assert "does not say" in caplog.text


def one_number(array, value):
    array = array.copy()
    array.flat[1] = value
    return array


GOOD = statistics_of(np.random.default_rng(0).normal(size=(40, 12)))
MU, SIGMA = GOOD.mu, GOOD.sigma
WRONG = {
    "no sigma": ({"mu": MU}, "no sigma"),
    "nothing": ({}, "no mu and no sigma"),
    "nan": ({"mu": one_number(MU, np.nan), "sigma": SIGMA}, "finite"),
    "inf": ({"mu": MU, "sigma": one_number(SIGMA, np.inf)}, "finite"),
    "other size": ({"mu": MU[:5], "sigma": SIGMA[:5, :5]}, "12 numbers"),
    "sizes that differ": ({"mu": MU, "sigma": SIGMA[:5, :5]}, "shape"),
    "a vector": ({"mu": MU, "sigma": SIGMA[0]}, "shape"),
    "not symmetric": ({"mu": MU, "sigma": one_number(SIGMA, 9)}, "symmetric"),
    "whole numbers": ({"mu": MU.astype(int), "sigma": SIGMA}, "real numbers"),
    "complex": ({"mu": MU, "sigma": SIGMA.astype(complex)}, "real numbers"),
    "objects": ({"mu": np.array([None] * 12), "sigma": SIGMA}, "cannot be read"),
    "other features": (
        {"mu": MU, "sigma": SIGMA, "about": np.array('{"features": "inception"}')},
        "features inception",
    ),
    "a damaged description": ({"mu": MU, "sigma": SIGMA, "about": np.array("{")}, "damaged"),
    "a description of another kind": ({"mu": MU, "sigma": SIGMA, "about": np.ones(3)}, "damaged"),
    "a count that is none": (
        {"mu": MU, "sigma": SIGMA, "about": np.array('{"features": "pixels", "count": -1}')},
        "count",
    ),
    "vectors of another size": ({"mu": MU, "sigma": SIGMA, "vectors": np.ones((3, 5))}, "vectors"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_wrong_is_refused(name, tmp_path):
    arrays, words = WRONG[name]
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(DdpmError, match=words) as raised:
        read_statistics(tmp_path / "s.npz", "pixels", 12)
    assert "s.npz" in str(raised.value)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "npy", "empty"])
def test_a_damaged_file_is_refused(damage, tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, mu=MU, sigma=SIGMA)
    data = bytearray(path.read_bytes())
    if damage == "npy":
        np.save(tmp_path / "x.npy", MU)
        data = bytearray((tmp_path / "x.npy").read_bytes())
    elif damage == "flipped":
        data[len(data) // 2] ^= 255
    else:
        data = {"cut": data[:-300], "text": b"hello", "empty": b""}[damage]
    path.write_bytes(data)
    with pytest.raises(DdpmError, match=r"s\.npz"):
        read_statistics(path, "pixels", 12)
