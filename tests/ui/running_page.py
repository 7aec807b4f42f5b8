"""A running `ddpm ui`, and a page of it that is open in a browser."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import ddpm

HERE = Path(__file__).parent


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

    def stop(self, by=signal.SIGINT):
        """As Ctrl-C does, or by another signal; the exit code."""
        self.process.send_signal(by)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def files(self):
        """All files that it has written into the folder for temporary ones."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]


class Visit:
    """A page that is open, whose requests to other hosts are blocked and counted."""

    def __init__(self, browser, url, width=1280, height=900, scheme="light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
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
