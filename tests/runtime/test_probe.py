"""fp32 or bf16 by a stopwatch, which is a false one here."""

import json
import logging
import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from ddpm.errors import DdpmError
from ddpm.runtime import probe
from ddpm.runtime.probe import Work, faster_precision, machine, measured, processor
from ddpm.runtime.stopwatch import FAR, LIMIT, TooSlow, calls_of, time_both
from false_stopwatch import new_process
from helpers import tiny_config, tiny_model

CPU = torch.device("cpu")


class Watch:
    """A stopwatch that only the calls of a test turn on."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def caller(self, **seconds):
        """A call of a network that takes `seconds` of (images) in either precision."""

        def call(precision, images, most):
            self.calls.append((precision, images))
            takes = seconds[precision](images)
            self.now += min(takes, most)
            if takes > most:
                raise TooSlow

        return call


def timed(call, most, watch):
    """The images of the last calls, and the shortest times of both."""
    found = time_both(call, most, watch)
    return found.images, found.fp32, found.bf16


# -- the calls -----------------------------------------------------------------------------------


def test_both_are_timed_in_turns_from_one_image_to_as_many_as_are_wanted():
    watch = Watch()
    call = watch.caller(fp32=lambda n: 2e-3 * n, bf16=lambda n: 1e-3 * n)
    assert timed(call, 50, watch) == pytest.approx((50, 0.1, 0.05))
    assert [images for _, images in watch.calls] == sorted(images for _, images in watch.calls)
    assert {images for _, images in watch.calls} == {1, 4, 16, 50}
    assert [name for name, _ in watch.calls] == ["fp32", "bf16"] * (len(watch.calls) // 2)


def test_the_shortest_of_several_counts():
    watch, slow = Watch(), iter([9, 9, 3, 3, 1, 1, 2, 2, 4, 4, 4, 4])
    call = watch.caller(fp32=lambda n: 0.02 * next(slow), bf16=lambda n: 0.01 * next(slow))
    assert timed(call, 1, watch) == pytest.approx((1, 0.02, 0.01))


@pytest.mark.parametrize("times", [44, 500])
def test_far_slower_is_given_up_at_the_first_small_call(times):
    watch = Watch()
    call = watch.caller(fp32=lambda n: 0.02 * n, bf16=lambda n: 0.02 * n * times)
    assert timed(call, 64, watch) == pytest.approx((1, 0.02, math.inf))
    assert watch.calls == [("fp32", 1), ("bf16", 1)]
    assert watch.now < 1


def test_far_slower_in_small_is_seen_without_giving_up_a_call():
    watch = Watch()
    call = watch.caller(fp32=lambda n: 1e-3 * n, bf16=lambda n: 0.1 * n)
    assert timed(call, 64, watch) == pytest.approx((1, 1e-3, 0.1))


def test_one_call_that_was_interrupted_does_not_count():
    watch, late = Watch(), iter([1, 100, 1])
    call = watch.caller(fp32=lambda n: 1e-3 * n, bf16=lambda n: 5e-4 * n * next(late, 1))
    assert timed(call, 4, watch) == pytest.approx((4, 4e-3, 2e-3))


def test_a_jump_at_a_size_is_given_up_there():
    watch = Watch()
    call = watch.caller(fp32=lambda n: 4e-3 * n, bf16=lambda n: 2e-3 * n * (500 if n > 4 else 1))
    assert timed(call, 64, watch) == pytest.approx((16, 0.064, math.inf))
    assert watch.now < LIMIT


@pytest.mark.parametrize("image", [1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.7, 1.5, 3, 100])
@pytest.mark.parametrize("factor", [0.4, 1, FAR - 0.5, 500])
@pytest.mark.parametrize("overhead", [0, 0.2])
def test_it_never_takes_longer_than_it_may(image, factor, overhead):
    watch = Watch()
    call = watch.caller(
        fp32=lambda n: overhead + image * n, bf16=lambda n: (overhead + image * n) * factor
    )
    found = time_both(call, 256, watch)
    assert watch.now <= LIMIT + 1e-9
    if found is None:
        assert 2 * (overhead + image) * (1 + factor) > LIMIT
    else:
        assert (found.bf16 < 0.99 * found.fp32) == (factor < 1)


def test_what_a_call_takes_whatever_its_size_does_not_keep_it_from_larger_ones():
    """As measured for the two networks of cifar10-small: bf16 is slower on 4 images, and takes
    three quarters of the time of fp32 on 32."""
    watch = Watch()
    call = watch.caller(fp32=lambda n: 0.06 + 0.0085 * n, bf16=lambda n: 0.085 + 0.0048 * n)
    found = timed(call, 128, watch)
    assert found[0] >= 16
    assert found[2] < found[1]
    assert watch.now <= LIMIT


def test_what_fails_in_bf16_only_is_told():
    def call(precision, images, seconds):
        if precision == "bf16":
            raise RuntimeError("no kernel\nfor this")

    found = time_both(call, 4, Watch())
    assert (found.images, found.bf16, found.trouble) == (1, math.inf, "no kernel for this")


class Ticking(nn.Module):
    """Turns a watch on by a second whenever it is called or gone back through."""

    def __init__(self, watch):
        super().__init__()
        self.watch, self.weight = watch, nn.Parameter(torch.ones(()))

    def forward(self, x):
        self.watch.now += 1
        y = x * self.weight
        if y.requires_grad:
            y.register_hook(self.tick)
        return y

    def tick(self, gradient):
        self.watch.now += 1


class Layers(nn.Module):
    """Ten of them, one behind the other."""

    def __init__(self, watch):
        super().__init__()
        self.layers = nn.Sequential(*(Ticking(watch) for _ in range(10)))

    def forward(self, x, t):
        return self.layers(x)


@pytest.mark.parametrize(("seconds", "training"), [(3.5, False), (3.5, True), (12.5, True)])
def test_a_call_is_ended_between_two_layers_on_either_way(seconds, training):
    watch = Watch()
    network = Layers(watch)
    call = calls_of(network, (1, 4, 4), 0, training, watch)
    with pytest.raises(TooSlow):
        call("fp32", 2, seconds)
    assert seconds < watch.now <= math.ceil(seconds) + 1
    call("fp32", 2, 100)
    watch.now = 0
    call("bf16", 2, math.inf)
    assert watch.now == (20 if training else 10)
    assert not any(layer._forward_hooks for layer in network.modules())


# -- what is tried -------------------------------------------------------------------------------


def work_of(model=None, training=False, images=2, **changes):
    """The work of a tiny model."""
    model = model or tiny_model(**changes)
    shape = model.format.shape
    fresh = (lambda: model.config.build_network(shape)) if training else None
    return Work(model.network, model.config.network, shape, images, fresh)


@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_left_of_it(training):
    model = tiny_model(dropout=0.5)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    state = torch.get_rng_state()
    assert "2 images" in measured(work_of(model, training), Watch()).why
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[n]) for n, value in model.network.state_dict().items())
    assert not model.network.training
    assert all(parameter.grad is None for parameter in model.network.parameters())


class Named(nn.Module):
    """A network that knows classes."""

    def __init__(self):
        super().__init__()
        self.bias, self.seen = nn.Parameter(torch.zeros(())), []

    def forward(self, x, t, labels):
        self.seen.append((tuple(x.shape), tuple(labels.shape), torch.is_autocast_enabled("cpu")))
        return x + self.bias


class Settings:
    classes = 3


def test_a_network_with_classes_is_given_labels():
    network = Named()
    measured(Work(network, Settings(), (1, 4, 4), 2), Watch())
    shapes = {(shape, labels) for shape, labels, _ in network.seen}
    assert shapes == {((1, 1, 4, 4), (1,)), ((2, 1, 4, 4), (2,))}
    assert {bf16 for _, _, bf16 in network.seen} == {True, False}


class Whole(nn.Module):
    """A network that takes only images of the size that it was made for."""

    def __init__(self, side=256):
        super().__init__()
        self.bias, self.side = nn.Parameter(torch.zeros(())), side

    def forward(self, x, t):
        assert x.shape[-1] == self.side, "another size"
        return x + self.bias


def test_large_images_are_tried_small_if_the_network_takes_them():
    found = measured(Work(Whole(64), None, (1, 256, 256), 1), Watch())
    assert "1 image of 64x64 pixels" in found.why
    found = measured(Work(Whole(256), None, (1, 256, 256), 1), Watch())
    assert "1 image takes" in found.why


def test_what_cannot_be_tried_at_all_stays_in_fp32():
    found = measured(Work(Whole(7), None, (1, 8, 8), 1), Watch())
    assert (found.precision, found.lasting) == ("fp32", False)
    assert "another size" in found.why


class OnlyFp32(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("not implemented for 'BFloat16'")
        return x + self.bias


def test_a_network_that_bf16_fails_in_stays_in_fp32():
    found = measured(Work(OnlyFp32(), None, (1, 8, 8), 1), Watch())
    assert found.precision == "fp32"
    assert "bf16 fails (not implemented for 'BFloat16')" in found.why


# -- what is taken, and kept ---------------------------------------------------------------------


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that has taken nothing yet, with an empty cache."""
    monkeypatch.delenv("DDPM_PRECISION")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(probe, "_taken", {})


