"""What a run costs: counted against real files and networks, timed with a stopwatch of our own."""

from dataclasses import replace

import pytest
import torch

from ddpm.config import DiffusionConfig
from ddpm.data.images import ImageFormat
from ddpm.networks.unet import UNet
from ddpm.runs.folder import RunFolder
from ddpm.runtime.device import in_precision
from ddpm.training.cost import Cost, StepTime, kept_for_backward, probe, time_steps
from ddpm.training.loop import train
from ddpm.training.presets import get_preset
from ddpm.training.state import TrainingState
from ddpm.training.step import TrainingStep
from helpers import measured_model, tiny_config, tiny_images, with_training

CPU = torch.device("cpu")


def digits(**training):
    """A configuration whose checkpoint is large beside its description."""
    return with_training(get_preset("digits"), precision="fp32", **training)


def with_network(config, **changes):
    """`config` with other settings of the network."""
    return replace(config, network=replace(config.network, **changes))


VARIANTS = {
    "adam": digits(),
    "muon": digits(optimizer="muon"),
    "classes": with_network(digits(), classes=10),
    "learned variance": replace(digits(), diffusion=DiffusionConfig(variance_type="learned_range")),
    "two networks": with_network(digits(), switch=200),
}


def begun(config):
    """The state after a step."""
    data = config.data
    image_format = ImageFormat(data.channels, data.image_size, data.image_size, 17)
    state = TrainingState(with_training(config, batch_size=2), image_format, CPU)
    labels = torch.zeros(2, dtype=torch.long) if config.classes else None
    TrainingStep(state)(torch.zeros(2, *image_format.shape, dtype=torch.uint8), labels)
    return state


# -- what is counted -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_a_checkpoint_is_as_large_as_was_said(name, tmp_path):
    state, cost = begun(VARIANTS[name]), Cost(VARIANTS[name], CPU)
    state.save(RunFolder(tmp_path))
    (path,) = RunFolder(tmp_path).checkpoints()
    assert path.stat().st_size == pytest.approx(cost.checkpoint, rel=0.02)
    assert sum(value.numel() for value in state.optimizers.tensors().values()) == cost.moments
    assert sum(value.numel() for value in state.network.parameters()) == cost.parameters


def test_the_denoising_error_is_as_large_as_was_said():
    tensors = measured_model().denoising_error.tensors()
    tables = [tensors[f"denoising_error.{name}xstart_mse"] for name in ("", "spectral.")]
    assert Cost(tiny_config(), CPU).measured == sum(table.nbytes for table in tables)


@pytest.mark.slow
def test_the_network_calls_besides_the_steps_are_counted(tmp_path, monkeypatch):
    config = tiny_config(sample_every=8, steps=20)
    seen = []
    forward = UNet.forward

    def noting(self, x, t, labels=None):
        if not torch.is_grad_enabled() and not x.is_meta:
            seen.append(len(x))
        return forward(self, x, t, labels)

    monkeypatch.setattr(UNet, "forward", noting)
    counted = []
    for steps in (0, 300):
        config = with_training(config, last_stage_steps=steps)
        train(config, tiny_images(1600), tmp_path / f"{steps}", held_out=tiny_images(70, seed=2))
        counted.append(sum(seen))
        seen.clear()
    assert counted[0] == Cost(with_training(config, last_stage_steps=0), CPU).calls
    assert 0.9 * Cost(config, CPU).calls < counted[1] <= Cost(config, CPU).calls


def test_a_network_is_priced_without_its_numbers():
    cost = Cost(get_preset("lsun-bedroom-large"), CPU)
    assert cost.parameters == 255_677_955
    assert all(parameter.is_meta for parameter in cost.network.parameters())
    assert cost.memory.of(0) > 20 * cost.parameters


# -- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_network_keeps_is_what_was_counted(precision):
    config = with_training(get_preset("images"), precision=precision)
    network = config.build_network((3, 32, 32))
    call = in_precision(network, precision)
    one, three = (
        kept_for_backward(
            lambda n=n: call(torch.zeros(n, 3, 32, 32), torch.zeros(n, dtype=torch.long)), network
        )
        for n in (1, 3)
    )
    memory = Cost(config, CPU).memory
    assert memory.an_image == pytest.approx(1.3 * (three - one) / 2, rel=0.1)
    assert memory.fixed == pytest.approx(one - (three - one) / 2, rel=0.2, abs=2**18)


def test_of_two_networks_each_keeps_what_its_own_images_need():
    config = with_training(get_preset("cifar10-small"), precision="fp32")
    network = config.build_network((3, 32, 32))
    x, null = torch.zeros(6, 3, 32, 32), torch.full((6,), 10)
    t = torch.tensor([0, 999] * 3)
    two, six = (
        kept_for_backward(lambda n=n: network(x[:n], t[:n], null[:n]), network) for n in (2, 6)
    )
    assert Cost(config, CPU).memory.an_image == pytest.approx(1.3 * (six - two) / 4, rel=0.1)


