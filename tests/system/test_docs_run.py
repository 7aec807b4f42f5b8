"""Every block of code in the documentation is run, with small settings, or says why not.

The shell's commands run in this process, in a folder that has what a page names: runs of a tiny
network, a folder of images, a small stand-in for `cifar10-small`.
"""

import contextlib
import io
import itertools
import re
import shlex
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm
import ddpm.codec.learning
import ddpm.likelihood.denoising_error
import ddpm.pretrained
from ddpm.cli import COMMANDS, MODULES, main
from ddpm.cli.completion import options
from ddpm.data.images import ImageFormat
from ddpm.runs.history import History
from doc_blocks import CODE, OUTPUT, PAGES, ROOT, blocks, indented
from full_range import full_range_model, one_thread
from helpers import tiny_config, tiny_images, tiny_model

# Pages whose Python has a test of its own, which reads the page: that test, and how many blocks.
ELSEWHERE = {
    "docs/autoregressive.md": ("tests/links/test_autoregressive.py", 6),
    "docs/extending.md": ("tests/test_extending.py", 12),
    "docs/markov-chains.md": ("tests/links/test_markov_chains.py", 12),
    "docs/other-samplers.md": ("tests/sampling/test_other_samplers.py", 5),
    "docs/score-matching.md": ("tests/links/test_points.py", 2),
}
SHELL_ELSEWHERE = {"docs/weights.md": ("tests/interop/test_weights_page.py", 1)}

NETWORK = {
    "--network.ch": ["8"],
    "--network.ch-mult": ["1"],
    "--network.norm-groups": ["4"],
    "--network.num-res-blocks": ["1"],
    "--network.attn-resolutions": ["4"],
}
TRAINING = {
    "--training.steps": ["4"],
    "--training.batch-size": ["4"],
    "--training.sample-every": ["0"],
    "--training.save-every": ["2"],
    "--training.log-every": ["1"],
}
FIGURES = {
    "samples": {"--n": ["2"], "--steps": ["3"]},
    "rate-distortion": {"--n": ["1"], "--steps": ["10"]},
    "progressive": {"--n": ["2"], "--columns": ["3"]},
    "shared-latents": {"--n": ["1"], "--t": ["5", "2"], "--steps": ["20"]},
    "interpolation": {"--t": ["5"]},
    "coarse-to-fine": {"--t": ["5", "2"]},
    "progressive-quality": {"--n": ["4"], "--columns": ["2"]},
    "neighbours": {"--n": ["2"], "--k": ["2"], "--steps": ["3"]},
    "denoising": {},
    "schedule": {},
    "classes": {"--n": ["1"], "--steps": ["3"]},
    "probe": {"--n": ["60"], "--t": ["3"]},
}
SMALL = {  # what a command is given besides, or instead
    "sample": {"-n": ["2"], "--steps": ["3"]},
    "evaluate": {"--images": ["2"], "--steps": ["4"]},
    "measure": {"--images": ["4"], "--last-stage-steps": ["2"]},
    "inpaint": {"--steps": ["4"], "--repeats": ["1"]},
    "reproduce": {"--images": ["2"], "--steps": ["4"]},
    "report": {"--samples": ["4"], "--images": ["4"], "--steps": ["3"]},
    "compress": {"--steps": ["3"]},
    "info": {},
}


def small(words):
    """A command with small settings, in the place of its own or besides."""
    command, more = words[1], dict(SMALL.get(words[1], {}))
    resumed = "--resume" in words
    if command == "train":
        more = {"--training.steps": ["6"]} if resumed else NETWORK | TRAINING
        if not {"--resume", "--diffusion.timesteps"} & {*words}:
            more = more | {"--diffusion.timesteps": ["100"]}
    if command == "figure":
        more = FIGURES[words[2]]
    if command == "evaluate" and not {"--bpd", "--codec"} & {*words}:
        more = {"--samples": ["4"], "--steps": ["3"]} if words[2] == "RUN" else {}
    if command == "evaluate" and "--codec" in words:
        more = {"--images": ["2"], "--steps": ["3"]}
    if command == "info" and len(words) > 2 and words[2] in ("cifar10", "images", "--preset"):
        more = {"--seconds": ["0"]} | NETWORK
    if "--fraction" in words:  # of few small images most is header
        more["--fraction"] = ["0.8"]
    kept, skipping = [], False
    for word in words:
        if word in more:
            skipping = True
        elif not (skipping and not word.startswith("-")):
            kept.append(word)
            skipping = False
    return [*kept, *(x for option, values in more.items() for x in (option, *values))]


