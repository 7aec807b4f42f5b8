"""Pictures of every tab of `ddpm ui`, in a wide window and in that of a phone.

    python benchmarks/page_pictures.py [MODEL] --out FOLDER

Needs the extras `ui` and `browser` and a Chromium. Each tab is used once: what is drawn is walked
half-way back, a flower is compressed, mixed, filled in and measured. docs/page-draw.png and
docs/page-compress.png are two of them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from playwright.sync_api import sync_playwright

WIDTHS = (1280, 390)
FLOWER = 4  # of the examples
TABS = {  # the button that is pressed, and what appears
    "Compress": ("Compress", "#compressed img"),
    "In between": ("Mix", "#mixed img"),
    "Fill in": ("Fill in", "#fillings img"),
    "How likely": ("Measure", "#likelihood svg"),
}


@dataclass(frozen=True)
class Options:
    """What is shown."""

    model: tyro.conf.Positional[str] = "cifar10-small"
    out: Path = Path("page")
    """A folder."""


def open_tab(page: Any, name: str) -> None:
    """Open a tab, also one that a narrow window hides in a menu."""
    found = page.get_by_role("tab", name=name, exact=True).locator("visible=true")
    if found.count():
        found.first.click()
        return
    page.locator(".overflow-menu button").first.click()
    page.locator(".overflow-dropdown button", has_text=name).click()


def press(page: Any, name: str) -> None:
    """Press a button of the open tab."""
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def take(page: Any, name: str, options: Options, width: int) -> None:
    """A picture of the page from top to bottom."""
    page.wait_for_timeout(600)
    out = options.out / f"{name.lower().replace(' ', '-')}-{width}.png"
    page.screenshot(path=out, full_page=True)
    print(out)


def walk(page: Any, options: Options, width: int) -> None:
    """Every tab."""
    page.wait_for_selector("#drawn img")
    page.locator("#moment input[type=range]").focus()
    for _ in range(7):
        page.keyboard.press("ArrowLeft")
    take(page, "Draw", options, width)
    for name, (button, appears) in TABS.items():
        open_tab(page, name)
        if name != "In between":
            page.locator("label.choice:visible").nth(FLOWER).click()
        if name == "Fill in":
            page.wait_for_timeout(600)
            press(page, "the middle")
        press(page, button)
        page.wait_for_selector(appears)
        page.locator("p.done:visible").wait_for()
        take(page, name, options, width)


def main(options: Options) -> None:
    """Serve, look, stop."""
    options.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ddpm", "ui", options.model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found is not None, "the server did not start"
            with sync_playwright() as playwright:
                path = shutil.which("chromium")
                browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
                for width in WIDTHS:
                    page = browser.new_page(viewport={"width": width, "height": 844})
                    page.set_default_timeout(120_000)
                    page.goto(found[0])
                    walk(page, options, width)
                    page.close()
                browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
