"""Folders, LMDB databases and Parquet files behave alike: in memory, streamed, whole and broken."""

import logging
import multiprocessing
import pickle
import signal

import pytest
import torch

from data.sets import WRITERS, flat, pictures
from ddpm.data import DataOrder, MemoryImages, streamed, training_batches
from ddpm.data.decode import decode_image
from ddpm.data.folder import image_folder
from ddpm.data.lsun import lmdb_images
from ddpm.data.parquet import parquet_images
from ddpm.data.streamed import StreamedImages
from ddpm.errors import DdpmError

FORMS = sorted(WRITERS)


def open_form(form, folder, memory_limit=2**30, size=6):
    """The RGB images of a folder that `WRITERS[form]` has made."""
    if form == "parquet":
        return parquet_images(sorted(folder.glob("*.parquet")), size, 3, "rows", memory_limit)
    return {"folder": image_folder, "lmdb": lmdb_images}[form](folder, size, 3, memory_limit)


@pytest.fixture(params=FORMS)
def form(request):
    """The name of each form in turn."""
    return request.param


@pytest.fixture
def both(form, tmp_path):
    """Ten pictures in memory and streamed."""
    folder = WRITERS[form](tmp_path / form, pictures(10))
    return open_form(form, folder), open_form(form, folder, memory_limit=0)


def test_images_come_out_in_order_and_whole(form, tmp_path):
    values = pictures(10)
    memory = open_form(form, WRITERS[form](tmp_path / form, values))
    expected = torch.stack([decode_image(value, 6, 3) for value in values])
    assert torch.equal(memory.images, expected)


def test_a_small_set_is_held_in_memory_and_a_big_one_streamed(form, tmp_path):
    folder = WRITERS[form](tmp_path / form, pictures(4))
    pixels = 4 * 6 * 6 * 3
    assert isinstance(open_form(form, folder, pixels), MemoryImages)
    assert isinstance(open_form(form, folder, pixels - 1), StreamedImages)


def test_streamed_images_equal_those_in_memory(both):
    memory, streaming = both
    assert isinstance(streaming, StreamedImages)
    assert (len(streaming), streaming.format.shape, streaming.name) == (10, (3, 6, 6), memory.name)
    indices = torch.tensor([7, 0, 9, 7])
    assert torch.equal(streaming[indices], memory[indices])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_steps_images_do_not_depend_on_streaming_or_on_the_number_of_workers(both, workers):
    memory, streaming = both
    order, share = DataOrder(10, 4, seed=3), slice(1, 4)
    expected = list(training_batches(memory, order, 2, 8, share))
    batches = list(training_batches(streaming, order, 2, 8, share, workers=workers))
    assert len(batches) == len(expected) == 6
    for batch, wanted in zip(batches, expected, strict=True):
        assert torch.equal(batch, wanted)


def test_resuming_at_a_step_sees_what_the_whole_run_saw_there(both):
    _, streaming = both
    order = DataOrder(10, 4, seed=3)
    whole = list(training_batches(streaming, order, 0, 7, slice(4), workers=2))
    rest = list(training_batches(streaming, DataOrder(10, 4, seed=3), 5, 7, slice(4), workers=1))
    assert torch.equal(torch.stack(rest), torch.stack(whole[5:]))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_set_that_was_read_here_can_be_read_in_another_process(both, method):
    memory, streaming = both
    assert torch.equal(streaming.read(3), memory.images[3])
    context = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        read = pool.map(streaming.read, [3, 8])
    assert torch.equal(torch.stack(read), memory.images[[3, 8]])
    assert torch.equal(streaming.read(8), memory.images[8])


@pytest.mark.parametrize("form", ["lmdb", "parquet"])
def test_a_set_pickles_small_however_many_images_it_has(form, tmp_path):
    folder = WRITERS[form](tmp_path / form, [flat(i % 250) for i in range(300)])
    assert len(pickle.dumps(open_form(form, folder, memory_limit=0))) < 2000