# -- the folder in which they run -----------------------------------------------------------------


# Where a small `cifar10-small` lies, and its T: the Python of some pages asks for t = 500.
SHIPPED = {"sh": ("shipped", 100), "python": ("shipped-long", 1000)}
OWN_PRESET = """
from ddpm import get_preset


def my_preset():
    return get_preset("digits")
"""
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def stand_in(file, timesteps):
    """A model of the kind of `cifar10-small` whose network is tiny, measured."""
    config = tiny_config(timesteps=timesteps, channels=3)
    config = replace(
        config,
        network=replace(config.network, classes=10),
        data=replace(config.data, path=None, image_size=32, class_names=tuple(CLASSES)),
    )
    image_format = ImageFormat(3, 32, 32, 256)
    network = config.build_network(image_format.shape).requires_grad_(False)
    history = History(data="noise", step=3, images=12, seconds=1.5)
    model = ddpm.Ddpm(config, image_format, network, history=history)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    model.measure(images, timesteps=20)
    model.learn_coding(images, steps=2)
    model.save(file)


def short(patch):
    """Measure at few timesteps, and learn a last stage briefly."""
    patch.setattr(ddpm.likelihood.denoising_error, "DENSE", 5)
    patch.setattr(ddpm.likelihood.denoising_error, "SPACING", 30)
    patch.setattr(ddpm.codec.learning, "STEPS", 5)
    patch.setattr(ddpm.codec.learning, "MORE", 0)


def pictures(folder, count, side, seed=0):
    """Colour noise, one file each."""
    folder.mkdir(parents=True)
    values = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    for i, pixels in enumerate(values):
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """A folder with everything that the pages name."""
    place = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.chdir(place)
        short(patch)
        for folder, timesteps in SHIPPED.values():
            Path(folder).mkdir()
            stand_in(Path(folder) / "cifar10-small.safetensors", timesteps)
        Path("my_package.py").write_text(OWN_PRESET)
        full_range_model(1).save("model.safetensors")
        assert main(small(["ddpm", "train", "digits"])[1:]) == 0
        shutil.copytree("runs/digits", "RUN")
        shutil.copytree("runs/digits", "runs/stopped")
        made = ["sample", "runs/digits", "-n", "6", "--steps", "3"]
        assert main([*made, "--out", "FOLDER"]) == 0
        Path("FOLDER/samples.json").unlink()
        shutil.copy("FOLDER/000000.png", "IMAGE")
        shutil.copy("FOLDER/000000.png", "MASK")
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save("MASK", format="PNG")
        for split, count in (("train", 60), ("test", 20)):
            for i, name in enumerate(CLASSES):
                pictures(Path(f"PATH/TO/CIFAR-10/{split}/{name}"), count // 10 + 2, 32, i)
    return place


@pytest.fixture
def place(furnished, tmp_path, monkeypatch):
    """A copy of it, as the current folder, for one page."""
    shutil.copytree(furnished, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.syspath_prepend(tmp_path / "place")
    short(monkeypatch)
    with one_thread():
        yield tmp_path / "place"


def prepared(page):
    """Names that a page's Python takes for granted."""
    if page != "docs/latents.md":
        return {"ddpm": ddpm, "nn": torch.nn}
    model, images = tiny_model(timesteps=1000), tiny_images(2).images
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[4:8, 4:8] = True
    few = {"model": model, "images": images, "first": images[:1], "second": images[1:]}
    return few | {"mask": mask}


# -- what is found, and what is run ---------------------------------------------------------------

FOUND = {page: [block for block in blocks(page) if block.language in CODE] for page in PAGES}


def runs_here(block):
    """Whether this file runs it."""
    elsewhere = ELSEWHERE if block.language == "python" else SHELL_ELSEWHERE
    return not block.reason and block.page not in elsewhere


HERE = {page: found for page in PAGES if (found := [b for b in FOUND[page] if runs_here(b)])}


@pytest.mark.slow
@pytest.mark.parametrize("page", HERE)
def test_every_block_of_a_page_runs(place, page, monkeypatch):
    """In order, in one place, the Python in one set of names; what is printed stands below."""
    names, whole = prepared(page), blocks(page)
    for block in HERE[page]:
        shipped = place / SHIPPED[block.language][0]
        monkeypatch.setattr(ddpm.pretrained, "FOLDER", shipped)
        if block.language == "sh":
            for command in block.commands:
                words = shlex.split(command)
                assert words[0] == "ddpm", f"{block}: {command}: mark what cannot be run"
                cleared(words)
                assert main(small(words)[1:]) == 0, f"{block}: {command}"
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block.text, str(block), "exec"), names)
        after = whole[whole.index(block) + 1 :][:1]
        if after and after[0].language == "text" and out.getvalue():
            assert out.getvalue() == after[0].text, block


