"""Measures as a user asks for them: refused before the work, kept apart, readable by everybody."""

import csv
import json
import math
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from ddpm.cli import main
from ddpm.cli.reproduce_table2 import TABLE2
from ddpm.data.images import ImageFormat
from ddpm.model import Ddpm
from ddpm.networks.unet import UNet
from ddpm.runs.folder import RunFolder
from ddpm.runs.history import History
from ddpm.runs.log import RunLog
from helpers import checkpoint_path, measured_model, tiny_config, tiny_model
from mistakes import everything_below, refused

pytestmark = pytest.mark.slow  # many members


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The file of a measured model of the digits."""
    path = checkpoint_path(tmp_path_factory.mktemp("trained"), 3)
    measured_model().save(path)
    return path.read_bytes()


@pytest.fixture
def run(trained, tmp_path):
    """A run with that model, which was trained on the embedded digits."""
    path = checkpoint_path(tmp_path / "run", 3)
    path.parent.mkdir(parents=True)
    path.write_bytes(trained)
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def _quick_plots(monkeypatch):
    """Curves are drawn elsewhere in the tests; here a file of the name will do."""
    blank = Image.new("L", (2, 2))
    monkeypatch.setattr("ddpm.cli.results.rate_distortion_plot", lambda bound: blank)


@pytest.fixture
def no_call(monkeypatch):
    """The network must not be asked."""
    monkeypatch.setattr(UNet, "forward", lambda *_, **__: pytest.fail("worked in vain"))


def pictures(folder, n, side=8):
    """`n` grey pictures of a few grey levels that a model of 17 has too."""
    folder.mkdir(parents=True)
    for i in range(n):
        rng = np.random.default_rng(i)
        values = np.round(rng.integers(0, 17, (side, side)) * (255 / 16)).astype(np.uint8)
        Image.fromarray(values).save(folder / f"{i}.png")


def own_images(folder, train, test, side=8):
    """A set of one's own."""
    pictures(folder / "train", train, side)
    pictures(folder / "test", test, side)
    return folder


def untrained(folder, side):
    """A run whose model takes grey images of 256 levels and of a size."""
    config = tiny_config()
    image_format = ImageFormat(1, side, side, 256)
    model = Ddpm(config, image_format, config.build_network(image_format.shape), history=History())
    model.save(checkpoint_path(folder, 1))
    return folder


# -- what cannot be done is refused before the work ----------------------------------------------

FOUR = ["--features", "pixels", "--samples", "4"]
FRECHET = {
    "no samples": (["--features", "pixels", "--samples", "0"], 4, 4),
    "less than none": (["--features", "pixels", "--samples", "-5"], 4, 4),
    "one sample": (["--features", "pixels", "--samples", "1"], 4, 4),
    "some images of the reference": ([*FOUR, "--images", "1"], 4, 4),
    "one held-out image": ([*FOUR, "--reference", "test"], 4, 1),
    "one training image": (FOUR, 1, 4),
    "a split that is a reference": ([*FOUR, "--split", "train"], 4, 4),
    "no such sampler": ([*FOUR, "--sampler", "euler"], 4, 4),
    "too many steps": ([*FOUR, "--steps", "21"], 4, 4),
    "the option of old": (["--frechet", "4"], 4, 4),
    "the same, written otherwise": (["--frechet=4", "--bpd"], 4, 4),
}


@pytest.mark.parametrize("name", FRECHET)
def test_a_frechet_distance_that_cannot_be_is_refused_before_sampling(
    name, capsys, no_call, tmp_path
):
    options, train, test = FRECHET[name]
    run = untrained(tmp_path / "run", 8)
    data = own_images(tmp_path / "own", train, test)
    before = everything_below(tmp_path)
    refused(["evaluate", run, "--data", data, *options], capsys)
    after = everything_below(tmp_path)
    assert {path: what for path, what in after.items() if path.name != "evaluation"} == before


@pytest.mark.parametrize("samples", ["100000", "100000000"])
def test_a_frechet_distance_beyond_the_limit_is_refused_before_sampling(
    samples, capsys, no_call, tmp_path
):
    run, data = untrained(tmp_path / "run", 512), own_images(tmp_path / "own", 3, 3, 512)
    options = ["--features", "pixels", "--samples", samples]
    sentence = refused(["evaluate", run, "--data", data, *options], capsys)
    assert any(letter.isdigit() for letter in sentence.replace(str(tmp_path), ""))
    assert not list(run.glob("evaluation/*"))


@pytest.mark.parametrize("option", ["--bpd", "--codec"])
def test_training_images_can_be_measured_otherwise(option, run, tmp_path):
    options = ["--split", "train", "--images", "2", "--out", str(tmp_path / "e")]
    assert main(["evaluate", str(run), option, *options]) == 0


# -- each result keeps its settings, and replaces only its like ----------------------------------

FEW = ["--images", "3", "--steps", "5"]
OTHERS = {
    "images": ["--images", "4", "--steps", "5"],
    "all images": ["--steps", "5"],
    "steps": ["--images", "3", "--steps", "6"],
    "all steps": ["--images", "3"],
    "seed": [*FEW, "--seed", "1"],
    "split": [*FEW, "--split", "train"],
    "trajectory": [*FEW, "--trajectory", "even"],
    "variance": [*FEW, "--variance", "fixed_small"],
    "both": [*FEW, "--trajectory", "quadratic", "--variance", "fixed_large"],
    "own timesteps": ["--images", "3", "--trajectory", "0", "1", "2", "3", "19"],
    "other own timesteps": ["--images", "3", "--trajectory", "0", "1", "2", "4", "19"],
    "precision": [*FEW, "--precision", "bf16"],
}


