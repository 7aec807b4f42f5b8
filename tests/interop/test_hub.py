"""Models by their name on the Hugging Face hub: from the cache, from a hub that is played here, and
the sentences for what cannot be had. Nothing outside this machine is asked."""

import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

import ddpm
from ddpm.cli import main
from interop.makers import (
    COMMIT,
    INDEX,
    LAYOUTS,
    PICKLED,
    SAFE,
    weights,
    write_cached,
    write_flat,
    write_json,
    write_nested,
)
from mistakes import everything_below, refused

NAME = "google/ddpm-cifar10-32"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of an empty cache, and no network beside it."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return folder


def import_here(source, out="run", *options):
    return main(["import", source, "--out", str(out), *options])


def has_the_weights(run):
    """Whether a run has the weights that `weights` makes."""
    found = ddpm.load(run, "cpu").network.state_dict()
    return torch.equal(found["conv_in.weight"], weights()["conv_in.weight"])


# -- the cache -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_model_is_read_from_the_cache(layout, pickled, cache, tmp_path, capsys):
    write_cached(cache, NAME, LAYOUTS[layout](tmp_path / "source", pickled=pickled))
    before = everything_below(cache)
    assert import_here(NAME) == 0
    assert f"imported {NAME} (diffusers)" in capsys.readouterr().out
    assert has_the_weights("run")
    assert ddpm.load("run", "cpu").history.origin == NAME
    assert everything_below(cache) == before


def test_links_as_the_cache_really_has_them_are_followed(cache, tmp_path):
    snapshot = write_cached(cache, NAME, write_nested(tmp_path / "source"))
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in snapshot.rglob("*") if p.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    assert import_here(NAME) == 0
    assert has_the_weights("run")


def test_a_blob_that_was_cleared_away_is_told(cache, tmp_path, capsys):
    snapshot = write_cached(cache, NAME, write_nested(tmp_path / "source"))
    (snapshot / "unet" / SAFE).unlink()
    (snapshot / "unet" / SAFE).symlink_to("../../../blobs/abc")
    refused(["import", NAME, "--out", "run"], capsys, SAFE, "blobs/abc", "does not exist")
    assert not Path("run").exists()


def test_a_revision_is_the_one_that_is_named(cache, tmp_path, capsys):
    write_cached(cache, NAME, write_flat(tmp_path / "source"))
    changed = {name: value + 1 for name, value in weights().items()}
    older = write_flat(tmp_path / "older", changed)
    write_cached(cache, NAME, older, commit=OTHER, ref="v1")
    assert import_here(NAME) == 0
    assert has_the_weights("run")
    for source in (f"{NAME}@v1", f"{NAME}@{OTHER}"):
        out = source.partition("@")[2]
        assert import_here(source, out) == 0
        assert not has_the_weights(out)
        assert ddpm.load(out, "cpu").history.origin == source
    refused(["import", f"{NAME}@v2", "--out", "v2"], capsys, f"{NAME}@v2", "HF_HUB_OFFLINE")


def test_a_cache_that_names_its_folders_otherwise_is_read_too(cache, tmp_path):
    write_cached(cache, NAME, write_flat(tmp_path / "source", pickled=True), commit="0123abc")
    assert import_here(NAME) == 0
    assert has_the_weights("run")


def test_a_folder_of_that_name_goes_before_the_cache(cache, tmp_path):
    changed = {name: value + 1 for name, value in weights().items()}
    write_cached(cache, NAME, write_flat(tmp_path / "source"))
    write_flat(tmp_path / NAME, changed)
    assert import_here(NAME) == 0
    assert not has_the_weights("run")


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["HF_HUB_CACHE", "HF_HOME"])
def test_the_settings_of_the_environment_are_obeyed(setting, tmp_path):
    cache = tmp_path / "home" / ("" if setting == "HF_HUB_CACHE" else "hub")
    write_cached(cache, NAME, write_flat(tmp_path / "source"))
    environment = clean(tmp_path) | {"HF_HUB_OFFLINE": "1", setting: str(tmp_path / "home")}
    done = import_in_a_process(tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert has_the_weights(tmp_path / "run")
    done = import_in_a_process(tmp_path, environment, "google/another", "second")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "second").exists()


