"""Sample quality: distances between sets of images, and what a classifier makes of them."""

from ddpm.evaluation.digit_recogniser import DigitRecogniser
from ddpm.evaluation.frechet import check_frechet, frechet_distance, pixel_frechet_distance

__all__ = ["DigitRecogniser", "check_frechet", "frechet_distance", "pixel_frechet_distance"]
