"""A run of four steps on two dozen small pictures: what the tests of runs begin with."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import checkpoints

TINY = [
    *("--network.ch", "8", "--network.ch-mult", "1", "--network.norm-groups", "4"),
    *("--network.num-res-blocks", "1", "--network.attn-resolutions", "4"),
    *("--diffusion.timesteps", "4", "--training.batch-size", "4", "--training.lr-decay"),
    *("constant", "--training.sample-every", "0", "--training.save-every", "2"),
]
TRAIN = ["train", "digits", *TINY, "--training.steps", "4"]
BEGIN = [*TRAIN, "--data", "pets", "--out", "run"]
RESUME = ["train", "--resume", "run"]


def pictures(n=24, seed=0):
    """Random grey pictures, [n, 8, 8]."""
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8), dtype=np.uint8)


def write(folder, images, suffix="png"):
    """A folder of them, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{i:02d}.{suffix}")
    return folder


def replace(folder, images):
    """The same folder with other images in it."""
    for path in folder.iterdir():
        path.unlink()
    return write(folder, images)


def newest(run="run"):
    """The step that the newest checkpoint is of."""
    return int(checkpoints(run)[-1].stem[5:])


def settings(run="run"):
    """All that the run was started with."""
    return json.loads((Path(run) / "config.json").read_text())
