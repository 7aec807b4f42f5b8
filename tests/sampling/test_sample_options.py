"""`ddpm sample` as typed: options without effect, what is said, files that are not replaced."""

import pytest

from ddpm.cli import main
from ddpm.networks.unet import UNet
from helpers import checkpoint_path, measured_model, tiny_model
from mistakes import everything_below, refused


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two runs: `plain`, and `measured`, whose denoising error is known."""
    folder = tmp_path_factory.mktemp("runs")
    tiny_model().save(checkpoint_path(folder / "plain", 3))
    measured_model().save(checkpoint_path(folder / "measured", 3))
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, an empty one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(runs):
    """That draws two images."""
    return ["sample", str(runs / "plain"), "-n", "2"]


@pytest.fixture
def no_call(monkeypatch):
    """The network must not be asked."""
    monkeypatch.setattr(UNet, "forward", lambda *_, **__: pytest.fail("the network was called"))


SAMPLE = {
    "even without steps": (["--trajectory", "even"], ["--steps"]),
    "quadratic without steps": (["--trajectory", "quadratic"], ["--steps"]),
    "optimal without steps": (["--trajectory", "optimal"], ["--steps"]),
    "no such trajectory": (["--trajectory", "nonsense"], ["nonsense"]),
    "no such trajectory with steps": (["--trajectory", "nonsense", "--steps", "5"], ["nonsense"]),
    "timesteps of another number": (["--trajectory", "0", "19", "--steps", "5"], ["5", "2"]),
    "timesteps that do not rise": (["--trajectory", "9", "3", "19"], []),
    "timesteps without the last": (["--trajectory", "0", "9"], ["19"]),
    "a timestep beyond the last": (["--trajectory", "0", "20"], ["19"]),
    "no steps": (["--steps", "0"], ["0"]),
    "steps below 0": (["--steps", "-3"], ["-3"]),
    "too many steps": (["--steps", "21"], ["21", "20"]),
    "half a step": (["--steps", "2.5"], ["2.5"]),
    "variance of ddim": (["--sampler", "ddim", "--variance", "fixed_small"], ["--variance"]),
    "variance of dpm-solver": (
        ["--sampler", "dpm-solver", "--steps", "5", "--variance", "fixed_large"],
        ["--variance"],
    ),
    "variance of langevin": (
        ["--sampler", "langevin", "--variance", "fixed_small"],
        ["--variance"],
    ),
    "no such variance": (["--variance", "nonsense"], ["nonsense"]),
    "a variance not learned": (["--variance", "learned"], ["learned"]),
    "eta of ancestral": (["--eta", "1"], ["--eta", "ddim"]),
    "eta of dpm-solver": (["--eta", "0.5", "--sampler", "dpm-solver"], ["--eta", "ddim"]),
    "eta of langevin": (["--eta", "0", "--sampler", "langevin"], ["--eta", "ddim"]),
    "eta above 1": (["--eta", "1.5", "--sampler", "ddim"], ["1.5"]),
    "no such sampler": (["--sampler", "euler"], ["euler", "dpm-solver"]),
    "not measured, optimal": (["--steps", "5", "--trajectory", "optimal"], ["measure"]),
    "not measured, analytic": (["--variance", "analytic"], ["measure"]),
    "no images": (["-n", "0"], ["0"]),
    "a batch of none": (["--batch-size", "0"], ["0"]),
    "a seed below 0": (["--seed", "-1"], ["-1"]),
}
EVALUATE = {
    "sampler of bpd": (["--bpd", "--sampler", "ddim"], ["--sampler"]),
    "sampler of codec": (["--codec", "--sampler", "ddim"], ["--sampler"]),
    "seed of codec": (["--codec", "--seed", "5"], ["--seed"]),
    "variance of codec": (["--codec", "--variance", "fixed_small"], ["--variance"]),
    "trajectory of codec": (
        ["--codec", "--steps", "4", "--trajectory", "even"],
        ["--trajectory"],
    ),
    "trajectory without steps": (["--bpd", "--trajectory", "quadratic"], ["--steps"]),
    "variance of samples of ddim": (
        [
            *("--features", "pixels", "--samples", "4", "--sampler", "ddim", "--steps", "3"),
            *("--variance", "fixed_small"),
        ],
        ["--variance"],
    ),
}
OPTIONS = [
    pytest.param(verb, *case, id=f"{verb}: {name}")
    for verb, cases in (("sample", SAMPLE), ("evaluate", EVALUATE))
    for name, case in cases.items()
]


@pytest.mark.parametrize(("verb", "options", "words"), OPTIONS)
def test_an_option_without_effect_is_refused(verb, options, words, runs, capsys, no_call, here):
    measured = verb == "evaluate"
    before = everything_below(runs)
    refused([verb, runs / ("measured" if measured else "plain"), *options], capsys, *words)
    assert everything_below(runs) == before
    assert list(here.iterdir()) == []


SAYS = {
    "all steps": ("plain", [], ["ancestral", "20", "fixed_large"]),
    "few": ("plain", ["--steps", "5"], ["ancestral", "5", "fixed_small"]),
    "few, measured": ("measured", ["--steps", "5"], ["ancestral", "5", "analytic"]),
    "ddim": ("plain", ["--steps", "5", "--sampler", "ddim"], ["ddim", "5"]),
    "ddim, eta": ("plain", ["--sampler", "ddim", "--eta", "0.25"], ["ddim", "0.25", "20"]),
    "dpm-solver": ("plain", ["--steps", "5", "--sampler", "dpm-solver"], ["dpm-solver", "5"]),
    "langevin": ("measured", ["--steps", "7", "--sampler", "langevin"], ["langevin", "7"]),
    "asked for": (
        "measured",
        ["--steps", "4", "--trajectory", "even", "--variance", "fixed_large"],
        ["ancestral", "4", "even", "fixed_large"],
    ),
    "own timesteps": ("plain", ["--trajectory", "0", "4", "19"], ["ancestral", "3"]),
}


@pytest.mark.parametrize("name", SAYS)
def test_sample_says_how_it_drew(name, runs, tmp_path, capsys):
    which, options, words = SAYS[name]
    assert (
        main(["sample", str(runs / which), "-n", "1", "--out", str(tmp_path / "x"), *options]) == 0
    )
    said = capsys.readouterr().out.replace(str(tmp_path), "").replace(str(runs), "")
    for word in words:
        assert word in said


# -- a grid or an array --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.png", "samples.png"])
def test_a_file_that_is_named_and_there_is_not_replaced(name, command, here, capsys, monkeypatch):
    assert main([*command, "--out", name]) == 0
    before = everything_below(here)
    monkeypatch.setattr(UNet, "forward", lambda *_, **__: pytest.fail("drawn in vain"))
    refused([*command, "--out", name], capsys, name)
    assert everything_below(here) == before


def test_the_default_file_gets_a_number_when_it_is_there(command, here, capsys):
    before = {}
    for seed, name in enumerate(["samples.png", "samples-1.png", "samples-2.png"]):
        assert main([*command, "--seed", str(seed)]) == 0
        after = everything_below(here)
        assert before.items() <= after.items()
        assert [path.name for path in set(after) - set(before)] == [name]
        assert name in capsys.readouterr().out
        before = after


@pytest.mark.parametrize(
    "options", [[], ["--out", "y.png"], ["--out", "y.npz"]], ids=["default", "png", "npz"]
)
def test_neither_is_a_progressive_strip_replaced(options, command, here):
    assert main([*command, "--progressive"]) == 0
    (here / "y-progressive.png").write_bytes(b"mine")
    before = everything_below(here)
    main([*command, "--progressive", "--seed", "1", *options])
    assert before.items() <= everything_below(here).items()
