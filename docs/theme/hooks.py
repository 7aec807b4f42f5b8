"""What mkdocs does not do by itself: formulas, GitHub's anchors, pages made at the build.

- A fence of `math`, and $`...`$ within a line, become MathML, which browsers draw without a script
  or a font from elsewhere. GitHub reads the same source.
- Anchors are GitHub's, so that a link works there and here.
- RESULTS.md, CHANGELOG.md and the examples lie outside of docs/ and are pages all the same.
- The reference of the package is made of the docstrings of its public names.
"""

import ast
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(`{3,})")
INLINE = re.compile(r"\$`(.+?)`\$")
MARK = "formulaformula{}elumrof"
OUTSIDE = ("RESULTS.md", "CHANGELOG.md", "README.ko.md")

_formulas: list[str] = []


def github_slug(text, separator="-"):
    """The anchor of a heading: small letters, no punctuation, a hyphen for each space."""
    plain = re.sub(r"[^\w\- ]", "", text.strip().lower())
    return plain.replace(" ", "-")


def on_config(config):
    """Give headings GitHub's anchors."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = github_slug
    return config


def on_files(files, config):
    """Add the pages that are made here."""
    made = {name: (ROOT / name).read_text("utf-8") for name in OUTSIDE}
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text("utf-8")
        about = ast.get_docstring(ast.parse(text)) or ""
        made[f"examples/{path.stem}.md"] = (
            f"# examples/{path.name}\n\n{about.splitlines()[0]}\n\n````python\n{text}````\n"
        )
    made["api.md"] = reference()
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def reference():
    """A page of all public names, each with its signature and docstring."""
    tree = ast.parse((ROOT / "src" / "ddpm" / "__init__.py").read_text("utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    values = {
        target.id: node.value
        for node in assigned
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    lines = [
        "# Reference",
        "",
        "Every public name of `import ddpm`, made of the docstrings. What else a page of this "
        "documentation imports stands at the end.",
        "",
    ]
    homes = ast.literal_eval(values["_HOMES"])
    for home, names in (*homes.items(), *ELSEWHERE.items()):
        lines += [f"## {home.removeprefix('ddpm.')}", ""]
        for name in names:
            lines += [f"::: {home}.{name}", ""]
    return "\n".join(lines)


ELSEWHERE = {  # public too, by their module
    "ddpm.latents": ("denoise", "diffuse", "inpaint", "interpolate", "invert"),
    "ddpm.evaluation": ("compare", "get_features", "measure", "open_set"),
}


def on_page_markdown(markdown, page, config, files):
    """Formulas out of the text, before anything can take them for emphasis; links to where the
    pages from outside of docs/ lie here."""
    lines: list[str] = []
    fence, formula = None, None
    for line in markdown.split("\n"):
        if fence is None and line == "```math":
            fence, formula = "```", []
        elif fence is None and (opened := FENCE.match(line)):
            fence = opened[0]
            lines.append(line)
        elif line == fence and formula is not None:
            mark = kept(" ".join(formula), "block")
            lines.append(f'<div class="formula">{mark}</div>')
            fence, formula = None, None
        elif formula is not None:
            formula.append(line)
        else:
            fence = None if line == fence else fence
            lines.append(line if fence else INLINE.sub(lambda x: kept(x[1], "inline"), line))
    if fence is not None:
        raise PluginError(f"{page.file.src_uri}: a fence is not closed")
    return at_home("\n".join(lines), page.file.src_uri)


def kept(formula, display):
    """A mark in the place of a formula, which markdown leaves alone.

    What the library does not know it passes on as text with its backslash; that ends the build.
    """
    drawn = convert(formula.strip(), display=display)
    if "\\" in drawn or formula.count("{") != formula.count("}"):
        raise PluginError(f"a formula cannot be drawn: {formula}")
    _formulas.append(drawn)
    return MARK.format(len(_formulas) - 1)


def at_home(markdown, source):
    """The links of a page, as they are here."""
    up = "../" * source.count("/")
    if source in OUTSIDE:
        markdown = re.sub(r"\]\(docs/", "](", markdown)
        return markdown.replace("](README.md)", "](index.md)")
    markdown = re.sub(rf"\]\({up}\.\./(RESULTS|CHANGELOG)\.md", rf"]({up}\1.md", markdown)
    markdown = re.sub(rf"\]\({up}\.\./README\.ko\.md", rf"]({up}README.ko.md", markdown)
    markdown = re.sub(rf"\]\({up}\.\./README\.md", rf"]({up}index.md", markdown)
    return re.sub(rf"\]\({up}\.\./examples/(\w+)\.py", rf"]({up}examples/\1.md", markdown)


def on_page_content(html, page, config, files):
    """Put the formulas back."""
    return re.sub(MARK.format(r"(\d+)"), lambda mark: _formulas[int(mark[1])], html)


def on_post_page(output, page, config):
    """Say which language a page is in."""
    korean = page.file.src_uri.startswith("ko/") or page.file.src_uri == "README.ko.md"
    return output.replace('<html lang="en"', '<html lang="ko"', 1) if korean else output