def cleared(words):
    """Remove what is there already where a command is to write."""
    if words[1] == "train" and not {"--resume", "--out", "--dry-run"} & {*words}:
        shutil.rmtree(Path("runs") / words[2], ignore_errors=True)
    for option, value in itertools.pairwise(words):
        path = Path(value)
        if option in ("-o", "--out") and words[1] != "sample" and path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_what_is_found_is_run_or_marked(record_property):
    """And nothing is missed: every fence has a language that is known, every command a fence."""
    found = [block for page in PAGES for block in FOUND[page]]
    marked = [block for block in found if block.reason]
    here = [block for blocks_of_page in HERE.values() for block in blocks_of_page]
    elsewhere = 0
    for table, language in ((ELSEWHERE, "python"), (SHELL_ELSEWHERE, "sh")):
        for page, (test, count) in table.items():
            unmarked = [b for b in FOUND[page] if b.language == language and not b.reason]
            assert len(unmarked) == count, page
            assert Path(page).name.removesuffix(".md") in (ROOT / test).read_text("utf-8"), test
            elsewhere += count
    assert len(found) == len(here) + elsewhere + len(marked)
    languages = Counter(block.language for page in PAGES for block in blocks(page))
    assert {*languages} <= {*CODE, *OUTPUT}, "a fence without a language that is known"
    assert {page: indented(page) for page in PAGES if indented(page)} == {}
    told = f"{len(found)} blocks: {len(here) + elsewhere} run, {len(marked)} marked"
    record_property("blocks", told)
    print(told)
    assert len(here) + elsewhere >= 4 * len(marked), "most blocks are run"


# -- every command, also within a line, has only options that there are ---------------------------


def written_commands(page):
    """All commands of a page that begin with `ddpm COMMAND`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    inline = re.findall(
        r"`(ddpm [a-z][^`]*)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    )
    fenced = [c for block in FOUND[page] if block.language == "sh" for c in block.commands]
    parts = [part for c in fenced for part in re.findall(r"(?:^|-m |exec )(ddpm .*)", c)]
    return [" ".join(command.split()) for command in [*inline, *parts]]


@pytest.fixture(scope="module")
def known():
    """The options of every command."""
    return {
        command: {
            flag
            for option in options(command, MODULES.get(command, command))
            for flag in option.flags
        }
        for command in COMMANDS
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_that_is_written_exists(known, page):
    for command in written_commands(page):
        words = command.split()
        if words[1] not in COMMANDS and not words[1].isalpha():
            continue
        assert words[1] in COMMANDS, f"{page}: {command}"
        flags = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        flags = {flag for flag in flags if "*" not in flag and flag.strip("-")}
        assert flags <= known[words[1]] | SWITCHES, f"{page}: {command}"


SWITCHES = {
    "--no-calibrated",
    "--frechet",
    "--dry-run",
    "--resume",
}  # the old name of one is told of
