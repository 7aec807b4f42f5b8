"""Training with labels: which the network sees, and that nothing else is trained otherwise."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import ddpm
from ddpm.config import Config, DataConfig, TrainingConfig
from ddpm.data.order import DataOrder
from ddpm.diffusion.losses import training_loss
from ddpm.errors import DdpmError
from ddpm.loading import load
from ddpm.runtime.randomness import Randomness, derive_key
from ddpm.training.ema import Ema
from ddpm.training.loop import train
from ddpm.training.state import TrainingState
from ddpm.training.step import TrainingStep
from helpers import stats_of, tensors_of, tiny_config, tiny_images, with_training
from mistakes import refused

pytestmark = pytest.mark.slow

NAMES = ("ant", "bee", "cat")


def images(n=30, names=NAMES):
    """Images of noise whose first pixel is their label."""
    found = tiny_images(n)
    found.labels, found.class_names = torch.arange(n) % 3, names
    found.images[:, 0, 0, 0] = found.labels.to(torch.uint8)
    return found


def config(classes=3, label_dropout=0.1, **options):
    base = tiny_config(**{"steps": 6, "save_every": 3, **options})
    return replace(
        base,
        network=replace(base.network, classes=classes),
        training=replace(base.training, label_dropout=label_dropout),
    )


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- nothing changes without classes -----------------------------------------------------------


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"dropout": 0.3, "flip": True}])
def test_without_classes_the_weights_are_those_of_the_paper_s_algorithm_to_the_last_bit(
    options, tmp_path
):
    """Algorithm 1 by hand: no labels, and random numbers for what it names only."""
    settings, source = tiny_config(steps=5, **options), images()
    train(settings, source, tmp_path / "run")
    training, shape = settings.training, source.format.shape
    torch.manual_seed(derive_key(0, "init"))
    network = settings.build_network(shape).to(memory_format=torch.channels_last)
    average = Ema(network, training.ema_decay)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-8, fused=True)
    diffusion, parts = settings.diffusion.build(), training.accumulate
    order = DataOrder(len(source), 4, 0)

    def denoiser(x, t):
        return network(x.contiguous(memory_format=torch.channels_last), t).contiguous()

    for step in range(5):
        optimizer.zero_grad(set_to_none=True)
        for rows in torch.arange(4).chunk(parts):
            torch.manual_seed(derive_key(0, "dropout", step, int(rows[0])))
            x = source.format.to_unit(source[order[step]][rows])
            if settings.data.flip:
                mirrored = Randomness(0, "flip").integers(rows, 2, step).bool()
                x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
            t = Randomness(0, "timestep").integers(rows, 20, step)
            noise = Randomness(0, "noise").normal(rows, shape, step)
            losses = training_loss(diffusion, denoiser, x, t, noise, "simple", 17)
            (losses.mean() / parts).backward()
        optimizer.param_groups[0]["lr"] = 1e-3 * min((step + 1) / 5, 1)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network, step)
    found = tensors_of(tmp_path / "run")
    for name, value in network.state_dict().items():
        assert torch.equal(found[f"network.{name}"], value), name
    for name, value in average.network.state_dict().items():
        assert torch.equal(found[f"ema.{name}"], value), name


def test_labels_of_the_images_do_not_matter_to_a_model_without_classes(tmp_path):
    for name, labels in (("a", None), ("b", torch.arange(30) % 3), ("c", torch.full((30,), -9.5))):
        source = images()
        source.labels = labels
        train(config(classes=0), source, tmp_path / name)
    a, b, c = (tensors_of(tmp_path / name) for name in "abc")
    assert same(a, b)
    assert same(a, c)
    assert load(tmp_path / "a").class_names == load(tmp_path / "b").class_names == ()


# -- what the network is shown -----------------------------------------------------------------

SEEN: list[tuple[bool, list[int], list[int]]] = []


class Watching(nn.Module):
    """Notes whether it is trained, the label that is written into each image, and the label given.

    The images' noise is low in all that it notes of: t is 0.
    """

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x, t, labels):
        assert labels.shape == t.shape
        if x.is_meta:  # its arithmetic is counted
            return self.scale * x
        written = ((x[:, 0, 0, 0] + 1) * 8).round().long()
        clean = t == 0
        SEEN.append((torch.is_grad_enabled(), written[clean].tolist(), labels[clean].tolist()))
        return self.scale * x


@ddpm.register("network", "watching-classes")
@dataclass(frozen=True)
class WatchingConfig:
    classes: int = 3

    def build(self, shape, out_channels):
        return Watching()


def watched(steps=300, label_dropout=0.1, **options):
    base = tiny_config(steps=steps, batch_size=12, save_every=1000, log_every=100, **options)
    quiet = replace(base.diffusion, timesteps=2, beta_start=1e-6, beta_end=2e-6)
    training = replace(base.training, label_dropout=label_dropout)
    return replace(base, network=WatchingConfig(), diffusion=quiet, training=training)


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_a_share_of_the_images_is_shown_without_its_label_and_all_others_with_it(dropout, tmp_path):
    SEEN.clear()
    train(watched(label_dropout=dropout), images(), tmp_path / "run", held_out=images(6))
    trained = [pair for grad, *lists in SEEN if grad for pair in zip(*lists, strict=True)]
    assert len(trained) > 1500  # half of 300 batches of 12
    left_out = [written for written, shown in trained if shown == 3]
    assert all(written == shown for written, shown in trained if shown != 3)
    error = 4 * math.sqrt(dropout * (1 - dropout) / len(trained))
    assert abs(len(left_out) / len(trained) - dropout) < error
    assert set(left_out) == {0, 1, 2}


def test_nothing_is_left_out_or_added_outside_training(tmp_path):
    SEEN.clear()
    settings = watched(steps=20, sample_every=20, label_dropout=0.9)
    train(settings, images(), tmp_path / "run", held_out=images(6))
    outside = {label for grad, _, labels in SEEN if not grad for label in labels}
    # The rows of the grid show the classes; validation and the measurement have the null class.
    assert outside == {0, 1, 2, 3}
    model = load(tmp_path / "run")
    for given, shown in ((None, 3), (1, 1), ("cat", 2)):
        for act in (
            lambda m: m.sample(5),
            lambda m: m.bits_per_dim(images(4)),
            lambda m: m.measure(images(4)),
        ):
            SEEN.clear()
            act(model.given(given))
            labels = {label for _, _, found in SEEN for label in found}
            assert labels == {shown}


def test_an_own_loss_gets_the_network_with_the_labels_in_it(tmp_path):
    def own(diffusion, denoiser, x_start, t, noise):
        return (denoiser(diffusion.q_sample(x_start, t, noise), t) - noise).square().mean((1, 2, 3))

    SEEN.clear()
    train(watched(steps=20, label_dropout=0.2), images(), tmp_path / "run", loss=own)
    trained = [pair for grad, *lists in SEEN if grad for pair in zip(*lists, strict=True)]
    assert all(written == shown for written, shown in trained if shown != 3)
    assert {shown for _, shown in trained} == {0, 1, 2, 3}


# -- the same run however it is run ------------------------------------------------------------


def steps(settings, count=4):
    """The network's weights after some steps on the same batches."""
    source = images()
    state = TrainingState(settings, source.format, torch.device("cpu"))
    step, order = TrainingStep(state), DataOrder(30, 12, 0)
    for i in range(count):
        step(source[order[i]], source.labels[order[i]])
    return state.network.state_dict()


