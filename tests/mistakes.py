"""What every mistake of a user must end in: one sentence, exit code 2, nothing left behind."""

from ddpm.cli import main


def refused(argv, capsys, *words):
    """Run a command that must be refused; the sentence, in which all `words` must stand."""
    capsys.readouterr()
    assert main([str(argument) for argument in argv]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    sentence = lines[-1]
    assert sentence.startswith("ddpm: ")
    assert "Traceback" not in "".join(lines)
    for word in words:
        assert str(word) in sentence, sentence
    return sentence


def everything_below(folder):
    """Every path below a folder, with the bytes of the files: to see that nothing changed."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
