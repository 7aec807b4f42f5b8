"""Processes that read images die, of a lack of memory or of a bad decoder; the run does not."""

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddpm.data.folder import image_folder
from ddpm.training import train
from full_range import one_thread
from helpers import stats_of, tensors_of, tiny_config, tiny_images

pytestmark = pytest.mark.slow

STEPS = 12


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """PyTorch waits five seconds, again and again, for readers that are dead."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    looks = torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(looks, "__defaults__", (0.1,))
    with one_thread():
        yield
    for process in multiprocessing.active_children():
        process.kill()  # it ignores SIGTERM, and Python would wait for it at its end
        process.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten image files."""
    here = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(tiny_images(10, 256).images):
        Image.fromarray(pixels[0].numpy()).save(here / f"{i}.png")
    return here


def streamed(folder):
    """The images, read one by one by processes of their own."""
    return image_folder(folder, 8, 1, memory_limit=0)


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    """The weights of a run that nothing happened to."""
    config = tiny_config(steps=STEPS, log_every=1)
    with one_thread():  # the number of threads decides the last bits
        run = tmp_path_factory.mktemp("whole") / "run"
        return tensors_of(train(config, streamed(folder), run))


def assert_ends_as_if_nothing_had_happened(result, undisturbed):
    """All steps, each once, and the same bits."""
    assert (result.step, result.stopped) == (STEPS, None)
    assert [line["step"] for line in stats_of(result.run)] == list(range(1, STEPS + 1))
    tensors = tensors_of(result)
    assert tensors.keys() == undisturbed.keys()
    assert all(torch.equal(tensors[name], undisturbed[name]) for name in tensors)
    assert not multiprocessing.active_children()


# -- from outside --------------------------------------------------------------------------------

REST = 0.1  # seconds after which they have read ahead all that they may, and it waits to be taken
KILLS = {  # which signal, to how many of them, after which steps, and after how long a rest
    "one of them": (signal.SIGKILL, 1, {3}, 0),
    "all of them": (signal.SIGKILL, 9, {3}, 0),
    "one of them at rest": (signal.SIGKILL, 1, {3}, REST),
    "all of them at rest": (signal.SIGKILL, 9, {3}, REST),
    "before the first step": (signal.SIGKILL, 9, {0}, 0),
    "again and again": (signal.SIGKILL, 1, {2, 5, 8}, 0),
    "again and again at rest": (signal.SIGKILL, 9, {2, 5, 8}, REST),
    "near the end": (signal.SIGKILL, 9, {STEPS - 1}, 0),
    "asked to end": (signal.SIGTERM, 9, {3}, 0),
}


@pytest.mark.parametrize("name", KILLS)
def test_readers_that_are_killed_do_not_end_the_run(tmp_path, folder, undisturbed, name):
    number, count, steps, rest = KILLS[name]
    left = set(steps)

    def kill(done, total, label):
        if label.startswith("training") and done in left:
            left.remove(done)
            time.sleep(rest)
            for process in multiprocessing.active_children()[:count]:
                os.kill(process.pid, number)

    config = tiny_config(steps=STEPS, log_every=1)
    result = train(config, streamed(folder), tmp_path / "run", progress=kill)
    assert not left
    assert_ends_as_if_nothing_had_happened(result, undisturbed)


# -- from inside ---------------------------------------------------------------------------------


def run_out_of_memory():
    os.kill(os.getpid(), signal.SIGKILL)


def crash():
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # pytest prints the stacks else
    os.kill(os.getpid(), signal.SIGSEGV)


def run_out_of_shared_memory():
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGBUS)


def leave():
    os._exit(3)


@dataclass
class Deadly:
    """Images one of which, when it is read for the first time, takes the process with it."""

    source: object
    index: int
    end: object
    done: Path

    name = "deadly"

    @property
    def format(self):
        return self.source.format

    def __len__(self):
        return len(self.source)

    def read(self, index):
        # Never the process of the test itself.
        reader = multiprocessing.parent_process() is not None
        if reader and index == self.index and not self.done.exists():
            self.done.touch()
            self.end()
        return self.source.read(index)

    def __getitem__(self, indices):
        return torch.stack([self.read(int(i)) for i in indices])


@pytest.mark.parametrize("index", [0, 7])
@pytest.mark.parametrize("end", [run_out_of_memory, crash, run_out_of_shared_memory, leave])
def test_a_reader_that_dies_of_an_image_does_not_end_the_run(
    tmp_path, folder, undisturbed, end, index
):
    images = Deadly(streamed(folder), index, end, tmp_path / "done")
    result = train(tiny_config(steps=STEPS, log_every=1), images, tmp_path / "run")
    assert (tmp_path / "done").exists()
    assert_ends_as_if_nothing_had_happened(result, undisturbed)


def test_it_is_told_that_a_reader_died(tmp_path, folder, caplog):
    images = Deadly(streamed(folder), 0, run_out_of_memory, tmp_path / "done")
    train(tiny_config(steps=STEPS), images, tmp_path / "run")
    told = [record.getMessage() for record in caplog.records if record.name == "ddpm"]
    assert told
    assert all("\n" not in line and "DataLoader" not in line for line in told)
