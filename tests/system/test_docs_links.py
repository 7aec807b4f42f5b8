"""Links and anchors as GitHub follows them, tables of contents, and what `make docs` installs.

`make docs` checks the same links on the site, where a dead one ends the build.
"""

import re
from functools import cache

import pytest

from doc_blocks import PAGES, ROOT

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(page):
    """A page without its blocks of code, and without code within lines."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace("]", ""), text)


def slug(heading):
    """GitHub's anchor of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(page):
    """All of a page; the second of a name has -1 behind it."""
    found, seen = set(), {}
    for heading in re.findall(r"^#{1,6} (.*)$", prose(page), re.M):
        name = slug(heading)
        count = seen[name] = seen.get(name, -1) + 1
        found.add(f"{name}-{count}" if count else name)
    return found


def dead(page):
    """Links of a page that lead nowhere."""
    for target in LINK.findall(prose(page)):
        if not re.match(r"https?://", target) and not leads(page, *target.partition("#")[::2]):
            yield target


def leads(page, path, anchor):
    """Whether there is such a file beside a page, and such an anchor in it."""
    file = (ROOT / page).parent / path if path else ROOT / page
    if not file.resolve().exists() or not anchor or file.suffix != ".md":
        return file.resolve().exists()
    return anchor in anchors(file.resolve().relative_to(ROOT).as_posix())


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    assert list(dead(page)) == []


def test_links_are_found_and_dead_ones_are_told(tmp_path, monkeypatch):
    page = "docs/dead-for-a-test.md"
    text = "# A (first) one\n[a](#a-first-one) [b](#b) [c](nowhere.md) [d](start.md#install)\n"
    read = type(ROOT).read_text

    def reads(path, *args, **kwargs):
        return text if path.name == "dead-for-a-test.md" else read(path, *args, **kwargs)

    monkeypatch.setattr(type(ROOT), "read_text", reads)
    monkeypatch.setattr(type(ROOT), "exists", lambda path: path.name != "nowhere.md")
    assert list(dead(page)) == ["#b", "nowhere.md"]


def test_there_are_many_links():
    assert sum(len(LINK.findall(prose(page))) for page in PAGES) > 150


def test_no_page_has_two_headings_of_one_anchor():
    """The second would be another anchor on the site than on GitHub."""
    for page in PAGES:
        headings = [slug(h) for h in re.findall(r"^#{1,6} (.*)$", prose(page), re.M)]
        if page == "CHANGELOG.md":
            continue
        assert len({*headings}) == len(headings), page


def test_the_table_of_contents_of_the_results_has_every_section():
    text = prose("RESULTS.md")
    contents = text.split("## Contents\n")[1].split("\n## ")[0]
    after = text.split("## Contents\n")[1]
    wanted = [slug(heading) for heading in re.findall(r"^#{2,3} (.*)$", after, re.M)]
    assert re.findall(r"\]\(#([^)]*)\)", contents) == wanted


def test_nothing_of_the_site_is_installed_for_the_demo_or_the_tests():
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extra = re.search(r"^docs = \[(.*?)\]  #", project, re.M)[1]
    wanted = sorted(word.strip('"') for word in extra.split(", "))
    installs = re.findall(r"pip install .*constraints.txt (.*)", make)
    assert sorted(installs[-1].replace("'", "").split()) == wanted
    assert not any("mkdocs" in line or "docs" in line for line in installs[:-1])
    dev = re.search(r"^dev = \[(.*?)^\]", project, re.M | re.S)[1]
    assert "mkdocs" not in dev


def test_every_page_of_docs_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    listed = re.findall(r": (\S+\.md)$", navigation.split("\nplugins:")[0], re.M)
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    examples = [f"examples/{path.stem}.md" for path in (ROOT / "examples").glob("*.py")]
    made = ["RESULTS.md", "CHANGELOG.md", "README.ko.md", "api.md"]
    assert sorted(listed) == sorted([*pages, *examples, *made])
