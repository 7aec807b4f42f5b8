"""What tests of imports that are refused have in common."""

import pytest

from mistakes import everything_below, refused


@pytest.fixture
def no_import(tmp_path, capsys):
    """Imports what must be refused; the sentence, in which all words must stand."""

    def run(source, *words, options=()):
        before = everything_below(tmp_path)
        command = ["import", source, "--out", tmp_path / "run", *options]
        sentence = refused(command, capsys, *words)
        assert len(sentence) < 700
        assert sentence.isprintable()
        assert everything_below(tmp_path) == before
        return sentence

    return run
