"""`ddpm evaluate --features`: every way to name what is compared; mistakes are a sentence each."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import SmallInception, save_script, small_classifier

from ddpm.cli import main
from ddpm.cli.references import CIFAR10_MEANS
from ddpm.data.images import ImageFormat
from ddpm.evaluation import (
    classifier_score,
    disk,
    frechet_distance,
    get_features,
    kernel_distance,
    measure,
    open_set,
    precision_recall,
    write_statistics,
)
from ddpm.evaluation.statistics_file import SHIPPED
from ddpm.model import Ddpm
from ddpm.networks.unet import UNet
from helpers import checkpoint_path, tiny_config
from mistakes import everything_below, refused

pytestmark = pytest.mark.slow  # many members


def pictures(n, side=32, channels=3, seed=0):
    """Pictures of few colours, [n, h, w, c], whose mean colours are CIFAR-10's."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(n, side // 4, side // 4, channels)) * 40
    rough -= rough.mean((0, 1, 2))
    smooth = rough.repeat(4, 1).repeat(4, 2) + np.array(CIFAR10_MEANS)[:channels]
    return smooth.round().clip(0, 255).astype(np.uint8)


def model_of(folder, side, channels):
    """A run whose random network draws pictures of a size."""
    config = tiny_config(channels=channels, timesteps=4)
    image_format = ImageFormat(channels, side, side, 256)
    torch.manual_seed(0)
    network = config.build_network(image_format.shape)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.2)
    Ddpm(config, image_format, network).save(checkpoint_path(folder, 1))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Models, sets and networks that all tests share and none changes."""
    folder = tmp_path_factory.mktemp("place")
    model_of(folder / "run", 32, 3)
    model_of(folder / "grey", 32, 1)
    model_of(folder / "small", 8, 3)
    for name, n, seed in (("a", 120, 0), ("b", 110, 1)):
        np.savez(folder / f"{name}.npz", pictures(n, seed=seed))
    for split, n in (("train", 30), ("test", 20)):
        (folder / "own" / split).mkdir(parents=True)
        for i, pixels in enumerate(pictures(n, seed=n)):
            Image.fromarray(pixels).save(folder / "own" / split / f"{i:03d}.png")
    (folder / "few").mkdir()
    Image.fromarray(pictures(1)[0]).save(folder / "few" / "0.png")
    np.savez(folder / "grey.npz", pictures(9, channels=1))
    np.savez(folder / "eight.npz", pictures(9, 8))
    np.savez(folder / "nan.npz", mu=np.full(16, np.nan), sigma=np.eye(16))
    save_script(SmallInception(), folder / "i.pt")
    return folder


@pytest.fixture(autouse=True)
def _stand_ins(place, monkeypatch):
    """Small networks, and statistics of theirs in place of those that ship."""
    network = small_classifier()
    monkeypatch.setattr("ddpm.evaluation.features.trained_classifier", lambda: network)
    monkeypatch.setattr("ddpm.evaluation.inception.SIZE", 16)
    monkeypatch.setattr("ddpm.evaluation.features.SIZE", 16)
    for split in ("train", "test"):
        path = place / "own" / f"cifar10-{split}.npz"
        if not path.exists():
            with disk() as room:
                images = open_set(place / "own" / split)
                found = measure(images, get_features("cifar10", images.shape), room)
                write_statistics(path, found, split=split, vectors=found.vectors[:15])
        monkeypatch.setitem(SHIPPED, split, path)
    for name in ("DDPM_INCEPTION", "DDPM_CIFAR10"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    monkeypatch.chdir(place)


def evaluate(out, *arguments):
    """The document of a result."""
    assert main(["evaluate", *map(str, arguments), "--out", str(out)]) == 0
    (path,) = out.glob("*.json")
    return json.loads(path.read_text())


def seen(images, kind):
    """Features and probabilities of pictures [n, h, w, c], all at once."""
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    found = get_features(kind, tuple(x.shape[1:]), inception="i.pt")(x)
    return found.vectors, found.probabilities


# -- the figures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("pixels", ("frechet_pixels_120", "kernel_distance_pixels_120", "precision_pixels_110")),
        (
            "cifar10",
            ("frechet_cifar10_120", "kernel_distance_cifar10_120", "precision_cifar10_110"),
        ),
        ("inception", ("fid_120", "kid_120", "precision_inception_110")),
    ],
)
@pytest.mark.parametrize("size", [50, 500])
def test_the_figures_are_those_of_the_features_of_all_images(kind, names, size, tmp_path):
    options = ["--features", kind, "--reference", "b.npz", "--batch-size", size]
    options += ["--inception", "i.pt"] if kind == "inception" else []
    found = evaluate(tmp_path, "a.npz", *options)["measures"]
    (x, p), (y, _) = seen(pictures(120), kind), seen(pictures(110, seed=1), kind)
    assert found[names[0]]["value"] == pytest.approx(frechet_distance(x, y), rel=1e-4)
    assert found[names[1]]["value"] == pytest.approx(kernel_distance(x, y).value, rel=1e-4)
    chosen = np.sort(np.random.default_rng(0).choice(120, 110, replace=False))
    expected = precision_recall(y, x[chosen])
    recall = names[2].replace("precision", "recall")
    assert (found[names[2]]["value"], found[recall]["value"]) == pytest.approx(expected, abs=0.02)
    if p is not None:
        name = "inception_score_120" if kind == "inception" else "classifier_score_cifar10_120"
        assert found[name]["value"] == pytest.approx(classifier_score(p).value, rel=1e-4)
        assert found[name]["splits"] == 1
    assert ("known_cifar10_120" in found) == (kind == "cifar10")


def test_fid_is_short_for_inception_and_the_file_may_come_from_the_environment(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("DDPM_INCEPTION", "i.pt")
    short = evaluate(tmp_path / "a", "a.npz", "--fid", "--reference", "b.npz")
    options = ["--features", "inception", "--inception", "i.pt"]
    assert evaluate(tmp_path / "b", "a.npz", *options, "--reference", "b.npz") == short
    assert "fid_120" in short["measures"]


def test_samples_of_a_run_are_drawn_once_and_measured_like_any_folder(tmp_path, monkeypatch):
    options = ["--features", "cifar10", "--samples", 9, "--batch-size", 4]
    drawn = evaluate(tmp_path / "e", "run", *options)
    (folder,) = (tmp_path / "e").glob("samples-*")
    assert len(list(folder.glob("*.png"))) == 9
    assert drawn["reference"].items() >= {"given": "cifar10-train", "count": 30}.items()
    assert drawn.items() >= {"samples": 9, "calls": 4, "sampler": "ancestral", "seed": 0}.items()
    assert {"model", "plan", "precision", "step", "ddpm"} <= set(drawn)
    assert "known_cifar10_9" in drawn["measures"]
    assert drawn["measures"]["known_cifar10_9"]["reference"] == drawn["reference"]["score"]["known"]
    options = ["--features", "cifar10", "--reference", "cifar10-train"]
    there = evaluate(tmp_path / "f", folder, *options)
    assert there["measures"].keys() == drawn["measures"].keys()
    for key, figure in there["measures"].items():
        assert figure["value"] == pytest.approx(drawn["measures"][key]["value"], rel=1e-4), key
    assert there["model"] == drawn["model"]  # the set says how it was made
    with monkeypatch.context() as patch:
        patch.setattr(UNet, "forward", lambda *_, **__: pytest.fail("drawn anew"))
        options = ["--features", "cifar10", "--samples", 9, "--batch-size", 4]
        assert evaluate(tmp_path / "e", "run", *options) == drawn
    assert (
        main(["evaluate", "run", *map(str, options[:3]), "11", "--out", str(tmp_path / "e")]) == 0
    )
    assert len(list(folder.glob("*.png"))) == 11


@pytest.mark.parametrize("name", ["train", "test"])
def test_the_runs_own_images_are_a_reference(name, tmp_path):
    options = ["--features", "pixels", "--samples", 8, "--data", "own", "--reference", name]
    found = evaluate(tmp_path, "run", *options)
    assert found["reference"]["count"] == {"train": 30, "test": 20}[name]
    assert found["reference"]["split"] == name


def test_cifar10s_images_may_lie_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_CIFAR10", "own")
    options = ["--features", "pixels", "--reference", "cifar10-test"]
    found = evaluate(tmp_path / "a", "a.npz", *options)
    assert found["reference"]["count"] == 20
    found = evaluate(tmp_path / "b", "cifar10-train", *options)  # as what is measured too
    assert found["samples"] == 30


def test_statistics_are_written_and_compared_with(tmp_path, capsys):
    path = tmp_path / "b-stats.npz"
    options = ["--features", "cifar10", "--write-statistics", path]
    evaluate(tmp_path / "s", "b.npz", *options)
    plain = evaluate(tmp_path / "a", "a.npz", "--features", "cifar10", "--reference", "b.npz")
    capsys.readouterr()
    found = evaluate(tmp_path / "f", "a.npz", "--features", "cifar10", "--reference", path)
    name = "frechet_cifar10_120"
    assert found["measures"][name] == pytest.approx(plain["measures"][name])
    assert found["reference"]["count"] == 110
    assert "give --reference the images" in capsys.readouterr().out
    assert not any("kernel" in name or "recall" in name for name in found["measures"])
    refused(["evaluate", "a.npz", "--features", "pixels", "--reference", path], capsys, "cifar10")


def test_files_of_others_give_a_fid_and_say_nothing_of_themselves(tmp_path, capsys, caplog):
    y, _ = seen(pictures(110, seed=1), "inception")
    np.savez(tmp_path / "theirs.npz", mu=y.mean(0), sigma=np.cov(y.T.astype(float)))
    options = ["--fid", "--inception", "i.pt", "--reference", tmp_path / "theirs.npz"]
    found = evaluate(tmp_path / "e", "a.npz", *options)
    x, _ = seen(pictures(120), "inception")
    assert found["measures"]["fid_120"]["value"] == pytest.approx(frechet_distance(x, y), rel=1e-4)
    assert found["reference"]["count"] is None
    assert "does not say" in caplog.text
    assert "unknown number" in capsys.readouterr().out


def test_a_part_of_a_set_is_named_by_its_number(tmp_path):
    options = ["--features", "pixels", "--reference", "b.npz", "--samples", 50]
    assert "frechet_pixels_50" in evaluate(tmp_path, "a.npz", *options)["measures"]


def test_few_samples_and_a_set_beside_itself_are_warned_of(tmp_path, caplog):
    evaluate(tmp_path, "a.npz", "--features", "pixels", "--reference", "a.npz")
    assert "120 samples are fewer than 10,000" in caplog.text
    assert "are they one set?" in caplog.text
    caplog.clear()
    evaluate(tmp_path / "b", "a.npz", "--features", "pixels", "--reference", "b.npz")
    assert "one set" not in caplog.text


def test_nothing_is_left_on_disk(tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "room"))
    evaluate(tmp_path / "e", "a.npz", "--features", "pixels", "--reference", "b.npz")
    assert not os.listdir(tmp_path / "room")


# -- mistakes ------------------------------------------------------------------------------------

PIXELS, CIFAR10 = ["--features", "pixels"], ["--features", "cifar10"]
B, FID = ["--reference", "b.npz"], ["--fid", "--inception", "i.pt"]
MISTAKES = {
    "no inception": (["run", "--fid"], ["inception-2015-12-05.pt", "https://", "--inception"]),
    "no such inception": (["run", "--fid", "--inception", "none.pt"], ["none.pt", "https://"]),
    "another inception": (["a.npz", "--fid", "--inception", "b.npz", *B], ["b.npz"]),
    "grey with inception": (["grey", *FID], ["RGB", "1 channel"]),
    "grey with cifar10": (["grey", *CIFAR10], ["32x32"]),
    "grey set with inception": (["grey.npz", *FID, *B], ["RGB"]),
    "small with cifar10": (["small", *CIFAR10], ["8x8"]),
    "one sample": (["run", *PIXELS, "--samples", 1], ["--samples", "2"]),
    "one image": (["few", *PIXELS, *B], ["at least 2"]),
    "one image of the reference": (["a.npz", *PIXELS, "--reference", "few"], ["at least 2"]),
    "more than there are": (["a.npz", *PIXELS, *B, "--samples", 121], ["120", "121"]),
    "other sizes": (["eight.npz", *PIXELS, *B], ["(3, 8, 8)", "(3, 32, 32)"]),
    "other sizes of a run": (["small", *PIXELS, *B], ["(3, 8, 8)", "(3, 32, 32)"]),
    "other colours": (["a.npz", *PIXELS, "--reference", "grey.npz"], ["(1, 32, 32)"]),
    "statistics with nan": (["a.npz", *FID, "--reference", "nan.npz"], ["nan.npz", "finite"]),
    "statistics of other features": (
        ["a.npz", *PIXELS, "--reference", "own/cifar10-train.npz"],
        ["cifar10"],
    ),
    "statistics as samples": (["nan.npz", *PIXELS, *B], ["nan.npz"]),
    "no reference": (["a.npz", *PIXELS], ["--reference"]),
    "no such reference": (["a.npz", *PIXELS, "--reference", "tain"], ["tain"]),
    "a run's images of no run": (["a.npz", *PIXELS, "--reference", "train"], ["train"]),
    "a run without its images": (["run", *PIXELS, "--data", "none"], ["none"]),
    "cifar10 nowhere": (["a.npz", *PIXELS, "--reference", "cifar10-train"], ["DDPM_CIFAR10"]),
    "cifar10 nowhere to measure": (["cifar10-test", *PIXELS, *B], ["DDPM_CIFAR10"]),
    "two features": (["run", "--fid", *PIXELS], ["--fid"]),
    "no such features": (["run", "--features", "vgg"], ["vgg"]),
    "no features": (["run", "--bpd", "--samples", 9], ["--samples", "--features"]),
    "a reference without features": (["run", "--bpd", *B], ["--reference", "--features"]),
    "inception of pixels": (["a.npz", *PIXELS, *B, "--inception", "i.pt"], ["--inception"]),
    "a sampler of a set": (["a.npz", *PIXELS, *B, "--sampler", "ddim"], ["--sampler"]),
    "steps of a set": (["a.npz", *PIXELS, *B, "--steps", 3], ["--steps"]),
    "data of a set": (["a.npz", *PIXELS, *B, "--data", "own"], ["--data"]),
    "bits of a set": (["a.npz", "--bpd", *PIXELS, *B], ["--bpd", "model"]),
    "eta without ddim": (["run", *PIXELS, "--eta", 1], ["ddim"]),
    "a split": (["run", *PIXELS, "--split", "train"], ["--reference"]),
    "statistics elsewhere": (["a.npz", *PIXELS, "--write-statistics", "s.txt"], [".npz"]),
    "statistics that are there": (["a.npz", *PIXELS, "--write-statistics", "b.npz"], ["b.npz"]),
    "the option of old": (["run", "--frechet", 1000], ["--features pixels --samples 1000"]),
    "nothing there": (["none", *PIXELS, *B], ["none"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_sentence_and_leaves_nothing(name, capsys, tmp_path, monkeypatch, place):
    monkeypatch.setattr(UNet, "forward", lambda *_, **__: pytest.fail("worked in vain"))
    arguments, words = MISTAKES[name]
    before = everything_below(place)
    refused(["evaluate", *arguments, "--out", tmp_path / "e"], capsys, *words)
    assert everything_below(place) == before
    assert not list(tmp_path.glob("e/*"))


def test_another_set_under_the_name_of_cifar10_is_refused(capsys, monkeypatch, tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i in range(4):
            Image.new("RGB", (32, 32), (200, 30, i)).save(tmp_path / split / f"{i}.png")
    monkeypatch.setenv("DDPM_CIFAR10", str(tmp_path))
    options = [*PIXELS, "--reference", "cifar10-train", "--out", tmp_path / "e"]
    refused(["evaluate", "a.npz", *options], capsys, "not CIFAR-10's")


def test_several_processes_are_told_how_to_draw_instead(capsys, monkeypatch):
    monkeypatch.setattr("ddpm.runtime.parallel.size", lambda: 2)
    refused(["evaluate", "run", *PIXELS], capsys, "torchrun", "one")


def test_a_part_of_cifar10_has_not_the_name_of_its_splits(tmp_path, monkeypatch):
    """The run's own images have its colours, but are thirty."""
    monkeypatch.setenv("DDPM_CIFAR10", "a.npz")
    options = ["--features", "pixels", "--samples", 5, "--data", "own"]
    found = evaluate(tmp_path, "run", *options, "--reference", "cifar10-train")
    assert found["reference"]["count"] == 120


