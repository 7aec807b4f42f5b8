"""Small data sets of each form, as their makers write them."""

import hashlib
import io

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encode(pixels, kind="PNG", **options):
    """The bytes of an image [h, w, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def flat(value, kind="PNG", width=4, height=4):
    """The bytes of an image of one grey value."""
    return encode(np.full((height, width, 3), value), kind)


def pictures(n, seed=0):
    """`n` random pictures of different sizes, as PNG, JPEG and WebP in turn."""
    rng = np.random.default_rng(seed)
    sizes = [(5 + i % 7, 14 - i % 9, 3) for i in range(n)]
    kinds = ["PNG", "JPEG", "WEBP"]
    return [encode(rng.integers(0, 256, size), kinds[i % 3]) for i, size in enumerate(sizes)]


def key(i):
    """LSUN's keys: 40 hexadecimal digits, in no order."""
    return hashlib.sha1(str(i).encode()).hexdigest().encode()


def write_database(folder, values, keys=None):
    """An LMDB folder; without `keys`, in which the order of the values is that of LSUN's keys."""
    folder.mkdir(parents=True, exist_ok=True)
    names = keys or sorted(key(i) for i in range(len(values)))
    with lmdb.open(str(folder), map_size=2**24) as handle, handle.begin(write=True) as transaction:
        # Written in another order than that of the keys, as a download would be.
        for name, value in reversed(list(zip(names, values, strict=True))):
            transaction.put(name, value)
    return folder


def write_parquet(folder, values, files=2, rows_in_a_group=3):
    """A folder of Parquet files with several row groups each."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    folder.mkdir(parents=True, exist_ok=True)
    share = -(-len(values) // files)
    for i in range(files):
        cells = [{"bytes": v, "path": None} for v in values[i * share : (i + 1) * share]]
        path = folder / f"train-{i:05d}-of-{files:05d}.parquet"
        pq.write_table(pa.table({"image": pa.array(cells, kind)}), path, rows_in_a_group)
    return folder


def write_files(folder, values):
    """A folder of image files."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, value in enumerate(values):
        (folder / f"{i:04d}.png").write_bytes(value)  # Pillow looks at the content, not the name
    return folder


WRITERS = {"folder": write_files, "lmdb": write_database, "parquet": write_parquet}
