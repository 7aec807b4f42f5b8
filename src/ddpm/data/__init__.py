"""Where images come from: embedded digits, folders, archives, Parquet, LMDB, arrays, CIFAR-10."""

from ddpm.data.images import EncodedImages, ImageFormat, ImageSource, MemoryImages
from ddpm.data.loader import training_batches
from ddpm.data.open import open_data
from ddpm.data.order import DataOrder
from ddpm.data.streamed import open_encoded

__all__ = [
    "DataOrder",
    "EncodedImages",
    "ImageFormat",
    "ImageSource",
    "MemoryImages",
    "open_data",
    "open_encoded",
    "training_batches",
]
