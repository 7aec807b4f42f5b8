"""A server of a tiny model, a browser that reaches no other host, and what is missing for them."""

import importlib.util
import os
import shutil
import subprocess

import pytest
from running_page import Server, Visit

from helpers import measured_model

AXE = "axe-core@4.14.1"
NEEDED = "DDPM_NEEDS_BROWSER"  # set by .ci/run: what is missing is then a failure


def missing(reason):
    """Skip, or fail where nothing may be missing."""
    if os.environ.get(NEEDED):
        pytest.fail(f"{reason}, and {NEEDED} is set")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def needs_gradio():
    """Gradio is installed."""
    if importlib.util.find_spec("gradio") is None:
        missing("Gradio is not installed (the extra `ui`)")


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A tiny model of digits that can compress."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    measured_model().save(path)
    return path


@pytest.fixture(scope="session")
def server(needs_gradio, model_file, tmp_path_factory):
    """A server of the tiny model, and of one that comes along."""
    found = Server(tmp_path_factory.mktemp("server"), [model_file, "cifar10-small"])
    yield found
    found.stop()


@pytest.fixture(scope="session")
def chromium(needs_gradio):
    """A browser: Debian's, which is not told to fetch one of its own."""
    if importlib.util.find_spec("playwright") is None:
        missing("Playwright is not installed (the extra `browser`)")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        missing("there is no Chromium (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, server):
    """Opens pages of the server."""
    opened = []

    def open_page(path="", **size):
        opened.append(Visit(chromium, server.url + path, **size))
        return opened[-1]

    yield open_page
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def axe(pytestconfig):
    """The text of axe-core, which npm fetches once."""
    folder = pytestconfig.cache.mkdir("axe-core")
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        npm = shutil.which("npm")
        if npm is None:
            missing("there is no npm to fetch axe-core with")
        words = [npm, "install", "--silent", "--ignore-scripts", "--prefix", str(folder), AXE]
        if subprocess.run(words, check=False, timeout=300).returncode:
            missing(f"npm could not fetch {AXE}")
    return script.read_text(encoding="utf-8")
