"""Data flows one way: docs/architecture.md's order, and no import that goes against it."""

import ast
import re
from pathlib import Path

import pytest

import ddpm

ROOT = Path(ddpm.__file__).parent
# The lowest first; a room may import those before it and itself.
ORDER = (
    "errors", "registry", "runtime", "diffusion", "networks", "data", "sampling", "likelihood",
    "config", "pretrained", "runs", "codec", "compression", "model",
    "interop", "loading", "latents", "provenance", "evaluation", "figures", "training", "ui", "cli",
)  # fmt: skip


def room(module):
    """The part of the package that a module belongs to."""
    return module.split(".")[1] if "." in module else None


def imported(path):
    """All of the package's modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "ddpm":
            yield from (f"ddpm.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ddpm."):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ddpm."))


def modules():
    """Name and path of every module of the package but its front door."""
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(("ddpm", *path.relative_to(ROOT).with_suffix("").parts))
        if name not in ("ddpm.__init__", "ddpm.__main__"):
            yield name.removesuffix(".__init__"), path


def test_nothing_imports_upwards():
    upwards = [
        f"{name} imports {other}"
        for name, path in modules()
        for other in imported(path)
        if room(other) != "__version__" and ORDER.index(room(other)) > ORDER.index(room(name))
    ]
    assert upwards == []


def test_no_modules_of_a_room_import_one_another_in_a_circle():
    graph = {name: set(imported(path)) & dict(modules()).keys() for name, path in modules()}
    ready: set[str] = set()
    while len(ready) < len(graph):
        # A package's front door may name what is in it.
        now = {n for n, needs in graph.items() if n not in ready and needs - {n} <= ready}
        assert now, sorted(graph.keys() - ready)
        ready |= now


def test_the_diffusion_maths_knows_neither_devices_nor_files_nor_progress():
    for name, path in modules():
        if room(name) == "diffusion":
            others = {room(module) for module in imported(path)}
            assert others <= {"errors", "diffusion"}, name
    for name, path in modules():
        if room(name) not in ("cli",):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(from|import) (rich|tyro)\b", text, re.M), name


@pytest.mark.parametrize("room_name", ORDER)
def test_the_page_shows_every_room(room_name):
    page = (ROOT.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.search(rf"^{room_name}(/|\.py|\b)", page, re.M)


def documentation(tree):
    """How many lines of a module are docstrings, also of fields."""
    return sum(
        node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def test_a_module_is_one_idea_and_a_function_can_be_seen_at_once():
    for name, path in modules():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        assert len(text.splitlines()) - documentation(tree) <= 280, name
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{name}.{node.name} has {length} lines"
