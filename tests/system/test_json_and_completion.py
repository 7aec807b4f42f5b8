"""`--json` is one document and nothing else; `--help` has every command; shells complete them."""

import json
import logging
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from test_cli import TINY

from ddpm.cli import COMMANDS, main
from ddpm.cli.outcome import wants_document
from ddpm.cli.overview import EXAMPLES, GROUPS, overview
from full_range import one_thread
from helpers import checkpoint_path, measured_model, tiny_model


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with a run of a measured model and a picture that it can take."""
    monkeypatch.chdir(tmp_path)
    measured_model().save(checkpoint_path(tmp_path / "run", 3))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("one.png")
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save("mask.png")
    return tmp_path


def document(capsys, *argv, code=0):
    """The document of a command, which is all that stdout has."""
    capsys.readouterr()
    assert main([*argv, "--json"]) == code
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["command"] == list(argv)
    assert found["exit"] == code
    return found, said.err


def test_bits_of_a_model(place, capsys):
    found, words = document(capsys, "evaluate", "run", "--bpd", "--images", "4", "--out", "e")
    (path,) = (place / "e").glob("bpd-*.json")
    written = json.loads(path.read_text())
    assert found["figures"]["bpd"]["bits_per_dim"] == written["bits_per_dim"]
    assert found["figures"]["bpd"]["settings"] == written["settings"]
    assert all((place / name).is_file() for name in found["made"])
    assert str(path.relative_to(place)) in found["made"]
    assert "bits/dim" in words


def test_a_file_and_back(place, capsys):
    found, _ = document(capsys, "compress", "run", "one.png", "-o", "x.ddpm", "--steps", "2")
    size = (place / "x.ddpm").stat().st_size
    assert found["figures"]["bytes"] == size
    assert found["figures"]["bits_per_dim"] == pytest.approx(8 * size / 64)
    assert found["made"] == ["x.ddpm"]
    told, _ = document(capsys, "info", "x.ddpm")
    assert (told["figures"]["images"], told["figures"]["bytes"]) == (1, size)
    back = "ddpm decompress run x.ddpm -o FOLDER"
    assert back in found["next"]
    assert main(["decompress", "run", "x.ddpm", "-o", "back"]) == 0
    part, _ = document(
        capsys, "decompress", "run", "x.ddpm", "-o", "part.png", "--bytes", str(size - 1)
    )
    assert (part["figures"]["exact"], part["figures"]["bytes"]) == (False, size - 1)


OUT_OF_MEASURE = ["--last-stage-steps", "1", "--out", "m.safetensors"]
COMMANDS_THAT_MAKE = {
    "sample": ["sample", "run", "-n", "2", "--out", "s.png", "--progressive"],
    "a folder of samples": ["sample", "run", "-n", "2", "--out", "s"],
    "inpaint": ["inpaint", "run", "one.png", "mask.png", "-o", "f.png", "--repeats", "1"],
    "figure": ["figure", "schedule", "run", "--out", "g.png"],
    "samples compared": ["evaluate", "run", "--features", "pixels", "--samples", "4", "--out", "e"],
    "table4": ["reproduce", "table4", "run", "--images", "2", "--out", "t"],
    "figure5": ["reproduce", "figure5", "run", "--images", "2", "--out", "t"],
    "table3": ["reproduce", "table3", "--out", "t3.json"],
    "measure": ["measure", "run", "--images", "4", *OUT_OF_MEASURE],
    "export": ["export", "run", "--out", "x.safetensors", "--format", "safetensors"],
}


@pytest.mark.parametrize("name", COMMANDS_THAT_MAKE)
def test_what_is_made_is_there_and_was_not_before(place, capsys, name):
    before = {*place.rglob("*")}
    found, _ = document(capsys, *COMMANDS_THAT_MAKE[name])
    made = [place / path for path in found["made"]]
    assert made
    assert all(path.exists() for path in made)
    assert not {*made} & before


@pytest.mark.slow
def test_a_run_from_its_cost_to_its_curves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = [*TINY, "--training.steps", "4"]
    cost, _ = document(capsys, "info", "digits", *small, "--seconds", "0")
    assert cost["next"] == [f"ddpm train digits {' '.join(small)}"]
    planned, _ = document(capsys, "train", "digits", *small, "--dry-run")
    assert planned["figures"]["config"]["training"]["steps"] == 4
    assert planned["figures"]["parameters"] == cost["figures"]["parameters"]
    found, _ = document(capsys, "train", "digits", *small)
    assert found["figures"]["step"] == 4
    assert found["made"] == ["runs/digits/checkpoints/step-00000004.safetensors"]
    assert "ddpm sample runs/digits" in found["next"]
    status, _ = document(capsys, "watch", "runs/digits")
    assert (status["figures"]["step"], status["figures"]["complete"]) == (4, True)
    curves, _ = document(capsys, "plot", "runs/digits")
    assert curves["made"] == ["runs/digits/curves.png"]


def test_a_mistake_is_one_document_too(place, capsys):
    found, words = document(capsys, "sample", "run", "-n", "0", code=2)
    assert found["error"] == "-n must be at least 1, got 0"
    assert found["error"] in words
    assert found["made"] == []
    found, words = document(capsys, "info", "nowhere", code=2)
    assert "nowhere" in found["error"]


def test_models_and_pictures_tell(place, capsys):
    found, _ = document(capsys, "models")
    assert found["figures"]["cifar10-small"]["shape"] == [3, 32, 32]
    tiny_model().save("m.safetensors")
    assert main(["sample", "m.safetensors", "-n", "1", "--seed", "9", "--out", "p.png"]) == 0
    told, _ = document(capsys, "info", "p.png")
    assert told["figures"]["settings"]["seed"] == 9
    model, _ = document(capsys, "info", "m.safetensors")
    assert model["figures"]["fingerprint"] == told["figures"]["fingerprint"]


def test_notices_and_bars_do_not_get_into_the_document(place, capsys, caplog):
    with caplog.at_level(logging.WARNING, "ddpm"):  # few samples are warned of
        argv = ["evaluate", "run", "--features", "pixels", "--samples", "4", "--out", "e"]
        found, _ = document(capsys, *argv)
    assert "fewer" in caplog.text
    assert found["figures"]["measures"]["frechet_pixels_4"]["value"] > 0


def test_help_is_for_people_and_the_flag_is_no_option_of_a_command():
    assert wants_document(["run", "--json", "--bpd"]) == (True, ["run", "--bpd"])
    assert wants_document(["--json", "--help"]) == (False, ["--help"])
    assert wants_document(["run"]) == (False, ["run"])


@pytest.mark.slow
def test_a_process_of_its_own_prints_nothing_else_on_stdout(place):
    command = [sys.executable, "-m", "ddpm", "sample", "run", "-n", "2", "--json", "--out", "a.png"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=place)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["made"] == ["a.png"]
    assert "2 images in a.png" in ran.stderr


# -- help ----------------------------------------------------------------------------------------


def test_every_command_is_in_one_group_with_an_example(capsys):
    grouped = [name for names in GROUPS.values() for name in names]
    assert len({*grouped}) == len(grouped)
    assert COMMANDS.keys() <= {*grouped}
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, what in COMMANDS.items():
        assert shown.count(f"\n  {name:<12}{what}\n              $ {EXAMPLES[name]}\n") == 1
        assert EXAMPLES[name].split()[:2] == ["ddpm", name]
    assert max(map(len, shown.splitlines())) <= 100


def test_help_shows_no_command_that_there_is_not():
    assert "$ ddpm sample" not in overview({"train": "train a model"})


def test_the_options_of_a_command_name_the_document(capsys):
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    assert "--json" in capsys.readouterr().out


# -- completion ----------------------------------------------------------------------------------

DRIVER = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_ddpm; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts():
    """Of every shell."""
    from ddpm.cli import MODULES
    from ddpm.cli.completion import SHELLS, completion

    return {shell: completion([shell], COMMANDS, MODULES) for shell in SHELLS}


TYPED = {  # what is typed, what must be among the completions, and what must not
    "a command": (["tr"], ["train"], ["sample"]),
    "a preset": (["train", "cifar"], ["cifar10", "cifar10-small"], ["digits"]),
    "a model": (["sample", ""], ["cifar10-small"], ["digits"]),
    "a path": (["sample", "ru"], ["runs"], []),
    "an option": (["sample", "run", "--st"], ["--steps"], ["--seed"]),
    "an option of a group": (["train", "digits", "--training.l"], ["--training.lr"], ["--out"]),
    "a value": (["sample", "run", "--precision", ""], ["fp32", "bf16"], ["None", "--steps"]),
    "a figure": (["figure", "interp"], ["interpolation"], ["table1"]),
    "an option of a figure": (["figure", "interpolation", "run", "--pi"], ["--pick"], []),
    "a table": (["reproduce", "table"], ["table1", "table4"], ["samples"]),
    "a shell": (["--completion", ""], ["bash", "zsh", "fish"], ["train"]),
    "a document": (["evaluate", "run", "--js"], ["--json"], []),
    "short options": (["train", "digits", "--da"], ["--data"], []),
}


@pytest.mark.parametrize("name", TYPED)
def test_bash_completes(scripts, tmp_path, name):
    words, some, none = TYPED[name]
    (tmp_path / "runs").mkdir()
    (tmp_path / "ddpm.bash").write_text(scripts["bash"])
    command = ["bash", "-c", DRIVER, "-", "ddpm.bash", "ddpm", *words]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    found = ran.stdout.split()
    assert {*some} <= {*found}
    assert not {*none} & {*found}
    assert ran.stderr == ""


def test_every_command_has_its_options_in_every_shell(scripts):
    for command in COMMANDS:
        assert re.search(rf"^    {command}\) words=.*--json", scripts["bash"], re.M)
        assert re.search(rf"seen_subcommand_from {command}' -l json ", scripts["fish"], re.M)
    assert scripts["zsh"].startswith("autoload -U +X bashcompinit")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_their_script(scripts, tmp_path, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(scripts[shell])
    subprocess.run([shell, "-n", str(path)], check=True)


def test_a_shell_that_is_not_known_is_refused(capsys):
    assert main(["--completion", "csh"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err
    assert main(["--completion"]) == 2