@pytest.fixture
def stopwatch(monkeypatch):
    """A function that replaces the stopwatch, and forgets what this process has taken."""
    return partial(new_process, monkeypatch)


def take(work=None):
    return faster_precision("auto", CPU, work or work_of())


def kept(tmp_path):
    """The files that hold what was found."""
    return sorted((tmp_path / "cache" / "ddpm").glob("precision-*.json"))


@pytest.mark.parametrize(
    ("fp32", "bf16", "taken"),
    [(1, 0.5, "bf16"), (1, 0.9, "bf16"), (1, 0.95, "fp32"), (1, 2, "fp32"), (1, math.inf, "fp32")],
)
def test_bf16_is_taken_where_it_is_clearly_faster(stopwatch, fp32, bf16, taken):
    stopwatch(fp32=fp32, bf16=bf16)
    assert take() == taken


def test_one_line_says_what_was_taken_and_why(stopwatch, caplog, tmp_path):
    stopwatch(fp32=0.021, bf16=0.012)
    with caplog.at_level(logging.INFO, "ddpm"):
        assert take() == take() == "bf16"
    folder = tmp_path / "cache" / "ddpm"
    assert caplog.messages == [
        "precision bf16: a call with 64 images takes 12 ms, in fp32 21 ms (measured; kept in "
        f"{folder})"
    ]
    caplog.clear()
    stopwatch(fp32=1, bf16=9)
    with caplog.at_level(logging.INFO, "ddpm"):
        assert take() == "bf16"
    assert caplog.messages == [
        "precision bf16: a call with 64 images takes 12 ms, in fp32 21 ms (measured before; kept "
        f"in {folder})"
    ]


