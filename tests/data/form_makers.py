"""Small data sets in the forms in which they travel; every picture has one grey value of its own.

So the pixels tell which pictures were taken: `values` of a source, `taken` by their names.
"""

import gzip
import io
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from ddpm.data import open_data

TINY = [
    *("--network.ch", "8", "--network.ch-mult", "1", "--network.norm-groups", "4"),
    *("--network.attn-resolutions", "4", "--diffusion.timesteps", "20"),
    *("--training.batch-size", "4", "--training.sample-every", "0", "--training.steps", "2"),
]
LOSSLESS = {"png": {}, "bmp": {}, "tif": {}, "webp": {"lossless": True}, "ppm": {}}
SIZE = {"image_size": 8, "channels": 3}
KINDS = {  # what the endings of image files mean
    **{"jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "mpo": "MPO", "avif": "AVIF"},
    **{"tif": "TIFF", "tiff": "TIFF", "gif": "GIF", "webp": "WEBP", "bmp": "BMP", "dib": "DIB"},
    **{"ppm": "PPM", "pgm": "PPM", "pbm": "PPM", "pnm": "PPM"},
}
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 123\n"
WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
Image.init()


def picture(value, size=(9, 8), mode="RGB"):
    """A picture of one grey value."""
    return Image.new("L", size, value).convert(mode, dither=Image.Dither.NONE)


def encoded(value, kind="PNG", frames=1, mode="RGB", size=(9, 8), **options):
    """The bytes of a picture, or of several frames."""
    buffer = io.BytesIO()
    if frames > 1:
        more = [picture(value // (i + 2), size, mode) for i in range(frames - 1)]
        options = {"save_all": True, "append_images": more, **options}
    picture(value, size, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def write(path, data):
    """A file, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_pictures(folder, names, first=1):
    """Pictures of the kinds that their endings say (PNG for all others); each name's value."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = {name: first + i for i, name in enumerate(names)}
    for name, value in colours.items():
        kind = KINDS.get(name.rpartition(".")[2].lower(), "PNG")
        write(folder / name, encoded(value, kind))
    return colours


def noise(folder, n=60, seed=0, kind="png"):
    """`n` pictures of noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}-{i:03d}.{kind}", **LOSSLESS[kind])
    return folder


def train_command(path, out, *options):
    """A run of two steps on 8x8 colour images."""
    size = ["--data.image-size", "8", "--data.channels", "3"]
    return ["train", "digits", *TINY, "--data", str(path), *size, "--out", str(out), *options]


def values(source):
    """The grey value of each picture."""
    return source[torch.arange(len(source))].flatten(1)[:, 0].tolist()


def taken(source, colours):
    """The names of the pictures in a source; one that is there twice appears twice."""
    names = {value: name for name, value in colours.items()}
    return sorted(names[value] for value in values(source))


def opened(path, size=8, channels=3, split="train"):
    """The values of a set in order, and its labels."""
    source = open_data(path, split, image_size=size, channels=channels)
    labels = getattr(source, "labels", None)
    return values(source), None if labels is None else labels.tolist()


def write_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    """A zip file of named byte strings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def encrypt(path):
    """Mark every member of a zip file as encrypted, in both places that say so."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(signature, place + 4)
    path.write_bytes(data)
    return path


def write_tar(path, members, mode=None):
    """A tar file of named byte strings, compressed as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = mode or ("w:gz" if path.suffix in (".gz", ".tgz") else "w")
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            archive.addfile(facts, io.BytesIO(data))
    return path


def write_table(path, cells, /, column="img", struct=True, kind=None, **others):
    """A Parquet file with a column of encoded images; cells may be None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if struct:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        cells = [None if cell is None else {"bytes": cell, "path": None} for cell in cells]
    table = {column: pa.array(cells, kind or pa.binary()), **others}
    pq.write_table(pa.table(table), path)
    return path


def write_lmdb(path, items, one_file=False):
    """An LMDB database: a folder, or a single file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        lmdb.open(str(path), map_size=2**22, subdir=not one_file) as handle,
        handle.begin(write=True) as transaction,
    ):
        for key, value in items.items():
            transaction.put(key, value)
    Path(f"{path}-lock").unlink(missing_ok=True)
    return path


def arrays(*grey, shape=(8, 8, 3)):
    """uint8 images of the given grey values."""
    return np.stack([np.full(shape, value, np.uint8) for value in grey])


def idx(array):
    """The bytes of an idx file, in which MNIST comes."""
    array = np.asarray(array, np.uint8)
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, train, test, ending=""):
    """MNIST's four files; label = value % 10."""
    for name, grey in (("train", train), ("t10k", test)):
        for kind, array in (
            ("images-idx3", arrays(*grey, shape=(28, 28))),
            ("labels-idx1", [value % 10 for value in grey]),
        ):
            data = idx(array)
            path = folder / f"{name}-{kind}-ubyte{ending}"
            write(path, gzip.compress(data) if ending == ".gz" else data)
    return folder


def cifar10_members(binary=False):
    """CIFAR-10's files: five batches of two images (values 1 .. 10), a test batch (21, 22)."""
    members = {}
    for i in range(6):
        grey = (21, 22) if i == 5 else (2 * i + 1, 2 * i + 2)
        pixels, labels = arrays(*grey, shape=(3072,)), [value % 10 for value in grey]
        name = "test_batch" if i == 5 else f"data_batch_{i + 1}"
        if binary:
            rows = [bytes([n]) + row.tobytes() for n, row in zip(labels, pixels, strict=True)]
            members[f"cifar-10-batches-bin/{name}.bin"] = b"".join(rows)
        else:
            batch = pickle.dumps({b"data": pixels, b"labels": labels}, protocol=2)
            members[f"cifar-10-batches-py/{name}"] = batch
    folder = next(iter(members)).rpartition("/")[0]
    names = "\n".join(f"class {i}" for i in range(10)).encode()
    members[f"{folder}/batches.meta{'.txt' if binary else ''}"] = (
        names if binary else pickle.dumps({b"label_names": names.split(b"\n")}, protocol=2)
    )
    members[f"{folder}/readme.html"] = WEB_PAGE
    return members


def write_members(folder, members):
    """The members of an archive as files."""
    for name, data in members.items():
        write(folder / name, data)
    return folder


@contextmanager
def somebody_elses(name="own"):
    """A folder that a user without root's rights can enter, and a cache where he can write."""
    outer = Path(tempfile.mkdtemp())
    outer.chmod(0o755)
    (outer / name).mkdir()
    (outer / "cache").mkdir()
    (outer / "cache").chmod(0o777)
    try:
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(outer / "cache")}):
            yield outer / name
    finally:
        for path in [outer, *outer.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(outer)


@contextmanager
def without_rights():
    """As a user who is not root, whom no mode of a file stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
