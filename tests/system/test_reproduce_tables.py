"""The paper's tables: its numbers, ours beside them, and nothing where nothing was measured."""

import json
import re
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from ddpm.cli import main
from ddpm.cli.bounds import BoundOptions, find_bound
from ddpm.cli.reproduce_table3 import row_of
from ddpm.data.digits import digits
from ddpm.data.images import ImageFormat, unit_to_byte_rmse
from ddpm.diffusion.bound_terms import prior_bpd, vb_term
from ddpm.errors import DdpmError
from ddpm.evaluation import paper
from ddpm.evaluation.progressive_code import code_points, rate_and_distortion
from ddpm.evaluation.recipe import differences
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.provenance import fingerprint, read_provenance
from ddpm.runs.history import History
from ddpm.runtime.randomness import Randomness
from ddpm.training.presets import get_preset
from full_range import one_thread
from helpers import checkpoint_path, measured_model, tiny_model
from mistakes import everything_below, refused

pytestmark = pytest.mark.slow  # many members

# The tables once more, as text: Ho, Jain & Abbeel (2020).
TABLE1 = """
L, fixed isotropic: IS 7.67, FID 13.51, NLL <= 3.70 (train 3.69).
L_simple: IS 9.46, FID 3.17, NLL <= 3.75 (train 3.72)
"""
TABLE3 = "Bedroom 6.36 (large 4.90), Church 7.89, Cat 19.75"
TABLE4 = """
1000: 1.77581, 0.95136. 900: 0.11994, 12.02277. 800: 0.05415, 18.47482. 700: 0.02866, 24.43656.
600: 0.01507, 30.80948. 500: 0.00716, 38.03236. 400: 0.00282, 46.12765. 300: 0.00081, 54.18826.
200: 0.00013, 60.97170. 100: 0.00000, 67.60125
"""


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The run of a measured model that says it was trained on digits, in a folder of a difficult
    name."""
    monkeypatch.setenv("COLUMNS", "250")
    folder = tmp_path / "a run, größer"
    measured_model().save(checkpoint_path(folder, 3))
    return folder


# -- the paper's numbers -------------------------------------------------------------------------


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.\d+|\d+", text)]


def test_table_1_is_the_papers():
    rows = [(r.inception_score, r.fid, r.nll_test, r.nll_train) for r in paper.TABLE1]
    assert [n for row in rows for n in row] == numbers(TABLE1)
    assert [row.objective for row in paper.TABLE1] == re.findall(r"^(.*?):", TABLE1, re.M)
    assert [row.fid_test for row in paper.TABLE1] == [None, 5.24]


def test_table_3_is_the_papers():
    assert [row.fid for row in paper.TABLE3] == numbers(TABLE3)


def test_table_4_is_the_papers():
    rows = [(r.reverse_step, r.rate, r.rmse) for r in paper.TABLE4]
    assert [float(n) for row in rows for n in row] == numbers(TABLE4)


def test_the_papers_numbers_fit_together():
    """s. 4.3: the rate of Table 4's first row, and its rest up to the bound of Table 1."""
    assert round(paper.TABLE4[0].rate, 2) == paper.RATE
    assert pytest.approx(paper.TABLE1[1].nll_test) == paper.RATE + paper.DISTORTION


# -- table 4 -------------------------------------------------------------------------------------


def counted_bound(timesteps):
    """A bound whose terms are powers of two, so that every sum says what is in it."""
    steps = len(timesteps)
    terms = 2.0 ** np.arange(steps)
    mse = (np.arange(steps) + 1.0) ** 2
    total = np.full(3, 0.5 + terms.sum())
    return Bound(total, np.full(3, 0.5), terms, mse, mse, np.array(timesteps))


@pytest.mark.parametrize("total", [10, 20, 30, 50])
def test_rates_are_sums_of_all_terms_above_t(total):
    bound = counted_bound(range(total))
    points = code_points(bound, total)
    assert len(points) == len(paper.TABLE4)
    for point in points:
        assert point.t == total - point.reverse_step + 1
        assert point.reverse_step / total == point.paper.reverse_step / 1000
        # L_{s-1} stands at index s - 1.
        above = 0.5 + sum(2.0 ** (s - 1) for s in range(point.t + 1, total + 1))
        assert point.rate == above
        assert point.rmse == pytest.approx(127.5 * point.t)


