"""Progress in terminals of any width, in pipes and in logs; words where UTF-8 is not known.

The terminals are simulated: standard streams that say that they are one, and COLUMNS.
"""

import json
import re

import pytest
from rich.cells import cell_len

from ddpm.cli import main
from ddpm.cli.progress import progress_bar
from full_range import one_thread
from helpers import checkpoint_path, measured_model, tiny_config
from streams import Clock, standard_streams


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


TRAINING = "training: loss 0.0312  1,234 images/s  12.34 TFLOP/s  MFU 45%"


def half_of(total, clock, label=TRAINING, seconds=0.5):
    """Show the first half of `total`, a hundredth of it at a time."""
    with progress_bar() as progress:
        for percent in range(51):
            progress(total * percent // 100, total, label)
            clock.wait(seconds)


# -- in a terminal -------------------------------------------------------------------------------

LABELS = {
    "training": TRAINING,
    "sampling": "sampling",
    "denoising error": "denoising error",
    "decompressing": "decompressing",
    "a long one": "measuring the error of each of the thousand timesteps: of a large model",
    "wide letters": "学習中: 損失 0.0312",
    "what looks like markup": "training [/bold]: loss [red]0.03[/blue]",
    "what looks like a format": "training {0}: loss {x!r}",
}
WIDTHS = [20, 30, 40, 60, 80, 100, 132, 200]


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("label", LABELS)
def test_a_bar_fits_the_terminal_and_keeps_the_remaining_time(monkeypatch, label, columns):
    streams = standard_streams(monkeypatch, columns=columns)
    half_of(800_000, Clock(monkeypatch), LABELS[label])
    shown = [line for stream in streams for line in stream.lines]
    assert shown
    assert max(cell_len(line.rstrip()) for line in shown) <= columns
    last = shown[-1]
    assert "0:25" in last, last
    if columns >= 60:
        assert re.search("400,?000", last), last
    assert not re.search(r"\d…", last), last


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_count_goes_before_the_remaining_time(monkeypatch, columns):
    streams = standard_streams(monkeypatch, columns=columns)
    half_of(100, Clock(monkeypatch))
    last = [line for stream in streams for line in stream.lines][-1]
    assert "0:25" in last
    assert "50/100" in last or columns < 40


@pytest.mark.parametrize(
    ("terminal", "columns"),
    [
        *(("xterm", columns) for columns in ("0", "1", "5", "", "wide", "-3", "100000")),
        *(("dumb", "0"), ("dumb", "1"), ("", "80"), ("unknown", "80")),
    ],
)
def test_a_strange_terminal_is_no_trouble(monkeypatch, columns, terminal):
    standard_streams(monkeypatch, columns=columns)
    monkeypatch.setenv("TERM", terminal)
    half_of(100, Clock(monkeypatch))


def test_a_dumb_terminal_is_not_written_beyond_its_width(monkeypatch):
    streams = standard_streams(monkeypatch, columns=40)
    monkeypatch.setenv("TERM", "dumb")
    half_of(800_000, Clock(monkeypatch))
    lines = [line.rstrip() for stream in streams for line in stream.lines]
    assert all(cell_len(line) <= 40 for line in lines)


@pytest.mark.parametrize(
    "numbers", [[(0, 0)], [(0, 0), (1, 1)], [(5, 3)], [(1, 2), (1, 9)]], ids=str
)
def test_nothing_to_do_and_more_than_that_are_shown_as_numbers(monkeypatch, numbers):
    streams = standard_streams(monkeypatch)
    with progress_bar() as progress:
        for done, total in numbers:
            progress(done, total, "measuring")
    assert "?" not in "".join(line for stream in streams for line in stream.lines)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_cursor_is_there_again_after_an_error(monkeypatch, error):
    streams = standard_streams(monkeypatch)

    def fail():
        with progress_bar() as progress:
            progress(1, 9, "sampling")
            raise error

    with pytest.raises(error):
        fail()
    for stream in streams:
        assert stream.text.count("\x1b[?25l") == stream.text.count("\x1b[?25h")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_program_without_a_console_works_on(monkeypatch, name):
    standard_streams(monkeypatch)
    monkeypatch.setattr(f"sys.{name}", None)
    half_of(100, Clock(monkeypatch))


# -- in a log ------------------------------------------------------------------------------------


def both(streams):
    """What was written, wherever."""
    return "".join(stream.text for stream in streams)


@pytest.mark.parametrize("minutes", [2, 10, 60])
def test_a_log_gets_a_plain_line_a_minute(monkeypatch, minutes):
    streams = standard_streams(monkeypatch, out=False, errors=False)
    clock = Clock(monkeypatch)
    with progress_bar() as progress:
        for second in range(60 * minutes + 1):
            progress(second, 7200, TRAINING)
            clock.wait(1)
    lines = both(streams).splitlines()
    assert minutes - 1 <= len(lines) <= minutes + 2
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", both(streams))
    assert all("training" in line and re.search(r"\d:\d\d", line) for line in lines)
    assert all(re.search(r"[\d,]+ ?(/|of) ?7,?200", line) for line in lines)


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_what_is_done_in_seconds_takes_no_room_in_a_log(monkeypatch, columns):
    streams = standard_streams(monkeypatch, out=False, errors=False, columns=columns)
    half_of(100, Clock(monkeypatch), seconds=0.1)
    assert len(both(streams).splitlines()) <= 2


def test_slow_steps_get_a_line_each(monkeypatch):
    streams = standard_streams(monkeypatch, out=False, errors=False)
    clock = Clock(monkeypatch)
    with progress_bar() as progress:
        for step in range(6):
            progress(step, 100, TRAINING)
            clock.wait(300)
    assert 4 <= len(both(streams).splitlines()) <= 7


@pytest.mark.parametrize(("out", "errors"), [(True, False), (False, True)])
def test_what_goes_into_a_pipe_or_a_file_is_plain(monkeypatch, out, errors):
    streams = standard_streams(monkeypatch, out, errors)
    half_of(100, Clock(monkeypatch), seconds=5)
    for stream in streams:
        assert stream.terminal or not re.search(r"[\x00-\x09\x0b-\x1f━]", stream.text)


# -- in other encodings --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a model, a configuration and a log."""
    run = tmp_path_factory.mktemp("terminals") / "run"
    with one_thread():
        measured_model().save(checkpoint_path(run, 3))
    (run / "config.json").write_text(json.dumps(tiny_config(steps=9).to_dict()))
    lines = [{"step": s, "loss": 1.0 / s, "images_per_second": 16.0} for s in range(1, 5)]
    (run / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


SAID = {
    "a table of bits/dim": lambda r, p: ["evaluate", r, "--bpd", "--images", "2", "--out", p],
    "a table of a model": lambda r, p: ["info", r],
    "a table of models": lambda r, p: ["models"],
    "a curve of letters": lambda r, p: ["watch", r, "--once"],
    "a bar": lambda r, p: ["sample", r, "-n", "2", "--out", p / "a.png"],
    "a name": lambda r, p: ["sample", r, "-n", "2", "--out", p / "größer-日本.png"],
    "a configuration": lambda r, p: ["train", "digits", "--dry-run", "--data", "größer-日本"],
}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("name", SAID)
def test_a_terminal_that_is_not_utf8_ends_nothing(
    run, tmp_path, monkeypatch, name, terminal, encoding
):
    streams = standard_streams(monkeypatch, terminal, terminal, encoding)
    assert main([str(x) for x in SAID[name](run, tmp_path)]) == 0
    said = streams[0].text
    assert said.strip()
    assert "Traceback" not in both(streams)
    if name == "a table of bits/dim":
        assert "+-" in said or "±" in said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437"])
@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_a_bar_in_a_terminal_that_is_not_utf8(monkeypatch, terminal, columns, encoding):
    streams = standard_streams(monkeypatch, terminal, terminal, encoding, columns)
    half_of(800_000, Clock(monkeypatch), seconds=2)
    assert "training" in both(streams)
    assert "\\u" not in both(streams)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_mistake_is_a_sentence_there_too(monkeypatch, encoding):
    out, errors = standard_streams(monkeypatch, False, False, encoding)
    assert main(["sample", "größer-日本-±"]) == 2
    (line,) = errors.lines
    assert line.startswith("ddpm: ")
    assert out.written == b""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "compress", "demo"])
def test_help_is_shown_there_too(run, monkeypatch, command, encoding):
    out, _ = standard_streams(monkeypatch, True, True, encoding)
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert not end.value.code
    assert "--help" in out.text
