"""CIFAR-10's python batches: read whole, and never run."""

import os
import pickle
import struct
import warnings

import numpy as np
import pytest
import torch

from ddpm.data import ImageFormat, open_data
from ddpm.errors import DdpmError

CONFIG = {"image_size": 32, "channels": 3}
TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def python2_batch(data, labels):
    """The bytes that Python 2's cPickle wrote for CIFAR-10: protocol 2, byte strings throughout."""

    def string(value):
        return b"T" + struct.pack("<i", len(value)) + value  # BINSTRING

    def number(value):
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + string(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + string(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n"
    array += b"cnumpy\nndarray\n" + number(0) + b"\x85" + string(b"b") + b"\x87R"
    rows, columns = data.shape
    array += b"(" + number(1) + number(rows) + number(columns) + b"\x86" + dtype
    array += b"\x89" + string(data.tobytes()) + b"tb"
    plain = b"](" + b"".join(number(label) for label in labels) + b"e"
    items = string(b"data") + array + string(b"labels") + plain
    return b"\x80\x02}(" + items + b"u."


def python3_batch(data, labels, protocol=2):
    """The same as Python 3 pickles it."""
    return pickle.dumps({b"data": data, b"labels": labels}, protocol=protocol)


def random_batch(seed, rows=4):
    """Pixels [rows, 3072] and labels."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (rows, 3072), dtype=np.uint8)
    return data, rng.integers(0, 10, rows).tolist()


@pytest.fixture
def folder(tmp_path):
    """Five training batches and a test batch of four random images each."""
    for i, name in enumerate([*TRAIN, "test_batch"]):
        (tmp_path / name).write_bytes(python2_batch(*random_batch(i)))
    return tmp_path


def open_split(folder, split="train", **changes):
    """The split of a CIFAR-10 folder."""
    return open_data(folder, split, **{**CONFIG, **changes})


def test_the_handmade_python_2_pickle_is_one_that_python_reads():
    data, labels = random_batch(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = pickle.loads(python2_batch(data, labels), encoding="bytes")
    assert np.array_equal(batch[b"data"], data)
    assert batch[b"labels"] == labels


def test_batches_are_read_in_order_as_planes_of_red_green_and_blue(folder):
    data = open_split(folder)
    expected = np.concatenate([random_batch(i)[0] for i in range(5)])
    assert (len(data), data.format) == (20, ImageFormat(3, 32, 32))
    # CIFAR-10: 1024 red bytes, then green, then blue, each row by row.
    assert data.images[7, 1, 5, 9] == expected[7, 1024 + 5 * 32 + 9]
    assert torch.equal(data.images.flatten(1), torch.from_numpy(expected))
    assert data.labels.tolist() == [x for i in range(5) for x in random_batch(i)[1]]


def test_the_test_batch_is_the_test_split(folder):
    data = open_split(folder, "test")
    assert torch.equal(data.images.flatten(1), torch.from_numpy(random_batch(5)[0]))


def test_batches_are_found_in_the_folder_the_archive_makes(folder, tmp_path):
    inner = tmp_path / "outer" / "cifar-10-batches-py"
    inner.mkdir(parents=True)
    for name in [*TRAIN, "test_batch"]:
        (folder / name).rename(inner / name)
    assert len(open_split(tmp_path / "outer")) == 20


@pytest.mark.parametrize("protocol", range(pickle.DEFAULT_PROTOCOL + 1))
def test_batches_pickled_by_python_3_are_read_too(folder, protocol):
    for i, name in enumerate(TRAIN):
        (folder / name).write_bytes(python3_batch(*random_batch(i), protocol=protocol))
    expected = np.concatenate([random_batch(i)[0] for i in range(5)])
    assert torch.equal(open_split(folder).images.flatten(1), torch.from_numpy(expected))


class _Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(folder, protocol):
    trap = folder / "trap"
    data, labels = random_batch(0)
    batch = {b"data": data, b"labels": labels, b"extra": _Malicious(trap)}
    payload = pickle.dumps(batch, protocol=protocol)
    (folder / "data_batch_3").write_bytes(payload)
    with pytest.raises(DdpmError, match=r"data_batch_3 is not a CIFAR-10 batch \(refused to load"):
        open_split(folder)
    assert not trap.exists()
    pickle.loads(payload)  # the trap is real
    assert trap.exists()


@pytest.mark.parametrize(
    "target", ["numpy\nload", "numpy.f2py\nrun_main", "builtins\neval", "_codecs\nlookup"]
)
def test_nothing_but_arrays_is_called(folder, target):
    (folder / "data_batch_1").write_bytes(b"\x80\x02c" + target.encode() + b"\nX\x00\x00\x00\x00R.")
    with pytest.raises(DdpmError, match="refused to load"):
        open_split(folder)


@pytest.mark.parametrize("name", ["data_batch_2", "data_batch_5"])
def test_a_missing_batch_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DdpmError, match=f"{name} is missing"):
        open_split(folder)


def test_a_missing_test_batch_is_named(folder):
    (folder / "test_batch").unlink()
    with pytest.raises(DdpmError, match="test_batch is missing"):
        open_split(folder, "test")


def test_a_truncated_batch_is_named_wherever_it_was_cut(folder):
    whole = (folder / "data_batch_4").read_bytes()
    for length in [0, 1, 2, 5, 30, 60, 100, 200, 5000, len(whole) - 20, len(whole) - 1]:
        (folder / "data_batch_4").write_bytes(whole[:length])
        with pytest.raises(DdpmError, match=r"data_batch_4 is (not a CIFAR|an empty file)"):
            open_split(folder)


@pytest.mark.parametrize(
    "content",
    [b"data", [1, 2], {b"labels": [1]}, {b"data": np.zeros((1, 7), np.uint8), b"labels": [1]}],
)
def test_a_pickle_of_something_else_is_refused(folder, content):
    (folder / "data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DdpmError, match="data_batch_1 is not a CIFAR-10 batch"):
        open_split(folder)


@pytest.mark.parametrize("changes", [{"image_size": 64}, {"channels": 1}])
def test_another_size_than_cifars_own_is_refused(folder, changes):
    with pytest.raises(DdpmError, match="32x32 RGB"):
        open_split(folder, **changes)
