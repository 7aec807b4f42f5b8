"""Where images come from: embedded digits, CIFAR-10, LSUN, folders and Parquet files."""

from ddpm.data.images import ImageSource, MemoryImages, from_unit_range, to_unit_range
from ddpm.data.loader import training_batches
from ddpm.data.open import open_data
from ddpm.data.order import DataOrder

__all__ = [
    "DataOrder",
    "ImageSource",
    "MemoryImages",
    "from_unit_range",
    "open_data",
    "to_unit_range",
    "training_batches",
]