# -- what cannot be had --------------------------------------------------------------------------


def test_a_model_that_is_not_in_the_cache_is_told(cache, tmp_path, capsys):
    words = ("there is no google/none here", str(cache), "HF_HUB_OFFLINE", "set it to 0")
    refused(["import", "google/none", "--out", "run"], capsys, *words)
    assert list(tmp_path.iterdir()) == [cache]
    assert list(cache.iterdir()) == []


def test_a_cache_with_a_part_of_it_is_told(cache, tmp_path, capsys):
    """A download that was broken off: the list of the files is there, and not all of them are."""
    snapshot = write_cached(cache, NAME, write_nested(tmp_path / "source"))
    listed = {
        str(path.relative_to(snapshot)): {"size": path.stat().st_size, "blob_id": "0" * 40}
        for path in snapshot.rglob("*")
        if path.is_file()
    }
    trees = snapshot.parents[1] / "trees"
    write_json(trees / f"{COMMIT}.json", {"format_version": 1, "files": listed})
    (snapshot / "unet" / SAFE).unlink()
    refused(["import", NAME, "--out", "run"], capsys, "does not have it whole", "HF_HUB_OFFLINE")
    assert not Path("run").exists()


def test_without_huggingface_hub_the_sentence_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    words = (NAME, "pip install huggingface_hub")
    refused(["import", NAME, "--out", "run"], capsys, *words)
    assert not list(tmp_path.iterdir())
    # What lies here needs it not.
    write_flat(tmp_path / "source")
    assert import_here("source") == 0


@pytest.mark.parametrize(
    "source",
    [
        *("cifar10", "a/b/c", "./a/b", "../a/b", "/a/b", "~/b", "a/b/", "a//b", "/b", "a/", ".a/b"),
        *("unet/diffusion_pytorch_model.bin", "weights/ema.ckpt", "runs/w.safetensors"),
        *("unet/config.json", "a b/c", "a/b c", "https://huggingface.co/google/ddpm-cifar10-32"),
        *("a\\b", "a/b@", "a/b@c d", "@/b", "a/b\n"),
    ],
)
def test_what_cannot_be_a_name_on_the_hub_is_not_asked_for(source, tmp_path, monkeypatch, capsys):
    def never(*arguments, **options):
        raise AssertionError("the hub was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", never)
    refused(["import", source, "--out", "run"], capsys, "does not exist", "owner/name")
    assert not list(tmp_path.iterdir())


def failing(error):
    def fetch(*arguments, **options):
        raise error

    return fetch


def response(status):
    return httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co"))


FAILURES = {
    "gated": (
        errors.GatedRepoError("403 Client Error.\n\nCannot access.", response=response(403)),
        ("consent", f"huggingface.co/{NAME}", "hf auth login"),
    ),
    "not there": (
        errors.RepositoryNotFoundError("404 Client Error.", response=response(404)),
        ("not there", "private", "hf auth login"),
    ),
    "no such revision": (
        errors.RevisionNotFoundError("404 Client Error.", response=response(404)),
        ("no revision 'v1'",),
    ),
    "no network": (
        errors.LocalEntryNotFoundError("Got: ConnectError: Name or service not known"),
        ("cannot be reached", "network"),
    ),
    "a connection that ends": (
        httpx2.RemoteProtocolError("peer closed connection\nwithout sending complete message"),
        ("RemoteProtocolError", "peer closed connection without sending"),
    ),
    "a proxy": (httpx2.ProxyError("407 Proxy Authentication Required"), ("ProxyError", "407")),
    "too slow": (httpx2.ReadTimeout("The read operation timed out"), ("ReadTimeout", "timed out")),
    "too many questions": (
        errors.HfHubHTTPError("429 Client Error: Too Many Requests", response=response(429)),
        ("429",),
    ),
    "a full disk": (OSError(28, "No space left on device"), ("No space left on device",)),
    "no permission": (PermissionError(13, "Permission denied", "/c"), ("Permission denied",)),
    "a name that cannot be": (
        errors.HFValidationError("Cannot have -- or .. in repo_id: 'a--b/c'."),
        ("Cannot have -- or ..",),
    ),
    "anything": (RuntimeError("x" * 5000), ("RuntimeError",)),
}