def test_micro_batches_show_the_same_labels():
    """What is left out depends on the row in the whole batch."""
    options = {"batch_size": 12, "label_dropout": 0.4, "lr": 1e-2}
    whole = steps(config(**options))
    for parts in (2, 3, 4, 12):
        found = steps(config(**options, accumulate=parts))
        for name, value in whole.items():
            torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-4)
    other = steps(config(**{**options, "label_dropout": 0.05}))
    assert not torch.allclose(other["class_rows.weight"], whole["class_rows.weight"], atol=1e-4)


def test_a_step_of_a_conditional_model_needs_labels():
    source = images()
    state = TrainingState(config(), source.format, torch.device("cpu"))
    with pytest.raises(DdpmError, match="needs the labels"):
        TrainingStep(state)(source.images[:4])


class Reads:
    """The same images, read one by one."""

    name, format, labels, class_names = "reads", images().format, images().labels, NAMES

    def __len__(self):
        return 30

    def read(self, index):
        return images().images[index]

    def __getitem__(self, indices):
        return images().images[indices]


def test_a_run_that_is_resumed_or_read_ahead_ends_with_the_same_bits(tmp_path):
    settings = config(dropout=0.2, label_dropout=0.3)
    train(settings, images(), tmp_path / "whole")
    train(with_training(settings, steps=3), images(), tmp_path / "parts")
    train(settings, images(), tmp_path / "parts", resume=True)
    train(settings, Reads(), tmp_path / "reads")
    whole = tensors_of(tmp_path / "whole")
    assert same(whole, tensors_of(tmp_path / "parts"))
    assert same(whole, tensors_of(tmp_path / "reads"))
    train(with_training(settings, label_dropout=0.9), images(), tmp_path / "other")
    assert not same(whole, tensors_of(tmp_path / "other"))