def test_it_is_measured_once_for_a_machine_and_a_network(stopwatch, monkeypatch, tmp_path):
    assert stopwatch().asked == 0
    take()
    again = stopwatch(fp32=1, bf16=9)
    assert take() == "bf16"
    assert again.asked == 0
    others = [
        work_of(training=True),
        work_of(images=3),
        work_of(channels=3),
        Work(tiny_model().network, "settings", (1, 8, 8), 2),
        Work(tiny_model().network, tiny_config().network, (1, 16, 16), 2),
    ]
    for number, work in enumerate(others, start=1):
        assert take(work) == "fp32"
        assert again.asked == number
    for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        now = stopwatch(fp32=1, bf16=9)
        with monkeypatch.context() as patch:
            patch.setenv(name, "AVX2")
            assert take() == "fp32"
        assert now.asked == 1
    stopwatch(fp32=1, bf16=9)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 77)
        assert take() == "fp32"
    assert len(kept(tmp_path)) == 1 + len(others) + 2 + 1


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b'"bf16"',
        b'{"precision": "bf16"}',
        b'{"precision": "fp64", "why": "", "about": {}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_measured_again_and_mended(stopwatch, tmp_path, text):
    stopwatch()
    take()
    (path,) = kept(tmp_path)
    path.write_bytes(text)
    again = stopwatch()
    assert take() == "bf16"
    assert again.asked == 1
    assert json.loads(path.read_text())["precision"] == "bf16"


