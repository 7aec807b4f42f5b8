"""What a diffusion model knows of the classes that it was never shown: linear probes of its layers
at some t, beside the pixels and the classifier that ships (docs/representations.md).

    python examples/linear_probe.py RUN IMAGES --t 1 30 100 --layers middle2 up.1.2
"""

import argparse

import numpy as np
import torch

import ddpm
from ddpm.evaluation import Accuracy, probe_accuracy, trained_classifier


def some(path, split, count, shape):
    """Images spread over a split, all of a small one, and their labels."""
    source = ddpm.open_data(path, split, image_size=shape.height, channels=shape.channels)
    count = min(count, len(source))
    picked = torch.arange(count) * len(source) // count
    return source[picked], source.labels[picked].numpy()


def of_the_classifier(images, labels):
    """Accuracy of the classifier of CIFAR-10 that comes with the package."""
    with torch.inference_mode():
        told = [trained_classifier()(x.float() / 127.5 - 1).argmax(1) for x in images.split(256)]
    return Accuracy(float(np.mean(torch.cat(told).numpy() == labels)), len(labels))


def main(argv=None):
    """Fit every probe on training images and score it on held-out ones; the accuracies."""
    parser = argparse.ArgumentParser(description="Linear probes of a diffusion model's layers.")
    parser.add_argument("run", help="a run's folder, a checkpoint or a model of `ddpm models`")
    parser.add_argument("images", help="a labelled data set with held-out images, or digits")
    parser.add_argument("--t", type=int, nargs="+", default=[1, 10, 30, 100, 300])
    parser.add_argument("--layers", nargs="+", default=["middle2"], help="see `ddpm info RUN`")
    parser.add_argument("--fit", type=int, default=4000, help="training images")
    parser.add_argument("--score", type=int, default=2000, help="held-out images")
    args = parser.parse_args(argv)
    model = ddpm.load(args.run, precision="fp32")
    images, labels = some(args.images, "train", args.fit, model.format)
    others, theirs = some(args.images, "test", args.score, model.format)
    print(f"fitted on {len(images):,} images, scored on {len(others):,}")
    x, y = (model.format.to_unit(part).flatten(1).numpy() for part in (images, others))
    found = {"pixels": probe_accuracy(x, labels, y, theirs)}
    if model.format == ddpm.ImageFormat(3, 32, 32):
        found["the classifier"] = of_the_classifier(others, theirs)
    for layer in args.layers:
        for t in args.t:
            x, y = (model.features(part, t, layer).numpy() for part in (images, others))
            found[f"{layer}, t = {t}"] = probe_accuracy(x, labels, y, theirs)
    for name, accuracy in found.items():
        print(f"{name}: {accuracy}")
    return found


if __name__ == "__main__":
    main()