def test_a_compiler_that_fails_does_not_stop_a_conditional_run(tmp_path, monkeypatch):
    def broken(network):
        def call(*inputs):
            raise RuntimeError("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    train(config(compile=True), images(), tmp_path / "compiled")
    train(config(), images(), tmp_path / "plain")
    assert same(tensors_of(tmp_path / "compiled"), tensors_of(tmp_path / "plain"))


# -- names -------------------------------------------------------------------------------------


def test_the_model_keeps_the_names_and_a_run_goes_on_with_the_same_ones_only(tmp_path):
    train(with_training(config(), steps=3), images(), tmp_path / "run")
    model = load(tmp_path / "run")
    assert model.class_names == NAMES
    assert model.config.data.class_names == NAMES
    for other in (("ant", "cat", "bee"), ("ant", "bee", "dog")):
        with pytest.raises(DdpmError, match=r"class_names"):
            train(config(), images(names=other), tmp_path / "run", resume=True)
        with pytest.raises(DdpmError, match=r"class_names is ant, bee, cat, but the classes of"):
            train(model.config, images(names=other), tmp_path / "run", resume=True)
    train(config(), images(), tmp_path / "run", resume=True)


def test_classes_without_names_may_be_given_some(tmp_path):
    train(config(), images(names=()), tmp_path / "plain")
    assert load(tmp_path / "plain").class_names == ("0", "1", "2")
    settings = replace(config(), data=DataConfig("digits", 8, 1, False, class_names=NAMES))
    train(settings, images(names=()), tmp_path / "named")
    assert load(tmp_path / "named").class_names == NAMES
    with pytest.raises(DdpmError, match="but the classes of noise are x, y, z"):
        train(settings, images(names=("x", "y", "z")), tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            lambda: TrainingConfig(label_dropout=0.0),
            "label_dropout must lie between 0 and 1, got 0",
        ),
        (lambda: TrainingConfig(label_dropout=1.0), "between 0 and 1"),
        (lambda: TrainingConfig(label_dropout=math.nan), "between 0 and 1"),
        (lambda: Config(training=TrainingConfig(label_dropout=0.2)), r"set network\.classes"),
        (lambda: Config(data=DataConfig(class_names=("a", "b"))), r"set network\.classes"),
        (lambda: DataConfig(class_names=("a", "a")), "must all be different"),
        (lambda: DataConfig(class_names=("a", "")), "not empty"),
        (lambda: replace(config(), data=DataConfig(class_names=("a",))), "one name for each"),
        (
            lambda: replace(config(), network=WatchingConfig(-1)),
            r"network\.classes must be a whole",
        ),
        (
            lambda: replace(config(), network=WatchingConfig(1.5)),
            r"network\.classes must be a whole",
        ),
    ],
)
def test_settings_without_meaning_are_refused(settings, said):
    with pytest.raises(DdpmError, match=said):
        settings()


def test_the_settings_come_back_from_a_file():
    settings = replace(config(), data=replace(config().data, class_names=NAMES))
    assert Config.from_dict(settings.to_dict()) == settings
    older = settings.to_dict()
    for group, name in (("network", "classes"), ("data", "class_names")):
        del older[group][name]
    del older["training"]["label_dropout"]
    assert Config.from_dict(older) == config(classes=0)


# -- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (lambda: tiny_images(8), r"noise has no labels, so network\.classes must be 0"),
        (lambda: replace(images(), labels=images().labels[:9]), "one for each of its 30 images"),
        (lambda: replace(images(), labels=images().labels.float()), "must be whole numbers"),
        (lambda: replace(images(), labels=images().labels + 1), "labels up to 3"),
        (lambda: replace(images(), labels=images().labels + 1, class_names=()), "has 4 classes"),
        (lambda: replace(images(), labels=images().labels - 1), "the label -1"),
    ],
)
def test_images_without_the_classes_are_refused_before_anything_is_written(source, said, tmp_path):
    with pytest.raises(DdpmError, match=said):
        train(config(), source(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_on_the_command_line_the_sentence_names_the_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    begin = ["train", "digits", "--out", "run", "--network.classes"]
    refused([*begin, "12"], capsys, "digits (train) has 10 classes", "--network.classes is 12")
    refused([*begin, "-1"], capsys, "at least 0")
    refused(
        ["train", "digits", "--out", "run", "--training.label-dropout", "0.2"],
        *(capsys, "--training.label-dropout has no effect", "--network.classes"),
    )
    assert not (tmp_path / "run").exists()


def test_an_unconditional_model_is_no_beginning_for_a_conditional_one(tmp_path, caplog):
    train(config(classes=0), images(), tmp_path / "plain")
    with pytest.raises(DdpmError, match="of another network"):
        train(config(start_from=str(tmp_path / "plain")), images(), tmp_path / "run")
    train(config(), images(), tmp_path / "first")
    train(config(start_from=str(tmp_path / "first")), images(), tmp_path / "second")
    assert load(tmp_path / "second").class_names == NAMES
    assert "know the classes" not in caplog.text
    other = config(start_from=str(tmp_path / "first"))
    train(other, images(names=("x", "y", "z")), tmp_path / "third")
    assert "know the classes ant, bee, cat, and this run has x, y, z" in caplog.text


def test_the_arithmetic_of_a_conditional_network_is_counted(tmp_path):
    """Also of one that must be given labels; the table of classes costs none."""
    found = {}
    for name, settings in (
        ("plain", config(classes=0)),
        ("classes", config()),
        ("own", watched(6)),
    ):
        train(with_training(settings, log_every=3), images(), tmp_path / name)
        last = stats_of(tmp_path / name)[-1]
        found[name] = last["teraflops"] / last["images_per_second"]
    assert found["classes"] == pytest.approx(found["plain"])
    assert found["own"] == 0
