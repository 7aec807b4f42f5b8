"""The list of the checkpoints that archives need: who may write it, and what it may look like."""

import os
from pathlib import Path

import pytest

from ddpm.errors import DdpmError
from ddpm.loading import checkpoints_of, load, store_measured
from ddpm.runs.folder import RunFolder, in_runs, name_beside
from ddpm.runs.pins import keep, make_way, pinned_by
from ddpm.training import train
from helpers import checkpoint_path, measured_model, tiny_config, tiny_images


@pytest.fixture
def run(tmp_path):
    """A run of three checkpoints, which hold nothing."""
    for step in (1, 2, 3):
        path = checkpoint_path(tmp_path / "run", step)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return RunFolder(tmp_path / "run")


def names(run):
    """Of what is pinned."""
    return [path.name for path in run.pinned()]


STEPS = [f"step-0000000{step}.safetensors" for step in (1, 2, 3)]


def test_two_processes_that_pin_at_once_are_both_heard(run, monkeypatch):
    read = RunFolder.pinned

    def slowly(self):
        found = read(self)
        monkeypatch.setattr(RunFolder, "pinned", read)
        self.pin(self.checkpoint(2))  # of the other process
        return found

    monkeypatch.setattr(RunFolder, "pinned", slowly)
    run.pin(run.checkpoint(1))
    assert sorted(names(run)) == STEPS[:2]


def test_a_checkpoint_is_pinned_once(run):
    assert [run.pin(run.checkpoint(1)) for _ in range(2)] == [True, False]
    assert run.pins.read_bytes() == f"{STEPS[0]}\n".encode()


@pytest.mark.parametrize("text", ["\ufeff{0}\r\n{1}\r\n", "{0}\n{1}", "\n  {0} \n\n{1}\n{0}\n"])
def test_a_list_that_an_editor_has_saved_is_read_and_added_to(run, text):
    run.pins.write_bytes(text.format(*STEPS).encode())
    assert names(run) == STEPS[:2]
    run.pin(run.checkpoint(3))
    assert names(run) == STEPS


def test_a_name_may_have_a_space(run):
    run.pin(run.checkpoint(0).with_name("step-3 copy.safetensors"))
    assert names(run) == ["step-3 copy.safetensors"]


@pytest.fixture(params=["utf-16", "utf-16-le", "latin-1"])
def unreadable(run, request):
    """The run with a list in another encoding."""
    run.pins.write_bytes(f"{STEPS[0]}\né\n".encode(request.param))
    return run


def test_a_list_in_another_encoding_is_one_sentence_and_stays(unreadable):
    before = unreadable.pins.read_bytes()
    with pytest.raises(DdpmError, match=r"pinned\.txt, which .* is not UTF-8; save it as UTF-8"):
        unreadable.pinned()
    with pytest.raises(DdpmError, match="UTF-8"):
        unreadable.pin(unreadable.checkpoint(1))
    assert unreadable.pins.read_bytes() == before


def test_a_pin_that_comes_while_checkpoints_are_removed_is_obeyed(run, monkeypatch):
    for step in (4, 5):
        run.checkpoint(step).touch()
    unlink = Path.unlink

    def removed(path, missing_ok=False):
        run.pin(run.checkpoint(2))  # of another process
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", removed)
    run.rotate(run.checkpoint(5))
    assert [path.name[-13:-12] for path in run.checkpoints()] == ["2", "4", "5"]


def test_where_pins_cannot_be_read_rotation_removes_nothing(unreadable, caplog):
    unreadable.rotate(unreadable.checkpoint(3))
    assert len(unreadable.checkpoints()) == 3
    assert "no checkpoint is removed" in caplog.text
    unreadable.pins.write_text("")
    unreadable.rotate(unreadable.checkpoint(3))
    assert [path.name for path in unreadable.checkpoints()] == STEPS[1:]


def test_where_pins_cannot_be_read_checkpoints_are_found_and_put_aside(unreadable, caplog):
    assert [path.name for path in checkpoints_of(unreadable)] == STEPS[::-1]
    assert "UTF-8" in caplog.text
    unreadable.quarantine(2)
    assert [path.name for path in unreadable.checkpoints()] == STEPS[:1]


def test_a_pin_goes_with_a_checkpoint_that_is_put_aside(run):
    run.pins.write_bytes(f"\ufeff{STEPS[2]}\r\n{STEPS[0]}".encode())
    run.quarantine(3)
    assert names(run) == [STEPS[0], f"diverged-{STEPS[2]}"]
    assert all(path.exists() for path in run.pinned())
    assert pinned_by(run.pinned()[1]) == run


