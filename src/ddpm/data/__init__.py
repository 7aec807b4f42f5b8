"""Where images come from: embedded digits, CIFAR-10, LSUN, folders and Parquet files."""

from ddpm.data.images import ImageSource, MemoryImages, from_unit_range, to_unit_range
from ddpm.data.open import open_data
from ddpm.data.order import DataOrder, training_batches

__all__ = [
    "DataOrder",
    "ImageSource",
    "MemoryImages",
    "from_unit_range",
    "open_data",
    "to_unit_range",
    "training_batches",
]
