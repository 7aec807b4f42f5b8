"""The paper's progressive lossy code (Section 4.3, Algorithms 3 and 4) as a real file."""

from ddpm.codec.archive import Decompressed, compress, decompress, decompress_beginnings
from ddpm.codec.header import File, parse
from ddpm.codec.model import CodecModel
from ddpm.codec.transmission import Spent

__all__ = [
    "CodecModel",
    "Decompressed",
    "File",
    "Spent",
    "compress",
    "decompress",
    "decompress_beginnings",
    "parse",
]
