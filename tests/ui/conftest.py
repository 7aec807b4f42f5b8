"""A server of a tiny model, a browser that reaches no other host, and what is missing for them."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import ddpm
from helpers import measured_model

HERE = Path(__file__).parent
AXE = "axe-core@4.14.1"
NEEDED = "DDPM_NEEDS_BROWSER"  # set by .ci/run: what is missing is then a failure


def missing(reason):
    """Skip, or fail where nothing may be missing."""
    if os.environ.get(NEEDED):
        pytest.fail(f"{reason}, and {NEEDED} is set")
    pytest.skip(reason)


class Server:
    """A running `ddpm ui`."""

    def __init__(self, folder, arguments):
        self.log, self.errors = folder / "connections.txt", folder / "stderr.txt"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        source = Path(ddpm.__file__).parents[1]
        environment = {**os.environ, "PYTHONPATH": str(source), "TMPDIR": str(self.temporary)}
        environment.pop("GRADIO_ANALYTICS_ENABLED", None)
        self.begun = time.monotonic()
        words = [sys.executable, HERE / "spied_server.py", self.log, "ui", *arguments]
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*map(str, words), "--port", "0"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        timer = threading.Timer(120, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        found = re.search(r"http://\S+", line)
        assert found, (line, self.errors.read_text())
        self.url = found[0]

    def stop(self):
        """As Ctrl-C does; the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def files(self):
        """All files that it has written into the folder for temporary ones."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]


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


class Visit:
    """A page that is open, whose requests to other hosts are blocked and counted."""

    def __init__(self, browser, url, width=1280, height=900):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True
        )
        self.strangers, self.complaints, self.host = [], [], urlsplit(url).netloc
        self.context.route("**/*", self._guard)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._listen)
        self.page.goto(url)

    def _guard(self, route):
        if urlsplit(route.request.url).netloc == self.host:
            route.continue_()
        else:
            self.strangers.append(route.request.url)
            route.abort()

    def _listen(self, message):
        if message.type == "error" and "413" not in message.text:
            self.complaints.append(message.text)

    def tab(self, name):
        """Open a tab."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def press(self, name):
        """Press a button of the open tab."""
        self.page.get_by_role("button", name=name, exact=True).locator("visible=true").click()

    def done(self):
        """Wait until the open tab says that its work is done."""
        self.page.locator("p.done:visible").wait_for()

    def close(self):
        """Nothing of another host was asked for, and no script failed."""
        self.context.close()
        assert self.strangers == []
        assert self.complaints == []


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
