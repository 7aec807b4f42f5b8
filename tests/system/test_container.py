"""A container as a cluster starts one: a user id without a name and a home, a model that may only
be read, a terminal that knows ASCII only, what goes wrong written into a file.

Commands run as processes of that user, which only root can start. The test's own Python may lie
where that user cannot go; then another one of the same version runs the same packages.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm

pytestmark = pytest.mark.slow

USER = 12345
PACKAGES = [str(Path(module.__file__).parents[1]) for module in (ddpm, torch)]
LANGUAGE = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TINY = [
    *("--network.ch", "8", "--network.ch-mult", "1", "--network.norm-groups", "4"),
    *("--network.num-res-blocks", "1", "--network.attn-resolutions", "4"),
    *("--training.batch-size", "4", "--training.sample-every", "2", "--diffusion.timesteps", "20"),
]
COMMANDS = {
    "train": ["train", "digits", *TINY, "--training.steps", "2", "--out", "run"],
    # From here on the run belongs to somebody else and may only be read.
    "sample": ["sample", "run", "-n", "4", "--steps", "3", "--trajectory", "optimal"],
    "compress": ["compress", "run", "pictures", "-o", "x.ddpm"],
    "decompress": ["decompress", "run", "x.ddpm", "-o", "back"],
    "evaluate": ["evaluate", "run", "--bpd", "--images", "4", "--steps", "3", "--out", "figures"],
    "watch": ["watch", "run", "--once"],
}
MEASURE = ["measure", "run"]  # which writes into the model, so it is refused
MADE = {"samples.png", "x.ddpm", "back", "figures"}


@dataclass
class Done:
    """How a command ended and what it said."""

    code: int
    out: bytes
    errors: bytes


def as_user(command, **options):
    """Run a command as the user without a name."""
    return subprocess.run(command, check=False, user=USER, group=USER, extra_groups=[], **options)


def find_python():
    """A Python that the user may start, of the version that the packages were installed for."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    look = f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for python in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        try:
            done = as_user([python, "-c", look], cwd="/", env={}, capture_output=True)
        except OSError:
            continue
        if done.returncode == 0:
            return python
    return pytest.skip(f"user {USER} can start no Python {version} here")


@pytest.fixture(scope="module")
def container():
    """A writable folder of the user's own, and `start`, which runs one command in it."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can become another user")
    python = find_python()
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    for name in ("work", "tmp"):
        (place / name).mkdir()
        os.chown(place / name, USER, USER)
    environment = {
        **LANGUAGE,
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(PACKAGES),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
        "TMPDIR": str(place / "tmp"),
    }

    def start(arguments):
        with (place / "errors").open("wb") as errors:
            done = as_user(
                [python, "-m", "ddpm", *arguments],
                cwd=place / "work",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=120,
            )
        return Done(done.returncode, done.stdout, (place / "errors").read_bytes())

    yield place / "work", start
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def ended(container):
    """Every command, run once and in order."""
    work, start = container
    found = {"train": start(COMMANDS["train"])}
    pictures = np.random.default_rng(0).integers(0, 17, (4, 8, 8)) * 255 / 16
    (work / "pictures").mkdir()
    for i, pixels in enumerate(np.round(pictures).astype(np.uint8)):
        Image.fromarray(pixels).save(work / "pictures" / f"{i}.png")
    for path in [work / "run", *(work / "run").rglob("*")]:
        os.chown(path, 0, 0)
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.read_bytes() for path in (work / "run").rglob("*") if path.is_file()}
    for name in [*COMMANDS][1:]:
        found[name] = start(COMMANDS[name])
    found["measure"] = start(MEASURE)
    after = {path: path.read_bytes() for path in (work / "run").rglob("*") if path.is_file()}
    assert before == after, "the model that may only be read has changed"
    return found


def readable(text):
    """Said by us, in ASCII, a line at a time: no colours, no redrawn bars, no library's words."""
    said = text.decode("ascii")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", said), said
    for words in ("Traceback", "Warning", "site-packages", ".py", "atplotlib", "\\u", "\\x"):
        assert words not in said, said
    return said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_where_there_is_no_home_no_name_and_no_utf8(ended, name):
    done = ended[name]
    assert done.code == 0, done.errors[-2000:]
    readable(done.errors)
    readable(done.out)


def test_what_has_to_write_into_the_model_is_refused_for_the_true_reason(ended):
    done = ended["measure"]
    assert done.code == 2, done.errors[-2000:]
    said = readable(done.errors).strip().splitlines()
    assert said[-1].startswith("ddpm: ")
    assert "Permission denied" in said[-1]


def test_the_pictures_come_back(container, ended):
    work, _ = container
    for path in (work / "pictures").iterdir():
        with Image.open(path) as was, Image.open(work / "back" / path.name) as now:
            assert was.mode == now.mode
            assert was.tobytes() == now.tobytes()


def test_only_what_was_asked_for_is_left(container, ended):
    work, _ = container
    assert {path.name for path in work.iterdir()} == {"run", "pictures", *MADE}
    assert not list(work.rglob("*.partial"))