def test_a_broken_image_is_skipped_in_memory_and_stood_in_for_when_streamed(form, tmp_path, caplog):
    values = [flat(i) for i in range(100)]
    values[41] = values[41][:-30]
    folder = WRITERS[form](tmp_path / form, values)
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        memory = open_form(form, folder)
    assert memory.images[:, 0, 0, 0].tolist() == [i for i in range(100) if i != 41]
    assert "skipped 1 of 100 images" in caplog.text

    caplog.clear()
    streaming = open_form(form, folder, memory_limit=0)
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        read = streaming[torch.tensor([40, 41, 42, 41])]
    assert read[:, 0, 0, 0].tolist() == [40, 42, 42, 42]
    warning = caplog.messages[-1]
    assert sum("next image" in message for message in caplog.messages) == 1  # not at every epoch
    name = streaming.encoded.describe(41)
    assert warning.startswith(f"{name} cannot be used")


def test_the_last_image_is_stood_in_for_by_the_first(form, tmp_path):
    values = [*(flat(i) for i in range(100)), b"not an image"]
    streaming = open_form(form, WRITERS[form](tmp_path / form, values), memory_limit=0)
    assert streaming.read(100).unique().tolist() == [0]


@pytest.mark.slow
def test_however_many_are_broken_side_by_side_the_run_goes_on(form, tmp_path):
    values = [flat(i % 250) for i in range(2000)]
    values[201:214] = [b"", values[0][:40], *[b"not an image"] * 11]
    streaming = open_form(form, WRITERS[form](tmp_path / form, values), memory_limit=0)
    assert streaming.read(202).unique().tolist() == [214]
    for workers in (0, 1):
        batches = training_batches(streaming, DataOrder(2000, 500, 0), 0, 4, slice(500), workers)
        assert sum(len(batch) for batch in batches) == 2000


@pytest.mark.parametrize("limit", [2**30, 0])
def test_more_than_one_percent_broken_is_refused(form, tmp_path, limit):
    values = [*(flat(i) for i in range(98)), b"", b"broken"]
    folder = WRITERS[form](tmp_path / form, values)
    with pytest.raises(DdpmError, match=r"2 of 100 images cannot be read, first "):
        open_form(form, folder, limit)


def test_a_big_set_is_judged_by_images_from_all_over_it(form, tmp_path):
    values = [flat(i % 250) for i in range(390)] + [b"broken"] * 10
    folder = WRITERS[form](tmp_path / form, values)
    with pytest.raises(DdpmError, match=r"10 of 400 images cannot be read"):
        open_form(form, folder, memory_limit=0)


def test_a_set_whose_sample_is_worse_than_it_is_itself_is_accepted(form, tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "PROBED", 10)  # one of which is broken, and no other
    values = [b"broken", *(flat(i % 250) for i in range(1, 200))]
    source = open_form(form, WRITERS[form](tmp_path / form, values), memory_limit=0)
    assert source.read(0).unique().tolist() == [1]


def test_a_file_that_disappears_while_training_stops_the_run_with_its_name(tmp_path):
    folder = WRITERS["folder"](tmp_path / "f", pictures(10))
    streaming = open_form("folder", folder, memory_limit=0)
    (folder / "0004.png").unlink()
    with pytest.raises(DdpmError, match=r"cannot read .*0004\.png \(No such file"):
        list(training_batches(streaming, DataOrder(10, 10, 0), 0, 1, slice(10), workers=1))


class _Telling:
    """Encoded images that tell, as an error, how the process is set up that reads them."""

    name = "telling"

    def __len__(self):
        return 10

    def __getitem__(self, index):
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        raise DdpmError(f"{torch.get_num_threads()} threads, Ctrl-C ignored: {ignored}")

    def describe(self, index):
        return "nothing"


def test_workers_have_one_thread_each_and_leave_ctrl_c_to_the_loop():
    streaming = StreamedImages(_Telling(), 6, 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under nohup
    try:
        with pytest.raises(DdpmError, match=r"^2 threads, Ctrl-C ignored: False$"):
            list(training_batches(streaming, DataOrder(10, 5, 0), 0, 2, slice(5), workers=0))
        with pytest.raises(DdpmError, match=r"^1 threads, Ctrl-C ignored: True$"):
            list(training_batches(streaming, DataOrder(10, 5, 0), 0, 2, slice(5), workers=2))
    finally:
        torch.set_num_threads(threads)
        signal.signal(signal.SIGINT, handler)