@pytest.mark.parametrize("name", FAILURES)
def test_why_a_model_cannot_be_had_is_told(name, tmp_path, monkeypatch, capsys):
    error, words = FAILURES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(error))
    command = ["import", f"{NAME}@v1", "--out", "run"]
    sentence = refused(command, capsys, f"there is no {NAME}@v1 here", *words)
    assert len(sentence) < 500
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_mistyped_is_told_as_what_it_may_be(cache, tmp_path, capsys):
    """A run that is not there looks like a name on the hub."""
    write_nested(tmp_path / "models" / "church")
    words = ("there is no models/chruch here", "Hugging Face hub")
    refused(["import", "models/chruch", "--out", "run"], capsys, *words)


# -- what is asked for ---------------------------------------------------------------------------


class Played:
    """In place of `snapshot_download`: keeps what it was asked for, and gives those files."""

    def __init__(self, source, to):
        self.source, self.folder, self.asked = source, to / COMMIT, []

    def __call__(self, name, *, revision=None, allow_patterns=None):
        self.asked.append((name, revision, allow_patterns))
        files = [str(p.relative_to(self.source)) for p in self.source.rglob("*") if p.is_file()]
        for name in huggingface_hub.utils.filter_repo_objects(files, allow_patterns=allow_patterns):
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((self.source / name).read_bytes())
        return str(self.folder)

    @property
    def given(self):
        """The files that were fetched."""
        found = (p for p in self.folder.rglob("*") if p.is_file())
        return sorted(str(path.relative_to(self.folder)) for path in found)


@pytest.fixture
def played(tmp_path, monkeypatch):
    """Plays a hub that has one model."""

    def play(source):
        hub_here = Played(source, tmp_path / "fetched")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", hub_here)
        monkeypatch.chdir(tmp_path)
        return hub_here

    return play