def test_recomputed_activations_take_less():
    plain, frugal = (
        Cost(digits(activation_checkpointing=wanted), CPU).memory for wanted in (False, True)
    )
    assert frugal.an_image < 0.8 * plain.an_image
    assert frugal.state == plain.state


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_network_has_an_estimate(name):
    memory = Cost(VARIANTS[name], CPU).memory
    assert memory.an_image > 100_000
    assert memory.state > 16 * Cost(VARIANTS[name], CPU).parameters - 1


def test_what_fits_into_memory():
    whole = Cost(tiny_config(batch_size=12), CPU)
    assert (whole.fits, whole.parts, whole.most) == (None, None, 12)
    some = replace(whole, free=whole.memory.of(5))
    assert (some.fits, some.parts, some.most) == (False, 3, 5)
    all_of_it = replace(whole, free=whole.memory.of(12))
    assert (all_of_it.fits, all_of_it.parts, all_of_it.most) == (True, 1, 12)
    none = replace(whole, free=whole.memory.of(1) - 1)
    assert (none.fits, none.parts, none.most) == (False, None, 0)
    cut = replace(whole, config=tiny_config(batch_size=12, accumulate=4), free=whole.memory.of(3))
    assert (cut.fits, cut.most) == (True, 3)


# -- time ----------------------------------------------------------------------------------------


class Machine:
    """A stopwatch, and steps that take `fixed` + images x `an_image` seconds on it; the first of
    all `cold` more."""

    def __init__(self, fixed, an_image, cold=0.0):
        self.now, self.fixed, self.an_image, self.cold = 100.0, fixed, an_image, cold
        self.taken = []

    def clock(self):
        return self.now

    def take(self, images):
        self.now += self.fixed + images * self.an_image + (0 if self.taken else self.cold)
        self.taken.append(images)

    def move(self):
        self.now += self.fixed

    def timed(self, largest, seconds):
        return time_steps(self.take, self.move, largest, seconds, clock=self.clock)


def test_a_step_is_what_is_done_once_and_what_is_done_for_every_image():
    machine = Machine(fixed=0.25, an_image=0.5, cold=3)
    found = machine.timed(largest=6, seconds=1000)
    assert (found.fixed, found.an_image, found.images, found.repeats) == (0.25, 0.5, 6, 5)
    assert machine.taken == [1, 1, 2, 4, *[6] * 6]
    assert found.of(128) == 64.25


@pytest.mark.parametrize("seconds", [1, 4, 10, 30, 100])
def test_no_step_is_begun_that_takes_too_long(seconds):
    machine = Machine(fixed=0.1, an_image=0.4)
    found = machine.timed(largest=1024, seconds=seconds)
    assert machine.now - 100 <= seconds + 0.1
    assert found.images == max(machine.taken)
    assert found.an_image == pytest.approx(0.4)


def test_a_first_step_that_uses_up_the_time_counts():
    machine = Machine(fixed=1.0, an_image=60.0)
    assert machine.timed(64, 20) == StepTime(1.0, 60.0, 1, 1)
    assert machine.taken == [1]


def test_progress_counts_seconds():
    machine, told = Machine(0.0, 1.0), []
    time_steps(
        machine.take, machine.move, 4, 10, clock=machine.clock,
        progress=lambda done, total, label: told.append((done, total)),
    )  # fmt: skip
    assert told[0] == (1, 10)
    assert all(done <= total == 10 for done, total in told)
    assert told == sorted(told)


def test_a_run_takes_its_steps_and_the_calls_besides():
    cost = Cost(digits(steps=10, batch_size=4, sample_every=5), CPU)
    steps, more = cost.seconds(StepTime(0.5, 2.0, 1, 1))
    assert steps == 85.0
    last = 24 * 64 + 64 * 7 + 8 * 8  # the pool, what is priced, and where the drift is seen
    assert cost.calls == 2 * 64 * (50 + 8) + 750 * 129 + last
    assert more == cost.calls * 2 / 3
    again = Cost(digits(activation_checkpointing=True), CPU)
    assert again.seconds(StepTime(0.5, 2.0, 1, 1))[1] == again.calls * 2 / 4


@pytest.mark.parametrize("name", ["adam", "muon", "classes"])
def test_real_steps_are_timed(name):
    config = with_training(VARIANTS[name], batch_size=4, precision="auto", compile=True)
    cost, found = probe(Cost(config, CPU), 0.5)
    assert cost.precision == cost.config.training.precision
    assert cost.config.training.compile
    assert found.images in (1, 2, 4)
    assert found.an_image > 0
    assert found.fixed > 0
