"""The paper's progressive lossy code (Section 4.3, Algorithms 3 and 4) as a real file."""

from ddpm.codec.archive import compress
from ddpm.codec.coding import Coding
from ddpm.codec.extraction import Decompressed, decompress, decompress_beginnings
from ddpm.codec.header import File, Header, parse
from ddpm.codec.last_stage import LastStage
from ddpm.codec.learning import learn_coding
from ddpm.codec.model import CodecModel
from ddpm.codec.transmission import Reconstruct, Spent

__all__ = [
    "CodecModel",
    "Coding",
    "Decompressed",
    "File",
    "Header",
    "LastStage",
    "Reconstruct",
    "Spent",
    "compress",
    "decompress",
    "decompress_beginnings",
    "learn_coding",
    "parse",
]