def test_the_papers_own_chain_gives_the_papers_rows():
    points = code_points(counted_bound(range(50)), 50)
    assert [p.paper.reverse_step for p in points] == list(range(1000, 0, -100))
    whole = Bound(*[np.ones(1000)] * 5, np.arange(1000))
    points = code_points(whole, 1000)
    assert [p.reverse_step for p in points] == list(range(1000, 0, -100))
    assert [p.rate for p in points] == [1.0 + s - 1 for s in range(1000, 0, -100)]


def test_a_chain_of_few_steps_shows_the_last_latent_that_was_received():
    bound = counted_bound([3, 9, 19])
    points = {p.reverse_step: p for p in code_points(bound, 20)}
    assert {s: p.t for s, p in points.items()} == {
        **{20: 4, 18: 4, 16: 10, 14: 10, 12: 10},
        **{10: 20, 8: 20, 6: 20, 4: 20, 2: 20},
    }
    assert {p.t: p.rate for p in points.values()} == {4: 0.5 + 2 + 4, 10: 0.5 + 4, 20: 0.5}


@pytest.mark.parametrize("total", [1, 2, 3, 7, 13, 999])
def test_a_chain_of_any_length_has_its_rows(total):
    points = code_points(counted_bound(range(min(total, 60))), min(total, 60))
    steps = [p.reverse_step for p in points]
    assert steps == sorted(set(steps), reverse=True)
    assert steps[0] == min(total, 60)
    assert min(steps) >= 1


def test_rows_agree_with_a_walk_over_the_images_one_by_one():
    model, images = tiny_model(), digits("test").images[:3]
    bound, total = model.bound(images), model.diffusion.num_timesteps
    x = model.format.to_unit(images)
    noise, denoiser = Randomness(0, "bound"), model.denoiser()
    terms, errors = np.zeros((3, total)), np.zeros((3, total))
    for i in range(3):
        for t in range(total):
            index, time = torch.tensor([i]), torch.tensor([t])
            x_t = model.diffusion.q_sample(x[i : i + 1], time, noise.normal(index, (1, 8, 8), t))
            with torch.inference_mode():
                term, p = vb_term(model.diffusion, denoiser, x[i : i + 1], x_t, time, 17)
            terms[i, t] = float(term)
            errors[i, t] = float(((p.pred_xstart - x[i]) ** 2).mean())
    prior = float(prior_bpd(model.diffusion, x).mean())
    for point in code_points(bound, total):
        assert point.rate == pytest.approx(prior + terms.mean(0)[point.t :].sum(), rel=1e-5)
        rmse = unit_to_byte_rmse(errors.mean(0)[point.t - 1 : point.t])[0]
        assert point.rmse == pytest.approx(rmse, rel=1e-4)
    rate, distortion = rate_and_distortion(bound)
    assert distortion == pytest.approx(terms.mean(0)[0], rel=1e-5, abs=1e-9)
    assert rate + distortion == pytest.approx(bound.mean)