SETTINGS = {
    "flat": ["config.json", "model_index.json", "scheduler_config.json"],
    "nested": ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_what_is_needed_is_fetched_and_no_pickle_beside_safetensors(layout, played, tmp_path):
    source = LAYOUTS[layout](tmp_path / "source")
    unet = source / "unet" if layout == "nested" else source
    for name in (PICKLED, "diffusion_pytorch_model.fp16.safetensors", "optimizer.bin", "x.json"):
        (unet / name).write_bytes(b"not wanted")
    for name in ("checkpoint-1000/unet", "vae", "text_encoder"):
        write_json(source / name / "config.json", {})
        (source / name / SAFE).write_bytes(b"not wanted")
    here = played(source)
    assert import_here(NAME) == 0
    assert has_the_weights("run")
    below = "unet/" if layout == "nested" else ""
    assert here.given == sorted([*SETTINGS[layout], f"{below}{SAFE}"])
    patterns = [pattern for _, _, asked in here.asked for pattern in asked]
    assert not any("bin" in pattern and ".ema." not in pattern for pattern in patterns)
    assert [(name, revision) for name, revision, _ in here.asked] == [(NAME, None), (NAME, COMMIT)]


def test_averaged_weights_beside_raw_ones_are_those_that_come_from_the_hub(
    played, tmp_path, capsys
):
    """As from a folder, whatever the form of either."""
    source = write_flat(tmp_path / "source")
    other = {name: 2 * value for name, value in weights().items()}
    torch.save(other, source / "diffusion_pytorch_model.ema.bin")
    played(source)
    assert import_here(NAME) == 0
    assert "averaged ones (diffusion_pytorch_model.ema.bin)" in capsys.readouterr().out
    found = ddpm.load("run", "cpu").network.state_dict()["conv_in.weight"]
    assert torch.equal(found, other["conv_in.weight"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pickles_are_asked_for_once_no_safetensors_is_found(layout, played, tmp_path):
    here = played(LAYOUTS[layout](tmp_path / "source", pickled=True))
    assert import_here(f"{NAME}@v1") == 0
    assert has_the_weights("run")
    _, safe, unsafe = (patterns for _, _, patterns in here.asked)
    assert not any("bin" in pattern and ".ema." not in pattern for pattern in safe)
    assert any("bin" in pattern for pattern in unsafe)
    assert [revision for _, revision, _ in here.asked] == ["v1", COMMIT, COMMIT]


@pytest.mark.parametrize("variant", ["fp16.safetensors", "fp16.bin"])
def test_a_variant_is_fetched_where_there_is_nothing_else(variant, played, tmp_path, capsys):
    source = write_flat(tmp_path / "source", pickled=variant.endswith("bin"))
    name = f"diffusion_pytorch_model.{variant}"
    (source / (PICKLED if variant.endswith("bin") else SAFE)).rename(source / name)
    here = played(source)
    assert import_here(NAME) == 0
    assert name in here.given
    assert name in capsys.readouterr().out
    assert has_the_weights("run")


def test_averaged_weights_of_a_training_are_fetched_and_not_the_raw_ones(played, tmp_path):
    changed = {name: value + 1 for name, value in weights().items()}
    source = tmp_path / "source"
    write_nested(source, changed)
    write_nested(tmp_path / "other")
    (tmp_path / "other" / "unet").rename(source / "unet_ema")
    (source / "model_index.json").unlink()
    here = played(source)
    assert import_here(NAME) == 0
    assert has_the_weights("run")
    assert [name for name in here.given if name.endswith("safetensors")] == [f"unet_ema/{SAFE}"]


OTHER_MODELS = {
    "with a vae": (
        lambda folder: write_json(
            folder / "model_index.json", INDEX | {"vae": ["diffusers", "AutoencoderKL"]}
        ),
        ("'vae'",),
    ),
    "of text": (
        lambda folder: [
            (folder / "model_index.json").unlink(),
            (folder / "scheduler_config.json").unlink(),
            write_json(folder / "config.json", {"model_type": "bert"}),
        ],
        ("diffusers' layout",),
    ),
    "without settings": (
        lambda folder: [path.unlink() for path in folder.glob("*.json")],
        ("diffusers' layout",),
    ),
}


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_a_model_of_another_kind_is_refused_before_its_weights_are_fetched(
    name, played, tmp_path, capsys
):
    change, words = OTHER_MODELS[name]
    source = write_flat(tmp_path / "source")
    change(source)
    here = played(source)
    refused(["import", NAME, "--out", "run"], capsys, *words)
    assert len(here.asked) == 1
    assert not any(name.endswith("safetensors") for name in here.given)
    assert not Path("run").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_in_several_files_are_refused_without_fetching_them(
    suffix, played, tmp_path, capsys
):
    source = write_flat(tmp_path / "source")
    (source / SAFE).unlink()
    for part in (1, 2):
        (source / f"diffusion_pytorch_model-0000{part}-of-00002.{suffix}").write_bytes(b"part")
    write_json(source / f"diffusion_pytorch_model.{suffix}.index.json", {})
    here = played(source)
    refused(["import", NAME, "--out", "run"], capsys, "in several files")
    assert not any("-of-" in name for name in here.given)


def test_a_model_without_weights_is_told(played, tmp_path, capsys):
    source = write_flat(tmp_path / "source")
    (source / SAFE).rename(source / "diffusion_flax_model.msgpack")
    here = played(source)
    refused(["import", NAME, "--out", "run"], capsys, "holds no weights", SAFE)
    assert here.given == SETTINGS["flat"]


def test_what_was_loud_before_is_loud_again(cache, tmp_path, monkeypatch):
    """The notices and bars of huggingface_hub are its user's choice, but for our calls."""
    seen = []

    def look(*arguments, **options):
        utils = huggingface_hub.utils
        seen.append((utils.logging.get_verbosity(), utils.are_progress_bars_disabled()))
        raise KeyboardInterrupt

    utils = huggingface_hub.utils
    monkeypatch.setattr(huggingface_hub, "snapshot_download", look)
    for disabled in (False, True):
        (utils.disable_progress_bars if disabled else utils.enable_progress_bars)()
        before = utils.logging.get_verbosity(), utils.are_progress_bars_disabled()
        assert import_here(NAME) == 130
        assert (utils.logging.get_verbosity(), utils.are_progress_bars_disabled()) == before
    assert seen == [(40, True)] * 2
    utils.enable_progress_bars()


# -- a hub that answers --------------------------------------------------------------------------


class Answers(http.server.BaseHTTPRequestHandler):
    """What of the hub's answers a download needs; of one model, gated or not."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def answer(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_GET(self):
        path, source = urllib.parse.urlparse(self.path).path, self.server.source
        self.server.asked.append(path)
        if NAME not in path:
            refusal = {"X_Error_Code": "RepoNotFound", "X_Error_Message": "Repository not found"}
            self.answer(404, **refusal)
        elif "/revision/" in path:
            self.answer(200, json.dumps({"id": NAME, "sha": COMMIT}).encode())
        elif "/tree/" in path:
            files = [p for p in sorted(source.rglob("*")) if p.is_file()]
            listed = [
                {
                    "type": "file",
                    "path": str(p.relative_to(source)),
                    "size": p.stat().st_size,
                    "oid": f"{number:040x}",
                }
                for number, p in enumerate(files)
            ]
            self.answer(200, json.dumps(listed).encode())
        elif self.server.gated:
            gate = {"X_Error_Code": "GatedRepo", "X_Error_Message": "Access is restricted"}
            self.answer(403, **gate)
        else:
            file = source / path.split(f"/resolve/{COMMIT}/")[1]
            etag = f'"{sum(map(ord, file.name)):040x}"'
            self.answer(200, file.read_bytes(), ETag=etag, X_Repo_Commit=COMMIT)


@pytest.fixture
def answering(tmp_path):
    """A hub on this machine with one model, and the environment in which it is the hub."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.source, server.gated, server.asked = tmp_path / "source", False, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.environment = clean(tmp_path) | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def clean(folder):
    """The environment without settings of the hub and without proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING")) and not name.lower().endswith("_proxy")
    }
    return kept | {"HOME": str(folder), "NO_COLOR": "1"}


def import_in_a_process(folder, environment, source=NAME, out="run"):
    """The command as a user starts it."""
    command = [sys.executable, "-m", "ddpm", "import", source, "--out", str(folder / out)]
    options = {"capture_output": True, "text": True, "env": environment, "cwd": folder}
    return subprocess.run(command, timeout=120, check=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_model_is_fetched_once_and_then_read_from_the_cache(layout, answering, tmp_path):
    LAYOUTS[layout](answering.source)
    unet = answering.source / ("unet" if layout == "nested" else "")
    torch.save(weights(), unet / PICKLED)
    done = import_in_a_process(tmp_path, answering.environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert has_the_weights(tmp_path / "run")
    assert any(path.endswith(SAFE) for path in answering.asked)
    assert not any(path.endswith(".bin") for path in answering.asked)
    answering.asked.clear()
    offline = answering.environment | {"HF_HUB_OFFLINE": "1"}
    assert import_in_a_process(tmp_path, offline, out="again").returncode == 0
    assert has_the_weights(tmp_path / "again")
    assert answering.asked == []


@pytest.mark.slow
def test_a_hub_that_refuses_is_told_in_one_line(answering, tmp_path):
    write_flat(answering.source)
    done = import_in_a_process(tmp_path, answering.environment, "google/none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ddpm: there is no google/none here")
    assert "it is not there, or is private" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    answering.gated = True
    done = import_in_a_process(tmp_path, answering.environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "consent" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
