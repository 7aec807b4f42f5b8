"""The public face: what `import ddpm` offers, how fast, how typed, and what `help` says of it."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ddpm

EXAMPLES = Path(__file__).parents[1] / "examples"
TOUCHED = [
    "train",
    "load",
    "register",
    "Plan",
    "Config",
    "Ddpm",
    "History",
    "Bound",
    "DenoisingError",
    "Decompressed",
    "ImageFormat",
    "MemoryImages",
    "Ancestral",
    "Ddim",
    "DpmSolver",
    "Heun",
    "UniPc",
    "Langevin",
    "Sampler",
    "Loss",
    "Progress",
    "NetworkConfig",
    "UNetConfig",
]


def test_every_public_name_is_there_and_every_name_a_user_touches_is_public():
    for name in ddpm.__all__:
        assert getattr(ddpm, name) is not None, name
    assert set(TOUCHED) <= set(ddpm.__all__)
    assert set(ddpm.__all__) <= set(dir(ddpm))
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        ddpm.unheard_of  # noqa: B018


def test_what_a_type_checker_sees_is_what_there_is():
    source = Path(ddpm.__file__).read_text(encoding="utf-8")
    block = source.split("if TYPE_CHECKING:\n")[1].split("\n\n__version__")[0]
    seen = {}
    for home, names in re.findall(r"from (ddpm[\w.]*) import (\([^)]*\)|[^\n]+)", block):
        seen |= dict.fromkeys(re.findall(r"\w+", names), home)
    assert seen == ddpm._HOME_OF
    assert {*seen, "__version__"} == set(ddpm.__all__)
    assert (Path(ddpm.__file__).parent / "py.typed").is_file()


def test_the_parts_are_reachable_without_importing_them():
    for part in ddpm._PARTS:
        assert inspect.ismodule(getattr(ddpm, part)), part
    home = Path(ddpm.__file__).parent
    rooms = {path.parent.name for path in home.glob("*/__init__.py")}
    modules = {path.stem for path in home.glob("[!_]*.py")}
    assert set(ddpm._PARTS) == rooms | modules


def check_public(module, name):
    """A name of `ddpm`, or one that a part of it lists at its door."""
    part = module is ddpm and name in ddpm._PARTS
    assert part or name in module.__all__, f"{module.__name__}.{name}"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_use_public_names_only(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                plain = alias.name == "ddpm" and alias.asname is None
                assert plain or alias.name.split(".")[0] != "ddpm", ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ddpm":
            home = importlib.import_module(node.module)
            for alias in node.names:
                assert alias.name in home.__all__, ast.unparse(node)
        elif isinstance(node, ast.Attribute):
            first, *names = ast.unparse(node).split(".")
            if first != "ddpm" or not all(map(str.isidentifier, names)):
                continue
            found = ddpm
            for name in names:
                if inspect.ismodule(found):
                    check_public(found, name)
                found = getattr(found, name, None)


def loaded(statement):
    """Which heavy libraries a fresh interpreter has loaded after a statement."""
    heavy = ("torch", "sklearn", "tensorboard", "matplotlib", "tyro", "rich", "accelerate")
    program = f"{statement}\nimport sys\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return eval(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import ddpm", []),
        ("from ddpm.cli import main; main(['--help'])", []),
        ("import ddpm; ddpm.load, ddpm.Plan", ["torch"]),
        ("import ddpm; ddpm.train", ["torch", "matplotlib"]),
        ("from ddpm.cli import main; main(['models'])", ["torch", "tyro", "rich"]),
    ],
)
def test_nothing_is_loaded_before_it_is_needed(statement, allowed):
    assert set(loaded(statement)) <= set(allowed)


def public_functions():
    """Every public function, and every public method of a public class that is our own."""
    for name in ddpm.__all__:
        thing = getattr(ddpm, name)
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing) and thing.__module__.startswith("ddpm."):
            for key, member in vars(thing).items():
                if inspect.isfunction(member) and not key.startswith("_"):
                    yield f"{name}.{key}", member


def test_help_says_everything():
    for name, function in public_functions():
        assert inspect.getdoc(function), name
        kinds = {p.kind for p in inspect.signature(function).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, name
        hints = inspect.signature(function)
        assert hints.return_annotation is not inspect.Signature.empty, name


GOOD = """
import torch
import ddpm


def mine(
    diffusion: ddpm.GaussianDiffusion,
    denoiser: ddpm.Denoiser,
    x_start: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    return noise.flatten(1).mean(1)


images = ddpm.open_data("digits", image_size=8, channels=1)
result = ddpm.train(ddpm.get_preset("digits"), images, "runs/x", loss=mine)
model = ddpm.load(result.run, device="cpu", precision="fp32")
drawn = model.sample(7, sampler=ddpm.Ddim(eta=0.5), plan=ddpm.Plan(50, "optimal", "analytic"))
bits: float = model.bits_per_dim(drawn)
data: bytes = model.compress(list(drawn))
back: list[torch.Tensor] = model.decompress(data).images
reveal_type(model.sample(1))
"""
BAD = """
import ddpm

model = ddpm.load("x")
model.sample("seven")
model.sample(7, plan=ddpm.Plan(50, "best"))
model.compress([], stepz=3)
ddpm.train(ddpm.Config(), 3, "runs/x")
"""


@pytest.mark.slow
def test_a_users_program_is_type_checked(tmp_path):
    for name, text in (("good", GOOD), ("bad", BAD)):
        (tmp_path / f"{name}.py").write_text(text)
    options = ["--cache-dir", str(tmp_path / "cache"), "--ignore-missing-imports"]

    def check(name):
        command = [sys.executable, "-m", "mypy", *options, f"{name}.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout

    good = check("good")
    assert "error:" not in good, good
    assert 'Revealed type is "torch' in good
    bad = check("bad")
    assert [line for line in bad.splitlines() if "error:" in line][:4] == [
        line
        for number in (5, 6, 7, 8)
        for line in bad.splitlines()
        if f"bad.py:{number}: error" in line
    ][:4]
    assert bad.count("error:") >= 4