def test_table_4_shows_what_it_writes(run, capsys):
    assert main(["reproduce", "table4", str(run), "--images", "4"]) == 0
    said = capsys.readouterr().out
    (path,) = (run / "evaluation").glob("table4-*.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    expected = code_points(load(run).bound(digits("test").images[:4]), 20)
    assert [row["rate"] for row in document["rows"]] == [p.rate for p in expected]
    for point, row in zip(expected, document["rows"], strict=True):
        assert f"{row['rate']:.5f}" in said
        assert f"{point.paper.rate:.5f}" in said
    assert "1.78 + 1.97" in said
    assert str(path) in said


def test_figure_5_is_a_picture_that_says_where_it_comes_from(run, capsys):
    assert main(["reproduce", "figure5", str(run), "--images", "2", "--steps", "3"]) == 0
    (path,) = (run / "evaluation").glob("figure5-*.png")
    found = read_provenance(path)
    assert found is not None
    assert found.command[:2] == ("reproduce", "figure5")
    assert str(path) in capsys.readouterr().out


# -- what was measured before --------------------------------------------------------------------


def test_a_bound_is_measured_once(run, capsys):
    assert main(["reproduce", "table4", str(run), "--images", "3"]) == 0
    first = capsys.readouterr().out
    with mock.patch.object(Ddpm, "bound", side_effect=AssertionError("it is there")):
        assert main(["reproduce", "table4", str(run), "--images", "3"]) == 0
        assert main(["reproduce", "figure5", str(run)]) == 0  # takes what there is
    again = capsys.readouterr().out
    rows = [line for line in first.splitlines() if "│" in line]
    assert rows
    assert all(again.count(line) == 2 for line in rows)
    assert len(list((run / "evaluation").glob("bpd-*.json"))) == 1


def test_what_evaluate_measured_serves_too_and_the_most_images_count(run, capsys):
    for n in (5, 3):
        assert main(["evaluate", str(run), "--bpd", "--images", str(n)]) == 0
    assert main(["evaluate", str(run), "--bpd", "--images", "7", "--steps", "4"]) == 0
    model, folder = load(run), run / "evaluation"
    found = find_bound(model, folder, "test", BoundOptions())
    assert found is not None
    assert found.settings["images"] == 5
    again = model.bound(digits("test").images[:5])
    assert found.bound.mean == pytest.approx(again.mean)
    for key, values in found.bound.rate_distortion().items():
        np.testing.assert_allclose(values, again.rate_distortion()[key], err_msg=key)
    short = find_bound(model, folder, "test", BoundOptions(plan=Plan(4)))
    assert short is not None
    assert short.settings["images"] == 7
    assert find_bound(model, folder, "test", BoundOptions(seed=1)) is None
    assert find_bound(model, folder, "test", BoundOptions(images=4)) is None
    assert find_bound(tiny_model(seed=5), folder, "test", BoundOptions()) is None


def test_files_that_are_no_results_are_passed_over(run):
    folder = run / "evaluation"
    folder.mkdir()
    for name, text in {"a": "{", "b": "[1]", "c": "null", "d": '{"settings": 3}'}.items():
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    (folder / "e.json").write_bytes(b"\xff\xfe\x00")
    (folder / "f.json").mkdir()
    assert find_bound(load(run), folder, "test", BoundOptions()) is None


# -- table 1 -------------------------------------------------------------------------------------


def cells_of(folder):
    return json.loads((folder / "table1.json").read_text(encoding="utf-8"))["cells"]


def test_bits_per_dim_of_both_splits_are_measured(run, capsys):
    assert main(["reproduce", "table1", str(run), "--images", "3"]) == 0
    said, cells, model = capsys.readouterr().out, cells_of(run / "evaluation"), load(run)
    for split in ("test", "train"):
        bound = model.bound(digits(split).images[:3])
        cell = cells[f"NLL {split}"]
        assert cell["value"] == pytest.approx(bound.mean)
        assert cell["standard_error"] == pytest.approx(bound.standard_error)
        assert f"≤ {bound.mean:.2f} ± {bound.standard_error:.2f}" in said
    for row in paper.TABLE1:
        assert row.objective in said
        assert f"{row.fid:.2f}" in said
    assert "10,593" in said  # parameters of this model
    assert "35,746,307" in said
    assert "other images than the paper's" in said


def test_what_was_not_measured_is_empty_and_says_why(run, capsys):
    assert main(["reproduce", "table1", str(run), "--images", "2"]) == 0
    said, cells = capsys.readouterr().out, cells_of(run / "evaluation")
    for name in ("IS", "FID", "FID test"):
        assert cells[name]["value"] is None
        assert "RGB" in cells[name]["why"]
        assert cells[name]["why"] in said
    (row,) = [line for line in said.splitlines() if "this model" in line and "≤" in line]
    assert [part.strip() for part in row.split("│")][2:5] == ["", "", ""]


def homeless(folder):
    """A colour model that does not say where its images are."""
    model = tiny_model(channels=3)
    config = replace(model.config, data=replace(model.config.data, path=None))
    image_format = ImageFormat(3, 8, 8, 256)
    Ddpm(config, image_format, model.network, history=model.history).save(folder)


def test_a_model_without_images_gets_an_empty_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    homeless(tmp_path / "m.safetensors")
    assert main(["reproduce", "table1", str(tmp_path / "m.safetensors")]) == 0
    cells = cells_of(tmp_path / "evaluation")
    assert all(cell["value"] is None for cell in cells.values())
    assert "set --data" in capsys.readouterr().out
    assert "ddpm evaluate" in cells["FID"]["why"]
    assert "--fid --samples 50000" in cells["IS"]["why"]


REFERENCES = {
    "train": ({"given": "cifar10-train", "set": "cifar10 (train)", "split": "train"}, "FID"),
    "test": ({"given": "cifar10-test", "set": "cifar10 (test)", "split": "test"}, "FID test"),
    "statistics": ({"given": "stats_cifar10_test.npz", "set": "s", "split": None}, "FID test"),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_fid_is_taken_from_what_was_measured_of_this_very_model(tmp_path, capsys, name):
    file, (reference, there) = tmp_path / "m.safetensors", REFERENCES[name]
    homeless(file)
    known = fingerprint(load(file))
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for stem, owner, count, value, label in (
        ("few", known, 100, 77.25, None),
        ("many", known, 20_000, 55.5, None),
        ("of a class", known, 30_000, 12.5, "cat"),
        ("foreign", "0" * 32, 50_000, 3.25, None),
    ):
        measures = {f"fid_{count}": {"value": value}, f"frechet_pixels_{count}": {"value": 1.0}}
        measures |= {f"inception_score_{count}": {"value": value / 10}}
        document = {"measures": measures, "reference": reference, "model": owner, "class": label}
        (folder / f"{stem}.json").write_text(json.dumps(document), encoding="utf-8")
    assert main(["reproduce", "table1", str(file)]) == 0
    cells = cells_of(folder)
    assert cells[there]["value"] == 55.5
    assert cells["IS"]["value"] == 5.55
    assert "fid_20000" in cells[there]["source"]
    assert reference["set"] in cells[there]["source"]
    assert cells[({"FID", "FID test"} - {there}).pop()]["value"] is None
    assert "fid_20000" in " ".join(capsys.readouterr().out.split())


# -- what differs in training --------------------------------------------------------------------


def papers_model(**training):
    """A model trained just as the paper's, without the memory of one."""
    config = get_preset("cifar10")
    config = replace(config, training=replace(config.training, **training))
    with torch.device("meta"):
        network = config.build_network((3, 32, 32))
    history = History("cifar10 (train)", 800_000, 102_400_000)
    return Ddpm(config, ImageFormat(3, 32, 32), network, history=history)


def test_the_papers_own_training_differs_in_nothing_but_what_the_paper_leaves_open():
    rows = differences(papers_model(), get_preset("cifar10"), "cifar10 (train)")
    assert [row.what for row in rows] == ["precision"]


@pytest.mark.parametrize(
    ("changed", "what", "here", "there"),
    [
        ({"batch_size": 64}, "batch", "64", "128"),
        ({"lr": 1e-3}, "learning rate", "0.001, constant", "0.0002, constant"),
        ({"loss": "vlb"}, "loss", "vlb", "simple"),
        ({"time_sampling": "bound"}, "loss", "simple, t drawn as the bound weighs it", "simple"),
        (
            {"time_sampling": "both", "stratified_time": True},
            "loss",
            "simple, t drawn evenly and as the bound weighs it, half and half, "
            "t spread over the batch",
            "simple",
        ),
        ({"optimizer": "muon"}, "optimiser", "muon", "adam"),
        ({"ema_decay": 0.5}, "EMA", "0.5", "0.9999"),
        ({"precision": "bf16"}, "precision", "bf16", "not stated"),
    ],
)
def test_a_setting_that_differs_is_a_row(changed, what, here, there):
    rows = differences(papers_model(**changed), get_preset("cifar10"), "cifar10 (train)")
    assert (what, here, there) in [tuple(row) for row in rows]
    assert {row.what for row in rows} == {what, "precision"}


def test_what_the_shipped_model_has_seen_is_told():
    model = load("cifar10-small", "cpu")
    rows = {row.what: row for row in differences(model, get_preset("cifar10"), "cifar10 (train)")}
    assert rows["images seen"].here == f"{model.history.images:,}"
    assert f"{model.history.images_before:,}" in rows["training steps"].here
    assert rows["parameters"].here == f"{model.num_parameters:,}"
    assert "images" not in rows


# -- table 3 -------------------------------------------------------------------------------------


def lsun_model(data, path=None, side=256, channels=3):
    model = tiny_model(channels=channels)
    config = replace(model.config, data=replace(model.config.data, path=path))
    image_format = ImageFormat(channels, side, side)
    return Ddpm(config, image_format, model.network, history=History(data))


@pytest.mark.parametrize(
    ("data", "path", "name"),
    [
        ("bedroom_train_lmdb", None, "Bedroom"),
        ("images", "data/lsun/church_outdoor_train_lmdb", "Church"),
        ("LSUN-Cats", "x", "Cat"),
    ],
)
def test_the_images_decide_the_row(data, path, name):
    assert row_of("run", lsun_model(data, path)).name == name


def test_the_size_of_the_network_tells_the_two_bedrooms_apart():
    for count, name in ((255_677_955, "Bedroom, large"), (113_673_219, "Bedroom")):
        with mock.patch.object(Ddpm, "num_parameters", count):
            assert row_of("run", lsun_model("bedroom")).name == name


@pytest.mark.parametrize(
    "model",
    [
        lsun_model("catalogue"),
        lsun_model(""),
        lsun_model("bedroom", "cat"),
        lsun_model("cat", side=128),
        lsun_model("cat", channels=1),
    ],
    ids=["another word", "nothing", "two", "small", "grey"],
)
def test_a_model_that_has_no_row_is_refused(model):
    with pytest.raises(DdpmError, match="run has no place in table3"):
        row_of("run", model)


def test_table_3_without_runs_is_the_papers_with_empty_cells(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["reproduce", "table3", "--out", str(tmp_path / "t.json")]) == 0
    said = capsys.readouterr().out
    for number in numbers(TABLE3):
        assert f"{number:.2f}" in said
    cells = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["cells"]
    assert len(cells) == 4
    assert all(cell["value"] is None and "LSUN" in cell["why"] for cell in cells.values())


def test_table_3_says_why_a_run_has_no_fid(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.chdir(tmp_path)
    model = lsun_model("church_outdoor_train_lmdb")
    model.save(Path("my church.safetensors"))
    assert main(["reproduce", "table3", "my church.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "ddpm evaluate 'my church.safetensors' --fid --samples 50000" in said
    assert "113,673,219" in said  # what differs in training


# -- mistakes ------------------------------------------------------------------------------------

MISTAKES = {
    "no name": (["reproduce"], "table1"),
    "no such name": (["reproduce", "table9"], "choose from table1, table2, table3, table4"),
    "another's name": (["reproduce", "figure6"], "figure5"),
    "table1 of nothing": (["reproduce", "table1"], "needs a run"),
    "table4 of nothing": (["reproduce", "table4"], "needs a run"),
    "figure5 of nothing": (["reproduce", "figure5", "--images", "3"], "needs a run"),
    "no such run": (["reproduce", "table1", "none"], "does not exist"),
    "no such run of several": (["reproduce", "table3", "none"], "does not exist"),
    "two runs": (["reproduce", "table1", "RUN", "RUN"], "Unrecognized"),
    "an option of another": (["reproduce", "table1", "RUN", "--samples", "9"], "--samples"),
    "images without effect": (["reproduce", "table3", "--images", "9"], "--images"),
    "no images": (["reproduce", "table4", "RUN", "--images", "0"], "--images"),
    "negative seed": (["reproduce", "table4", "RUN", "--seed", "-1"], "--seed"),
    "no batch": (["reproduce", "table4", "RUN", "--batch-size", "0"], "--batch-size"),
    "too many steps": (["reproduce", "table4", "RUN", "--steps", "21"], "20"),
    "no such trajectory": (
        ["reproduce", "figure5", "RUN", "--steps", "3", "--trajectory", "best"],
        "--trajectory",
    ),
    "no such data": (["reproduce", "table1", "RUN", "--data", "none"], "does not exist"),
    "no place in table 3": (["reproduce", "table3", "RUN"], "no place in table3"),
    "the home of nobody": (["reproduce", "table1", "RUN", "--out", "~no-such-user/x"], "~no-such"),
    "a locked place": (["reproduce", "table4", "RUN", "--out", "/proc/x"], "cannot write /proc/x"),
    "no steps for table 2": (["reproduce", "table2", "--steps", "0"], "steps"),
    "a run for table 2": (["reproduce", "table2", "RUN"], "Unrecognized"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_sentence_and_leaves_nothing(run, name, capsys, monkeypatch):
    monkeypatch.chdir(run.parent)
    argv, words = MISTAKES[name]
    before = everything_below(run.parent)
    refused([run.name if part == "RUN" else part for part in argv], capsys, words)
    assert everything_below(run.parent) == before


def test_of_equal_counts_the_fid_of_most_calls_is_shown(tmp_path):
    """The paper's samples take all steps."""
    file = tmp_path / "m.safetensors"
    homeless(file)
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for calls, value in ((10, 50.0), (1000, 5.0)):
        document = {
            "measures": {"fid_50000": {"value": value}},
            "reference": {"given": "cifar10-train", "set": "CIFAR-10", "split": "train"},
            "model": fingerprint(load(file)),
            "calls": calls,
        }
        (folder / f"{calls}-steps.json").write_text(json.dumps(document), encoding="utf-8")
    for odd in ({"reference": "x"}, {"reference": {}, "measures": {"fid_60000": 3.0}}):
        document = {
            "measures": {"fid_60000": {"value": 1.0}},
            "model": fingerprint(load(file)),
            **odd,
        }
        (folder / "odd.json").write_text(json.dumps(document), encoding="utf-8")
        assert main(["reproduce", "table1", str(file)]) == 0
        assert cells_of(folder)["FID"]["value"] == 5.0
