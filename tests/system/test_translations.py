"""Korean pages are of the English pages as they are now, and run the same code."""

import importlib.util
import shutil

import pytest

from doc_blocks import ROOT, blocks

TOOL = ROOT / "docs" / "theme" / "translated.py"


def load(path):
    """The tool as a module, of the repository or of a copy."""
    spec = importlib.util.spec_from_file_location("translated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load(TOOL)
PAGES = tool.translations()


def test_the_pages_that_are_translated():
    names = ("compression", "glossary", "sampling", "start", "theory")
    assert ["README.ko.md", *(f"docs/ko/{name}.md" for name in names)] == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_of_the_english_one_as_it_is_now(page):
    english, known, now = tool.state(page)
    assert known == now, (
        f"{english} has changed: bring {page} up to it, and then run "
        "`python docs/theme/translated.py --update`"
    )


@pytest.mark.parametrize("page", PAGES)
def test_code_and_formulas_are_those_of_the_english_page(page):
    """But for comments, which are translated."""
    english = tool.state(page)[0]
    ours, theirs = ([bare(block) for block in blocks(name)] for name in (page, english))
    assert ours == theirs


def bare(block):
    """Language and text without comments."""
    lines = [line.split("  # ")[0].split("    # ")[0].rstrip() for line in block.text.splitlines()]
    return block.language, lines, bool(block.reason)


@pytest.mark.parametrize("page", PAGES)
def test_it_has_as_many_headings_and_rows_as_the_english_page(page):
    english = tool.state(page)[0]
    counted = [
        [sum(line.startswith(mark) for line in (ROOT / name).read_text("utf-8").splitlines())
         for mark in ("## ", "![")]
        for name in (page, english)
    ]  # fmt: skip
    assert counted[0] == counted[1]


@pytest.fixture
def copy(tmp_path):
    """The tool and the pages in another place."""
    for page in [*PAGES, *(tool.state(page)[0] for page in PAGES)]:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    (tmp_path / "docs" / "theme").mkdir()
    return load(shutil.copy(TOOL, tmp_path / "docs" / "theme" / "translated.py")), tmp_path


def test_a_change_of_the_english_page_is_told_and_updated(copy, capsys):
    moved, place = copy
    assert moved.main([]) == 0
    with (place / "docs" / "start.md").open("a", encoding="utf-8") as file:
        file.write("\nOne sentence more.\n")
    assert moved.main([]) == 1
    assert capsys.readouterr().out.startswith("docs/ko/start.md is behind: docs/start.md was ")
    assert moved.main(["--update"]) == 0
    assert moved.main([]) == 0
    assert "시작하기" in (place / "docs" / "ko" / "start.md").read_text("utf-8")


def test_a_page_without_its_head_is_told(copy):
    moved, place = copy
    page = place / "docs" / "ko" / "start.md"
    page.write_text(page.read_text("utf-8").split("\n", 1)[1], "utf-8")
    with pytest.raises(SystemExit, match="does not begin with"):
        moved.main([])
