"""In which precision a run is trained: decided when it begins, and kept to when it is resumed."""

from __future__ import annotations

from ddpm.runtime import parallel
from ddpm.runtime.device import Floats, resolve_precision
from ddpm.runtime.probe import Work, faster_precision
from ddpm.training.state import TrainingState


def training_precision(state: TrainingState) -> Floats:
    """What is asked for; with auto what the run began with, or, on a CPU, the faster one.

    A run that was begun by an older version goes on in fp32 on a CPU. Every process must ask.
    """
    training = state.config.training
    if training.precision == "auto" and state.precision is not None:
        return state.precision
    if state.step > 0:
        return resolve_precision(training.precision, state.device)
    work = Work(
        state.network,
        state.config.network,
        state.format.shape,
        images=max(1, training.batch_size // (parallel.size() * training.accumulate)),
        fresh=lambda: state.config.build_network(state.format.shape),
    )
    return faster_precision(training.precision, state.device, work)
