"""Sample quality: distances between sets of images, and what a classifier makes of them."""

from ddpm.evaluation.cifar10_classifier import trained_classifier
from ddpm.evaluation.digit_recogniser import DigitRecogniser
from ddpm.evaluation.features import Features, get_features
from ddpm.evaluation.frechet import (
    check_frechet,
    frechet_distance,
    frechet_from_statistics,
    pixel_frechet_distance,
)
from ddpm.evaluation.image_sets import ImageSet, SourceSet, open_set
from ddpm.evaluation.kernel import KernelDistance, kernel_distance
from ddpm.evaluation.linear_probe import Accuracy, probe_accuracy
from ddpm.evaluation.manifolds import precision_recall
from ddpm.evaluation.measured import Measured, disk, measure
from ddpm.evaluation.quality import Figure, compare
from ddpm.evaluation.score import ClassifierScore, classifier_score
from ddpm.evaluation.statistics import Moments, Statistics, statistics_of
from ddpm.evaluation.statistics_file import read_statistics, write_statistics

__all__ = [
    "Accuracy",
    "ClassifierScore",
    "DigitRecogniser",
    "Features",
    "Figure",
    "ImageSet",
    "KernelDistance",
    "Measured",
    "Moments",
    "SourceSet",
    "Statistics",
    "check_frechet",
    "classifier_score",
    "compare",
    "disk",
    "frechet_distance",
    "frechet_from_statistics",
    "get_features",
    "kernel_distance",
    "measure",
    "open_set",
    "pixel_frechet_distance",
    "precision_recall",
    "probe_accuracy",
    "read_statistics",
    "statistics_of",
    "trained_classifier",
    "write_statistics",
]
