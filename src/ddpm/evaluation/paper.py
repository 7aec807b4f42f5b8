"""What the paper measured: the numbers of its tables, to stand beside one's own.

All of Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models" (NeurIPS 2020, arXiv
2006.11239).
"""

from __future__ import annotations

from dataclasses import dataclass

TIMESTEPS = 1000  # T of every model of the paper (s. 4)


@dataclass(frozen=True)
class Cifar10Row:
    """A row of Table 1: one of the paper's models of CIFAR-10.

    Args:
        objective: what it was trained on.
        inception_score, fid: of 50,000 samples; FID to the training set.
        fid_test: FID to the test set, where the paper gives it (s. 4.1).
        nll_test, nll_train: bits/dim, of which the paper says "at most".
    """

    objective: str
    inception_score: float
    fid: float
    fid_test: float | None
    nll_test: float
    nll_train: float


TABLE1 = (
    Cifar10Row("L, fixed isotropic", 7.67, 13.51, None, 3.70, 3.69),
    Cifar10Row("L_simple", 9.46, 3.17, 5.24, 3.75, 3.72),
)


@dataclass(frozen=True)
class LsunRow:
    """A row of Table 3: FID of one of the paper's models of LSUN at 256x256.

    Args:
        name: of the row.
        category: of LSUN, as it stands in the names of its files.
        preset: that trains the same network in the same way.
        fid: of 50,000 samples.
    """

    name: str
    category: str
    preset: str
    fid: float


TABLE3 = (
    LsunRow("Bedroom", "bedroom", "lsun-bedroom", 6.36),
    LsunRow("Bedroom, large", "bedroom", "lsun-bedroom-large", 4.90),
    LsunRow("Church", "church", "lsun-church", 7.89),
    LsunRow("Cat", "cat", "lsun-cat", 19.75),
)


@dataclass(frozen=True)
class CodeRow:
    """A row of Table 4: what a receiver of progressive coding has paid and sees.

    Args:
        reverse_step: T - t + 1 while x_t is the last that was received.
        rate: bits/dim so far.
        rmse: of the x_0 predicted then, on the scale of 0..255.
    """

    reverse_step: int
    rate: float
    rmse: float


TABLE4 = (
    CodeRow(1000, 1.77581, 0.95136),
    CodeRow(900, 0.11994, 12.02277),
    CodeRow(800, 0.05415, 18.47482),
    CodeRow(700, 0.02866, 24.43656),
    CodeRow(600, 0.01507, 30.80948),
    CodeRow(500, 0.00716, 38.03236),
    CodeRow(400, 0.00282, 46.12765),
    CodeRow(300, 0.00081, 54.18826),
    CodeRow(200, 0.00013, 60.97170),
    CodeRow(100, 0.00000, 67.60125),
)
RATE, DISTORTION = 1.78, 1.97  # s. 4.3: bits/dim of all terms but L_0, and of L_0
