"""Sample quality: distances between sets of images, and what a classifier makes of them."""

from ddpm.metrics.frechet import frechet_distance, pixel_frechet_distance
from ddpm.metrics.recognition import DigitRecogniser

__all__ = ["DigitRecogniser", "frechet_distance", "pixel_frechet_distance"]