# -- links -----------------------------------------------------------------------------------------


def linked(kind, run):
    """A checkpoint of a run under another name."""
    place, file = run.path.parent, run.checkpoint(1)
    if kind == "a file":
        (place / "best").symlink_to(file)
        return place / "best"
    if kind == "a link of a link":
        (place / "one").symlink_to("run/checkpoints/../checkpoints/" + file.name)
        (place / "best").symlink_to("one")
        return place / "best"
    if kind == "its folder":
        (place / "here").symlink_to(file.parent)
        return place / "here" / file.name
    os.rename(file.parent, place / "disk")
    file.parent.symlink_to(place / "disk")
    (place / "best").symlink_to(file)
    return place / "best"


LINKS = ["a file", "a link of a link", "its folder", "a folder on another disk"]


@pytest.mark.parametrize("kind", LINKS)
def test_a_checkpoint_is_known_by_its_links(run, kind):
    link = linked(kind, run)
    assert pinned_by(link) is None
    assert RunFolder.of(link).path.resolve() == run.path
    run.pin(run.checkpoint(1))
    assert pinned_by(link).path.resolve() == run.path


def test_other_files_belong_to_no_run(run):
    for name in ("model.safetensors", "step-1.safetensors", "checkpoints/model.safetensors"):
        assert in_runs(run.path / name) == []


# -- what is measured ------------------------------------------------------------------------------


def test_a_measured_model_is_never_written_over_what_may_be_needed(tmp_path):
    run, model = RunFolder(tmp_path), measured_model(coded=False)
    file = run.checkpoint(1)
    model.save(file)
    before = file.read_bytes()
    assert store_measured(model, file) == file
    run.pins.write_bytes("é".encode("utf-16"))
    assert store_measured(model, file) == file.with_name(f"measured-{file.name}")
    assert name_beside(file, "measured") == file.with_name(f"measured-2-{file.name}")
    assert file.read_bytes() == before
    measured = file.with_name(f"measured-{file.name}")
    run.pins.write_bytes(b"")
    assert "which the run keeps from now on" in keep(measured)
    assert pinned_by(measured) == run


# -- what is written again -------------------------------------------------------------------------


def test_a_checkpoint_that_an_archive_needs_is_kept_when_its_step_is_reached_again(run, caplog):
    file = run.checkpoint(3)
    for number, name in ((1, "earlier"), (2, "earlier-2")):
        file.write_text(f"weights {number}")
        run.pin(file)
        make_way(file)
        aside = file.with_name(f"{name}-{file.name}")
        assert aside.read_text() == f"weights {number}"
        assert aside in run.pinned()
        assert file not in run.pinned()
        assert pinned_by(aside) == run
        assert str(aside) in caplog.text
    run.rotate(file)
    assert all(path.exists() for path in run.pinned())
    assert len(run.checkpoints()) == 2


def test_nothing_is_kept_that_nobody_needs(run, caplog):
    for path in (run.checkpoint(3), run.checkpoint(9)):
        make_way(path)
    assert len(list(run.checkpoint(0).parent.iterdir())) == 3
    assert caplog.text == ""


def test_where_pins_cannot_be_read_nothing_is_written_over(unreadable, caplog):
    make_way(unreadable.checkpoint(3))
    assert unreadable.checkpoint(3).with_name(f"earlier-{STEPS[2]}").exists()
    assert "UTF-8" in caplog.text


def test_a_run_that_diverges_twice_keeps_what_it_put_aside_first(run):
    run.checkpoint(3).write_text("first")
    run.pin(run.checkpoint(3))
    run.quarantine(3)
    run.checkpoint(3).write_text("second")
    run.quarantine(3)
    (pinned,) = run.pinned()
    assert pinned.read_text() == "first"
    assert pinned.with_name(f"diverged-2-{STEPS[2]}").read_text() == "second"


def test_a_run_that_goes_back_and_on_again_writes_over_nothing_pinned(tmp_path):
    config = tiny_config(steps=2, save_every=1)
    newest = train(config, tiny_images(), tmp_path).checkpoint
    run = RunFolder(tmp_path)
    run.pin(newest)
    newest.write_bytes(newest.read_bytes()[:-1])  # so that it goes on from the one before
    kept = newest.read_bytes()
    assert train(config, tiny_images(), tmp_path, resume=True).checkpoint == newest
    (pinned,) = run.pinned()
    assert pinned == newest.with_name(f"earlier-{newest.name}")
    assert pinned.read_bytes() == kept
    load(newest)
