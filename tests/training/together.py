"""What `test_parallel` runs in one, two and four processes: `torchrun ... together.py FOLDER`."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from ddpm.config import DiffusionConfig
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from ddpm.loading import load
from ddpm.networks import sharding
from ddpm.runs.checkpoint import load_checkpoint
from ddpm.runtime import parallel
from ddpm.training import loop, state, step, train
from helpers import checkpoint_path, tiny_config, tiny_images, tiny_model, with_training

CONFIG = tiny_config(
    flip=True, batch_size=8, steps=50, log_every=1, save_every=25, sample_every=50
)  # fmt: skip
# In colour, since grey images lie in memory either way and dropout follows that order.
DROPOUT = tiny_config(dropout=0.3, channels=3, batch_size=8, steps=5, log_every=1)

# What the small presets have and the paper has not.
RECIPE = replace(
    tiny_config(
        optimizer="muon", stratified_time=True, time_sampling="both", batch_size=8, steps=5,
        log_every=1,
    ),
    network=replace(CONFIG.network, switch=5),
    diffusion=replace(CONFIG.diffusion, prediction_type="v_prediction"),
)  # fmt: skip


# Whose schedule is a part of what the processes exchange.
LEARNED = replace(
    tiny_config(loss="vlb", batch_size=8, steps=5, log_every=1, lr=1e-2),
    diffusion=DiffusionConfig(schedule="learned", timesteps=12, variance_type="fixed_small"),
)


def work(folder):
    """Train, draw, measure and err; what came of it, by name, for this process."""
    found = {"seen": [], "size": parallel.size(), "parts": sharding.is_sharded()}
    real = step.TrainingStep.__call__

    def noting(self, images):
        found["seen"].append(images)
        return real(self, images)

    step.TrainingStep.__call__ = noting
    train(CONFIG, tiny_images(), folder / "run")
    dropout = with_training(DROPOUT, accumulate=4 // parallel.size())
    train(dropout, tiny_images(channels=3), folder / "drop")
    step.TrainingStep.__call__ = real
    train(RECIPE, tiny_images(), folder / "recipe")
    found["recipe"] = weights(folder / "recipe")
    if not sharding.is_sharded():
        train(LEARNED, tiny_images(), folder / "learned")
        found["learned"] = weights(folder / "learned")
    found["samples"] = load(folder / "run", "cpu").sample(64, seed=3, batch_size=24)
    model = tiny_model()
    found["three"] = model.sample(3)
    bound = model.bound(tiny_images(50).images, batch_size=20)
    found["bound"] = bound.terms, bound.xstart_mse, bound.eps_mse, bound.prior
    errors = model.measure(tiny_images(60))
    found["errors"] = errors.xstart_mse, errors.decoder_bpd
    found["exchanges"], found["held"] = one_step()
    found["mistakes"] = [told(mistake, folder) for mistake in (log_fails, data_fails, save_fails)]
    return found


def weights(run):
    """All numbers of a run's last checkpoint but its averages."""
    tensors, _ = load_checkpoint(checkpoint_path(run, 5), training=True)
    return {name: value for name, value in tensors.items() if not name.startswith("ema.")}


def one_step():
    """How often a step of two micro-batches exchanges gradients; numbers held of weights, averages
    and moments."""
    config, facts = with_training(CONFIG, accumulate=2), ImageFormat(1, 8, 8, 17)
    training = state.TrainingState(config, facts, torch.device("cpu"))
    taken = step.TrainingStep(training)
    count = 0

    def hook(group, bucket):
        nonlocal count
        count += 1
        return allreduce_hook(group, bucket)

    if isinstance(taken.network, DistributedDataParallel):
        taken.network.register_comm_hook(None, hook)
    taken(tiny_images(8).images[taken.rows])
    tensors = [*training.network.parameters(), *training.ema.network.parameters()]
    for moments in training.optimizers.parts[0][0].state.values():
        tensors += [moments["exp_avg"], moments["exp_avg_sq"]]
    held = (t.to_local() if isinstance(t, DTensor) else t for t in tensors)
    return count, sum(t.numel() for t in held)


def told(mistake, folder):
    """The sentence of a mistake that one process makes while the others go on."""
    try:
        mistake(folder)
    except DdpmError as error:
        return str(error)


def log_fails(folder):
    """The main process cannot write its log."""
    real = loop.RunLog
    loop.RunLog = broken("no log")
    try:
        train(CONFIG, tiny_images(), folder / "log")
    finally:
        loop.RunLog = real


def data_fails(folder):
    """The last process finds a broken image in its share of step 2."""

    class Broken(type(tiny_images())):
        def to(self, device):
            return self

        def __getitem__(self, index):
            self.reads = getattr(self, "reads", 0) + 1
            if self.reads == 3 and parallel.rank() == parallel.size() - 1:
                raise DdpmError("no image")
            return super().__getitem__(index)

    images = tiny_images()
    train(CONFIG, Broken(images.images, images.grey_levels), folder / "data")


def save_fails(folder):
    """The main process cannot save."""
    real = state.save_checkpoint
    state.save_checkpoint = broken("no space")
    try:
        train(replace(CONFIG, training=replace(CONFIG.training, steps=2)), tiny_images(), folder)
    finally:
        state.save_checkpoint = real


def broken(sentence):
    """Something that fails when it is called."""

    def fail(*_):
        raise DdpmError(sentence)

    return fail


if __name__ == "__main__":
    torch.set_num_threads(1)
    with parallel.process_group():
        result = work(Path(sys.argv[1]))
        torch.save(result, Path(sys.argv[1]) / f"rank{parallel.rank()}.pt")
    if parallel.launched() > 1:
        parallel.leave(0)
