"""When to stop a run whose loss says that it has gone wrong."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import fmean, median

from ddpm.config import TrainingConfig
from ddpm.errors import Diverged

# Times the usual loss that no healthy window comes near: over a run of the digits the highest was
# 1.1 times for windows of 20 steps and 1.4 for windows of 256 images. A network that predicts
# nothing has a loss of 1, 8 to 30 times the usual one.
FACTOR = 5
WINDOWS = 20  # whose median is the usual loss
MIN_WINDOWS = 10  # before it is known
MIN_IMAGES = 256  # in a window; the loss of a single image ranges over a factor of 100


class LossWatch:
    """Sees every loss of a run and raises `Diverged` when one is not finite or they stay high.

    The second rule compares the mean of a window with the median of the windows before it. It holds
    for L_simple after the warm-up only: the bound has a heavy tail over timesteps, so a high mean
    proves nothing there.

    Args:
        training: the batch size and the warm-up.
        earlier: mean losses of windows before a resumed run's first step, oldest first.
        simple: the loss is L_simple.
    """

    def __init__(
        self, training: TrainingConfig, earlier: Iterable[float] = (), simple: bool = True
    ) -> None:
        self.training, self.simple = training, simple
        self.usual = deque((loss for loss in earlier if math.isfinite(loss)), maxlen=WINDOWS)
        self.window: list[float] = []

    def see(self, losses: Sequence[float], step: int) -> float:
        """The mean of `losses`, those of the steps up to `step`.

        Raises:
            Diverged: the run must not go on, and must not be saved.
        """
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                since = step - len(losses) + 1 + offset
                raise Diverged(f"the loss became {loss} at step {since}", since)
        self.window += losses
        if len(self.window) * self.training.batch_size >= MIN_IMAGES:
            self._close(step)
        return fmean(losses)

    def _close(self, step: int) -> None:
        mean, since = fmean(self.window), step - len(self.window) + 1
        if (
            self.simple
            and since > self.training.warmup
            and len(self.usual) >= MIN_WINDOWS
            and mean > FACTOR * median(self.usual)
        ):
            raise Diverged(
                f"the loss rose to {mean:.4g} from {median(self.usual):.4g} in the steps {since} "
                f"to {step}",
                since,
            )
        self.usual.append(mean)
        self.window.clear()
