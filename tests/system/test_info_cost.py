"""`ddpm info PRESET`: what a run will cost, and what a name means."""

import shutil

import pytest

from ddpm.cli import main, run_cost
from ddpm.training.cost import Cost, StepTime
from full_range import one_thread
from helpers import tiny_model
from mistakes import everything_below, refused

TINY = [
    *("--network.ch", "8", "--network.ch-mult", "1", "--network.norm-groups", "4"),
    *("--network.attn-resolutions", "4", "--diffusion.timesteps", "20"),
]
STEP = StepTime(fixed=0.5, an_image=0.25, images=4, repeats=3)


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """An empty folder, a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    with one_thread():
        yield


@pytest.fixture
def timed(monkeypatch):
    """A stopwatch that finds `STEP`, and the costs it was asked about."""
    asked = []

    def probe(cost, seconds, progress=None):
        asked.append(cost)
        return cost, STEP

    monkeypatch.setattr(run_cost, "probe", probe)
    return asked


def told(capsys, *argv):
    """What `ddpm info` prints, by the name of the row, and the last line."""
    capsys.readouterr()
    assert main(["info", *argv]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in lines]
    return {cell[0]: cell[1] for cell in cells if len(cell) == 2}, lines[-1]


# -- what is told --------------------------------------------------------------------------------


def test_a_few_real_steps_price_a_run(capsys, tmp_path):
    rows, last = told(capsys, "digits", *TINY, "--training.batch-size", "4", "--seconds", "0.5")
    assert rows["steps"] == "2,000 of 4 images: 8,000 in all"
    assert "images/s" in rows["a step"]
    assert "denoising error" in rows["the whole run"]
    assert rows["images"] == "digits, brought to 8x8, grey"
    assert last.startswith("to begin it: ddpm train digits --network.ch 8")
    assert "seconds" not in last
    assert everything_below(tmp_path) == {}


def test_the_words_follow_from_the_step(capsys, timed):
    rows, last = told(capsys, "cifar10", "--training.batch-size=32", "--training.sample-every=0")
    a_step = 0.5 + 32 * 0.25
    assert rows["parameters"] == "35,746,307"
    assert rows["a step"].startswith("8.5 s: 3.76 images/s, 141 GFLOP/s")
    days = (800_000 * a_step + 750 * 129 * 0.25 / 3) / 86_400
    assert rows["the whole run"].startswith(f"{days:.0f} days, of which 2.5 hours")
    assert "572.1 MB" in rows["a checkpoint"]
    assert "1.7 GB are needed" in rows["a checkpoint"]
    assert "of 4 random images, timed 3 times" in rows["how"]
    assert "--data PATH" in rows["images"]
    assert last == (
        "to begin it: ddpm train cifar10 --data PATH --training.batch-size=32 "
        "--training.sample-every=0"
    )


def test_the_options_that_change_the_cost_are_told(capsys, timed):
    rows, _ = told(capsys, "digits", "--max-minutes", "60", "--training.compile")
    seconds = 2000 * (0.5 + 128 * 0.25) + (2 * 64 * 58 + 750 * 129) * 0.25 / 3
    assert f"ends it near step {int(3600 / seconds * 2000):,}" in rows["the whole run"]
    assert "without torch.compile" in rows["how"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0021, "2.1 ms"),
        (0.5, "500 ms"),
        (99, "99 s"),
        (5000, "83 minutes"),
        (100_000, "28 hours"),
        (3.456e9, "40,000 days"),
    ],
)
def test_times_are_for_people(seconds, words):
    assert run_cost.duration(seconds) == words


# -- what a name means ---------------------------------------------------------------------------


def test_a_run_of_that_name_comes_first(capsys, tmp_path, timed):
    tiny_model().save(tmp_path / "digits" / "checkpoints" / "step-00000001.safetensors")
    rows, last = told(capsys, "digits")
    assert rows["denoising error"] == "not measured"
    assert "ddpm info --preset digits" in last
    assert timed == []
    assert "a checkpoint" in told(capsys, "--preset", "digits")[0]
    assert "a checkpoint" in told(capsys, "digits", "--training.steps", "5")[0]
    shutil.rmtree(tmp_path / "digits")
    assert "a checkpoint" in told(capsys, "digits")[0]
    assert len(timed) == 3


def test_a_model_of_that_name_comes_first(capsys, timed):
    rows, last = told(capsys, "cifar10-small")
    assert rows["denoising error"].startswith("measured")
    assert "ddpm info --preset cifar10-small" in last
    rows, _ = told(capsys, "--preset", "cifar10-small")
    assert rows["steps"].startswith("12,000 of 128 images")


def test_a_preset_of_ones_own(capsys, tmp_path, timed):
    (tmp_path / "my_prices.py").write_text(
        "from ddpm import get_preset\n\n\ndef mine():\n    return get_preset('digits')\n"
    )
    rows, last = told(capsys, "--preset", "my_prices.mine")
    assert rows["parameters"] == "701,345"
    assert last == "to begin it: ddpm train my_prices.mine"


def test_images_of_ones_own_are_looked_at(capsys, timed):
    rows, last = told(capsys, "images", "--data", "digits")
    assert rows["images"].startswith("digits, brought to 8x8")
    assert last == "to begin it: ddpm train images --data digits"


# -- memory --------------------------------------------------------------------------------------


def free(monkeypatch, size):
    """A machine with so much memory left, on which nothing may be tried."""
    monkeypatch.setattr(run_cost, "free_memory", lambda device: size)


def never(*arguments):
    """Nothing of this size may be begun."""
    raise AssertionError


def test_a_network_that_does_not_fit_is_not_tried(capsys, monkeypatch):
    free(monkeypatch, 3 * 10**9)
    monkeypatch.setattr(run_cost, "probe", never)
    rows, _ = told(capsys, "lsun-bedroom-large")
    assert "not even one image fits" in rows["memory"]
    assert "not measured" in rows["time"]


def test_a_batch_that_does_not_fit_says_what_does(capsys, monkeypatch, timed):
    free(monkeypatch, 2 * 10**9)
    rows, _ = told(capsys, "cifar10")
    assert "It does not fit; --training.accumulate 16 does" in rows["memory"]
    assert timed[0].most < 128 // 8
    rows, _ = told(capsys, "cifar10", "--training.accumulate", "16")
    assert "does not fit" not in rows["memory"]


def test_a_machine_that_does_not_say_what_is_free(capsys, monkeypatch, timed):
    free(monkeypatch, None)
    rows, _ = told(capsys, "digits")
    assert "are free" not in rows["memory"]
    assert "a step" in rows


def test_a_network_that_cannot_be_counted_is_timed(capsys, monkeypatch, timed):
    monkeypatch.setattr(Cost, "_kept", never)
    monkeypatch.setattr("ddpm.training.cost.training_flops", never)
    rows, _ = told(capsys, "digits")
    assert "not known" in rows["memory"]
    assert rows["a step"].endswith("images/s")


# -- mistakes ------------------------------------------------------------------------------------


def test_a_name_that_there_is_not(capsys):
    refused(["info", "nothing"], capsys, "nothing", "cifar10-small", "lsun-church", "ddpm import")
    refused(["info", "--preset", "nothing"], capsys, "nothing", "digits")
    refused(["info", "nothing.safetensors"], capsys, "nothing.safetensors", "digits")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["digits", "--resume"], ["--resume"]),
        (["digits", "--out", "x"], ["--out"]),
        (["digits", "--training.batch-sizes", "3"], ["batch-sizes"]),
        (["digits", "--training.batch-size", "0"], ["batch_size"]),
        (["digits", "--seconds", "-1"], ["--seconds"]),
        (["digits", "--network.ch", "7"], ["ch"]),
        (["images"], ["--data"]),
        (["--preset"], ["preset"]),
    ],
)
def test_a_wrong_option_is_a_sentence(capsys, argv, words):
    refused(["info", *argv], capsys, *words)


def test_an_interruption_ends_it(capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_cost, "probe", interrupted)
    assert main(["info", "digits"]) == 130
    assert capsys.readouterr().err.strip().endswith("interrupted")


def test_help_tells_of_presets_and_their_options(capsys):
    assert main(["info", "--help"]) == 0
    assert "ddpm info PRESET" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["info", "digits", "--help"])
    assert not end.value.code
    shown = capsys.readouterr().out
    assert "--training.batch-size" in shown
    assert "--seconds" in shown