def test_statistics_say_their_split(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_CIFAR10", "own")
    for split in ("train", "test"):
        file = tmp_path / f"{split}.npz"
        words = ["evaluate", f"cifar10-{split}", "--features", "pixels", "--write-statistics", file]
        assert main([*map(str, words), "--out", str(tmp_path)]) == 0
        with np.load(file) as arrays:
            assert json.loads(str(arrays["about"]))["split"] == split


@pytest.mark.parametrize("where", ["/proc/no/x.npz", "a.npz/y.npz"])
def test_statistics_that_cannot_be_written_are_told_before_the_work(where, capsys, monkeypatch):
    monkeypatch.setattr(UNet, "forward", lambda *_, **__: pytest.fail("drawn in vain"))
    words = ["evaluate", "run", "--features", "pixels", "--samples", "5", "--data", "own"]
    refused([*words, "--write-statistics", where], capsys, "cannot write")


def test_data_without_effect_are_refused(capsys, tmp_path):
    words = ["evaluate", "run", "--features", "cifar10", "--samples", "5", "--out", tmp_path]
    refused([*words, "--data", "own"], capsys, "--data")


def test_too_few_images_for_precision_and_recall_are_told(tmp_path, caplog):
    found = evaluate(tmp_path, "run", "--features", "pixels", "--samples", 3, "--data", "own")
    assert "precision and recall need at least 4" in caplog.text
    assert not any("precision" in name for name in found["measures"])


def test_a_reference_of_few_images_is_told(tmp_path, caplog):
    evaluate(tmp_path, "a.npz", "--features", "pixels", "--reference", "b.npz")
    assert "the reference has 110 images" in caplog.text


def test_more_pixels_than_a_covariance_has_room_for_are_compared_with_some(
    tmp_path, caplog, monkeypatch
):
    for module in ("cli.quality", "cli.references", "evaluation.quality", "evaluation.measured"):
        monkeypatch.setattr(f"ddpm.{module}.DENSE", 100)
    for module in ("cli.references", "evaluation.frechet"):
        monkeypatch.setattr(f"ddpm.{module}.LIMIT", 100)
    found = evaluate(
        tmp_path, "b.npz", "--samples", 90, "--features", "pixels", "--reference", "a.npz"
    )
    assert found["reference"]["count"] == 100
    assert "seeded choice of 100" in caplog.text


@pytest.mark.parametrize("name", ["set[/b]", "ref[final]", "x[red]y"])
def test_names_with_brackets_are_names(name, tmp_path, capsys, place):
    path = tmp_path / f"{name.replace('/', '')}.npz"
    np.savez(path, pictures(12))
    evaluate(tmp_path / "out", "a.npz", "--features", "pixels", "--reference", path)
    assert path.name in "".join(capsys.readouterr().out.split())
