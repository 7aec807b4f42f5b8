"""`ddpm ui` as a command and as a server: what it says, what it answers, what it refuses."""

import hashlib
import http.client
import importlib.util
import json
import re
import signal
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from running_page import Server

import ddpm
from ddpm.cli import main
from ddpm.cli import ui as command
from mistakes import refused


def ask(server, method, path, body=None, **headers):
    """(status, headers, body) of a request."""
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, names)
    answer = connection.getresponse()
    try:
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_without_gradio_one_sentence_says_how_to_get_it(monkeypatch, capsys):
    found = importlib.util.find_spec
    absent = {"gradio"}
    monkeypatch.setattr(
        command.importlib.util, "find_spec", lambda n: None if n in absent else found(n)
    )
    refused(["ui"], capsys, "pip install 'ddpm-exact[ui]'")


def test_wrong_arguments_are_refused(needs_gradio, capsys, tmp_path):
    refused(["ui", "--port", "70000"], capsys, "--port must lie in 0..65535")
    refused(["ui", tmp_path / "nothing"], capsys, "nothing")
    refused(["ui", "--nonsense"], capsys, "--nonsense")


def test_help_tells_of_the_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["ui", "--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    for word in ("--port", "--host", "127.0.0.1", "without a network"):
        assert word in text


@pytest.mark.slow
def test_a_port_that_is_taken_is_told(needs_gradio, model_file, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(["ui", model_file, "--port", port], capsys, f"127.0.0.1:{port}", "another --port")


@pytest.mark.slow
def test_it_listens_on_this_machine_only(server):
    name = socket.gethostbyname(socket.gethostname())
    if name.startswith("127."):
        pytest.skip("this machine has no other address")
    where = name, urlsplit(server.url).port
    with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
        socket.create_connection(where, timeout=5)


@pytest.mark.slow
def test_the_page_asks_no_other_host_and_no_other_host_may_ask(server):
    status, headers, body = ask(server, "GET", "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert b"fonts.googleapis" not in body
    assert ask(server, "GET", "/", Host="evil.example")[0] == 400
    assert ask(server, "GET", "/model/1/")[0] == 200


@pytest.mark.slow
def test_files_are_handed_in_byte_for_byte_and_large_ones_refused_unread(server):
    data = hashlib.sha256(b"a").digest() * 1000
    status, _, token = ask(server, "POST", "/upload", data, X_Size=str(len(data)))
    assert status == 200
    assert len(token) > 20
    status, _, said = ask(server, "POST", "/upload", b"", X_Size="20000000")
    assert (status, said[:33]) == (413, b"the file has 20,000,000 bytes, an")
    status, _, said = ask(server, "POST", "/upload", bytes((16 << 20) + 5))
    assert status == 413


@pytest.mark.slow
def test_what_nobody_needs_is_closed(server):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nhi\r\n--x--\r\n'
    )
    kind = "multipart/form-data; boundary=x"
    assert ask(server, "POST", "/gradio_api/upload", body, Content_Type=kind)[0] == 404
    assert ask(server, "POST", "/model/1/gradio_api/upload", body, Content_Type=kind)[0] == 404
    assert ask(server, "GET", "/gradio_api/file=/etc/passwd")[0] in (403, 404)
    assert ask(server, "GET", "/download/guess/100")[0] == 404
    assert ask(server, "GET", "/docs")[0] == 404
    assert server.files() == []


@pytest.mark.slow
def test_gradio_is_told_to_be_silent(server):
    body = ask(server, "GET", "/config")[2]
    found = json.loads(body)
    assert found["analytics_enabled"] is False
    assert all(
        not call["queue"] or call["api_visibility"] == "private" for call in found["dependencies"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_at_once_and_leaves_nothing(needs_gradio, model_file, tmp_path, by):
    found = Server(tmp_path, [model_file])
    begun = time.monotonic()
    assert found.stop(by) == 0
    assert time.monotonic() - begun < 20
    assert list(found.temporary.iterdir()) == []
    assert found.log.read_text() == ""


def test_gradio_is_loaded_by_the_page_alone():
    root = Path(ddpm.__file__).parent
    asking = re.compile(r"^\s*(?:import|from) (?:gradio|uvicorn|fastapi|starlette)\b", re.M)
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if asking.search(path.read_text(encoding="utf-8"))
    }
    page = ("parts", "tabs", "compress_tab", "page", "server")
    assert found == {f"ui/{name}.py" for name in page}
    through = re.compile(rf"^(?:import|from) ddpm\.ui\.(?:{'|'.join(page)})\b", re.M)
    asks = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if through.search(path.read_text(encoding="utf-8"))
    }
    assert asks == {f"ui/{name}.py" for name in ("tabs", "compress_tab", "page", "server")}
