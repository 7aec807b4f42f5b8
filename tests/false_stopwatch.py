"""A stopwatch that says what a test wants, for what is decided by one."""

from ddpm.runtime import probe
from ddpm.runtime.stopwatch import Times


class Stopwatch:
    """Stands in for `ddpm.runtime.stopwatch.time_both`; counts how often it is asked."""

    def __init__(self, fp32=0.02, bf16=0.01, images=64):
        self.found, self.asked = Times(images, float(fp32), float(bf16)), 0

    def __call__(self, *args):
        self.asked += 1
        return self.found


def new_process(monkeypatch, **times):
    """A stopwatch that shows these times, in a process that has taken nothing yet."""
    found = Stopwatch(**times)
    monkeypatch.delenv("DDPM_PRECISION", raising=False)
    monkeypatch.setattr(probe, "time_both", found)
    monkeypatch.setattr(probe, "_taken", {})
    return found


def says(monkeypatch, folder, precision):
    """The same with a cache of its own, where the stopwatch is in favour of a precision."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return new_process(monkeypatch, bf16=0.01 if precision == "bf16" else 0.03)