def evaluate(run, *options):
    assert main(["evaluate", *map(str, (run, *options))]) == 0


@pytest.mark.parametrize("name", OTHERS)
def test_other_settings_never_replace_a_result_and_the_same_ones_do(name, run):
    out = run / "evaluation"
    evaluate(run, "--bpd", *FEW)
    first = everything_below(out)
    evaluate(run, "--bpd", *OTHERS[name])
    both = everything_below(out)
    assert first.items() <= both.items()
    assert len(both) == 2 * len(first)
    evaluate(run, "--bpd", *OTHERS[name], "--batch-size", 2)  # which changes no figure
    assert set(everything_below(out)) == set(both)


def test_neither_do_those_of_other_images(run, tmp_path):
    data = own_images(tmp_path / "own", 3, 3)
    grey = untrained(tmp_path / "grey", 8)
    evaluate(grey, "--bpd", *FEW, "--data", data, "--out", tmp_path / "e")
    first = everything_below(tmp_path / "e")
    other = own_images(tmp_path / "others", 3, 4)
    evaluate(grey, "--bpd", *FEW, "--data", other, "--out", tmp_path / "e")
    assert first.items() <= everything_below(tmp_path / "e").items()


@pytest.mark.parametrize(
    "other",
    [["--seed", 1], ["--samples", 7], ["--sampler", "ddim"], ["--reference", "test"]],
    ids=["seed", "samples", "ddim", "reference"],
)
def test_nor_does_one_frechet_distance_replace_another(other, run):
    plain = [*FOUR, "--steps", 3]
    evaluate(run, *plain)
    first = everything_below(run / "evaluation")
    evaluate(run, *plain, *other)
    assert first.items() <= everything_below(run / "evaluation").items()
    evaluate(run, *plain)
    assert first.items() <= everything_below(run / "evaluation").items()


def test_many_timesteps_of_ones_own_still_make_a_file_name(tmp_path):
    tiny_model(timesteps=120).save(checkpoint_path(tmp_path / "run", 1))
    own = [0, *range(2, 120)]
    evaluate(tmp_path / "run", "--bpd", "--images", 1, "--trajectory", *own)
    assert any((tmp_path / "run" / "evaluation").iterdir())


# -- JSON that every reader takes, and figures that say what they are ----------------------------


def strict(text):
    """What a reader of JSON, and not of JavaScript, makes of a file."""

    def never(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=never)


VERBS = {
    "bpd of one image": ["--bpd", "--images", "1", "--steps", "4"],
    "bpd of two": ["--bpd", "--images", "2"],
    "bpd in one step": ["--bpd", "--images", "2", "--steps", "1"],
    "pixels of two": ["--features", "pixels", "--samples", "2", "--steps", "1"],
    "codec of one": ["--codec", "--images", "1", "--steps", "3"],
    "everything": ["--bpd", "--codec", *FOUR, "--images", "2", "--steps", "2"],
}


@pytest.mark.parametrize("name", VERBS)
def test_every_json_file_is_one(name, run, capsys):
    evaluate(run, *VERBS[name])
    found = list(run.rglob("*.json"))
    assert found
    for path in found:
        strict(path.read_text())
    said = capsys.readouterr().out.lower()
    assert "nan" not in said
    assert ("standard error" in said) == ("±" in said)


def test_so_is_the_table_of_variants(tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.cli.reproduce_table2.TABLE2", TABLE2[:1])
    monkeypatch.setattr("ddpm.cli.reproduce_table2.fit", lambda *_: True)
    monkeypatch.setattr("ddpm.cli.reproduce_table2.load", lambda _: measured_model())
    options = ["--samples", "16", "--images", "1", "--out", str(tmp_path)]
    assert main(["reproduce", "table2", *options]) == 0
    (row,) = strict((tmp_path / "table2.json").read_text())["rows"]
    assert row["standard_error"] is None
    assert row["bits_per_dim"] > 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_so_is_every_line_of_a_runs_log(value, tmp_path):
    log = RunLog(RunFolder(tmp_path), 0)
    log.write(5, loss=value, images_per_second=2.5)
    log.close()
    again = RunLog(RunFolder(tmp_path), 5)  # what is there is written anew
    again.close()
    (line,) = (tmp_path / "stats.jsonl").read_text().splitlines()
    assert strict(line) == {"step": 5, "loss": None, "images_per_second": 2.5}


def test_what_is_not_known_of_one_image_is_null(run):
    evaluate(run, "--bpd", "--images", 1, "--steps", 4)
    (path,) = (run / "evaluation").glob("*bpd*.json")
    document = strict(path.read_text())
    assert document["standard_error"] is None
    assert document["images"] == len(document["per_image"]) == 1


def test_the_standard_error_is_said_to_be_one(run, capsys):
    evaluate(run, "--bpd", "--images", 4, "--steps", 4)
    (path,) = (run / "evaluation").glob("*bpd*.json")
    document = strict(path.read_text())
    spread = np.std(document["per_image"], ddof=1) / math.sqrt(4)
    assert document["standard_error"] == pytest.approx(spread)
    said = capsys.readouterr().out
    assert f"{document['bits_per_dim']:.4f} ± {spread:.4f}" in said
    assert "standard error" in said
    (table,) = (run / "evaluation").glob("*.csv")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert float(rows[-1]["rate"]) == pytest.approx(document["bits_per_dim"])


def test_so_are_those_of_the_models_that_come_with_the_package():
    for card in files("ddpm.pretrained").iterdir():
        if card.name.endswith(".md") and "±" in card.read_text(encoding="utf-8"):
            assert "standard error" in card.read_text(encoding="utf-8")