@pytest.mark.parametrize("change", [{"why": 5}, {"precision": "fp16"}, {"about": {}}])
def test_a_file_of_something_else_is_not_believed(stopwatch, tmp_path, change):
    stopwatch()
    take()
    (path,) = kept(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    again = stopwatch(fp32=1, bf16=9)
    assert take() == "fp32"
    assert again.asked == 1


def test_a_cache_that_cannot_be_written_stops_nothing(stopwatch, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = stopwatch()
    with caplog.at_level(logging.INFO, "ddpm"):
        assert take() == take() == "bf16"
    assert found.asked == 1  # a process keeps to what it has taken
    assert "not kept" in caplog.text


def test_a_file_in_the_way_or_a_full_disk_stops_nothing(stopwatch, monkeypatch, tmp_path):
    stopwatch()
    take()
    (path,) = kept(tmp_path)
    path.unlink()
    path.mkdir()
    assert take() == "bf16"
    stopwatch()
    assert take() == "bf16"

    def full(*args):
        raise DdpmError("no space is left")

    monkeypatch.setattr(probe, "write_text", full)
    stopwatch()
    assert take() == "bf16"


def test_without_a_home_it_goes_to_the_folder_of_temporary_files(stopwatch, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stopwatch()
    assert take() == "bf16"
    assert len(list(tmp_path.rglob("precision-*.json"))) == 1


def test_nowhere_to_write_at_all_stops_nothing(stopwatch, monkeypatch):
    def nowhere():
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(probe, "cache_home", nowhere)
    stopwatch()
    assert take() == "bf16"


def test_what_would_be_otherwise_another_time_is_not_kept(stopwatch, monkeypatch, tmp_path):
    monkeypatch.setattr(probe, "time_both", lambda *args: None)
    assert take() == "fp32"
    assert kept(tmp_path) == []
    assert take(Work(OnlyFp32(), None, (1, 8, 8), 1)) == "fp32"
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("fp32", "bf16", "images", "is_kept"),
    [(1, 2, 1, False), (1, 2, 2, True), (1, 0.5, 1, True), (1, 6, 1, True), (1, math.inf, 1, True)],
)
def test_fp32_by_small_calls_only_is_not_kept(stopwatch, tmp_path, fp32, bf16, images, is_kept):
    """A machine that is busy does not get to the large ones, which are in favour of bf16."""
    stopwatch(fp32=fp32, bf16=bf16, images=images)
    take()
    assert len(kept(tmp_path)) == is_kept


@pytest.mark.parametrize(
    ("precision", "device"), [("fp32", "cpu"), ("bf16", "cpu"), ("auto", "cuda"), ("bf16", "cuda")]
)
def test_only_auto_on_a_cpu_asks_the_stopwatch(stopwatch, precision, device):
    found = stopwatch()
    faster_precision(precision, torch.device(device), work_of())
    assert found.asked == 0


def test_the_environment_takes_the_place_of_the_stopwatch(stopwatch, monkeypatch):
    found = stopwatch()
    for given in ("fp32", "bf16"):
        monkeypatch.setattr(probe, "_taken", {})
        monkeypatch.setenv("DDPM_PRECISION", given)
        assert take() == given
    monkeypatch.setattr(probe, "_taken", {})
    monkeypatch.setenv("DDPM_PRECISION", "half")
    with pytest.raises(DdpmError, match="DDPM_PRECISION must be fp32 or bf16, got 'half'"):
        take()
    assert found.asked == 0


def test_a_processor_is_known_by_its_model_and_the_flags_that_matter(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(
        "processor\t: 0\nmodel name\t: Some CPU\ncpu MHz\t: 3000\n"
        "flags\t\t: fpu avx2 amx_bf16 sse fma\n\nprocessor\t: 1\nmodel name\t: Other\n"
    )
    assert processor(path) == "Some CPU, avx2 amx_bf16 fma"
    path.write_text("CPU part\t: 0xd40\nFeatures\t: fp asimd sve bf16\n")
    assert processor(path) == "0xd40, asimd sve bf16"
    assert processor(tmp_path / "none") != ""
    assert machine() == machine()
    assert json.loads(json.dumps(machine())) == machine()


SCRIPT = """
import logging, sys, time
sys.path.insert(0, "tests")
from ddpm.runtime import probe
from helpers import tiny_model

def stopwatch(*args):
    time.sleep(1)
    return probe.Times(64, 2.0, float(sys.argv[1]))  # as many as are drawn at a time

probe.time_both = stopwatch
logging.basicConfig(format="%(message)s")
logging.getLogger("ddpm").setLevel("INFO")
print(tiny_model().drawing_precision())
"""


@pytest.mark.slow
def test_of_processes_that_ask_at_once_one_measures_and_the_others_read(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(bf16)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for bf16 in (1, 3, 1)  # what the first one finds holds for all
    ]
    found = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3
    assert len({taken for taken, _ in found}) == 1
    assert sorted("measured before" in said for _, said in found) == [False, True, True]
    assert len(kept(tmp_path)) == 1
