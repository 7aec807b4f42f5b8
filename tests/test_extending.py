"""Every door that docs/extending.md opens, with the page's own code."""

import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import ddpm
import ddpm.sampling
import ddpm.training  # what comes along is registered before a test adds to it
from ddpm import registry
from ddpm.cli import main
from ddpm.cli.train import count_parameters
from ddpm.config import Config
from ddpm.errors import DdpmError
from ddpm.runs.checkpoint import load_checkpoint, save_checkpoint
from helpers import BRIEFLY, tensors_of, tiny_config, tiny_images, tiny_model
from typecheck import unchecked

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
DOORS = ("A network", "A schedule", "A data set", "A sampler", "A loss", "A preset")


def blocks(section):
    """The python blocks of a section of the page."""
    return re.findall(r"```python\n(.*?)```", section, flags=re.S)


SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])
BEGINNING = blocks(PAGE.split("\n## ")[0])[0]


@pytest.fixture
def registered(monkeypatch):
    """What a test registers is forgotten again."""
    known = {kind: dict(things) for kind, things in registry._registered.items()}
    monkeypatch.setattr(registry, "_registered", known)


def shortened(config):
    """The same run with few and small steps."""
    training = replace(
        config.training, steps=4, batch_size=4, sample_every=0, save_every=2, log_every=2
    )
    network = config.network
    if isinstance(network, ddpm.UNetConfig):
        network = replace(network, ch=8, ch_mult=(1,), norm_groups=4)
    return replace(config, training=training, network=network)


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_what_comes_through_a_door_is_trained_resumed_loaded_sampled_measured_and_compressed(
    door, registered, tmp_path
):
    space = {"__name__": __name__}
    for code in (BEGINNING, *blocks(SECTIONS[door])):
        exec(code, space)
    images, loss = space["digits"], space.get("loss")
    if isinstance(images, ddpm.MemoryImages):  # a few are enough
        images = replace(images, images=images.images[:40])
    sampler = space.get("sampler", "ancestral")
    config = shortened(space.get("config", space["preset"]))
    ddpm.train(config, images, tmp_path / "whole", loss=loss)
    half = replace(config, training=replace(config.training, steps=2))
    ddpm.train(half, images, tmp_path / "run", loss=loss)
    ddpm.train(config, images, tmp_path / "run", loss=loss, resume=True)
    whole, run = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "run")
    weights = [name for name in whole if not name.startswith("exp_avg")]
    if config.training.lr_decay == "constant":
        assert all(torch.equal(whole[name], run[name]) for name in weights)

    model = ddpm.load(tmp_path / "run")
    assert model.config == model.config.from_dict(model.config.to_dict())
    total = model.diffusion.num_timesteps
    assert model.sample(3, sampler=sampler, plan=ddpm.Plan(5)).shape == (3, 1, 8, 8)
    few = images[torch.arange(4)]
    assert model.bits_per_dim(few, plan=ddpm.Plan(5, "optimal", "analytic")) > 0
    assert model.measure(few).timesteps[-1] == total - 1
    result = model.decompress(model.compress(list(few)))
    assert all(map(torch.equal, result.images, few))
    model.save(tmp_path / "copy.safetensors")
    again = ddpm.load(tmp_path / "copy.safetensors")
    assert (again.diffusion.schedule.betas == model.diffusion.schedule.betas).all()
    assert torch.equal(again.sample(2, plan=ddpm.Plan(3)), model.sample(2, plan=ddpm.Plan(3)))


def test_every_example_is_at_most_15_lines_and_the_loop_by_hand_60():
    for door in DOORS:
        for code in blocks(SECTIONS[door]):
            assert len(code.splitlines()) <= 15, door
    example = Path(__file__).parents[1] / "examples" / "train_by_hand.py"
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 60


def test_the_schedule_of_the_page_is_the_one_that_is_used(registered, tmp_path):
    betas = tuple(0.01 * (i + 1) for i in range(20))
    config = replace(tiny_config(steps=2), diffusion=ddpm.DiffusionConfig(betas=betas))
    ddpm.train(config, tiny_images(), tmp_path)
    assert ddpm.load(tmp_path).diffusion.schedule.betas.tolist() == list(betas)
    other = replace(config, diffusion=ddpm.DiffusionConfig(betas=(*betas[:-1], 0.5)))
    with pytest.raises(DdpmError, match="other diffusion settings"):
        ddpm.train(other, tiny_images(), tmp_path, resume=True)


# -- nothing loads as something else -------------------------------------------------------------


@dataclass(frozen=True)
class Steeper(ddpm.DiffusionConfig):
    """Another schedule, which its base class knows nothing of."""

    def build(self):
        schedule = ddpm.schedule_from_betas([0.05 * (i + 1) for i in range(10)])
        return replace(super().build(), schedule=schedule)


def test_a_class_without_a_name_is_refused_before_anything_is_trained(tmp_path):
    config = replace(tiny_config(), diffusion=Steeper(timesteps=10))
    with pytest.raises(DdpmError, match=r'has no name; put @ddpm\.register\("diffusion"'):
        ddpm.train(config, tiny_images(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_with_a_name_comes_back_as_itself(registered, tmp_path):
    ddpm.register("diffusion", "steeper")(Steeper)
    config = replace(tiny_config(steps=2), diffusion=Steeper(timesteps=10))
    ddpm.train(config, tiny_images(), tmp_path)
    model = ddpm.load(tmp_path)
    assert type(model.config.diffusion) is Steeper
    assert model.diffusion.schedule.betas[-1] == 0.5


class Tied(torch.nn.Module):
    """One weight under two names, a buffer, and no name that a U-Net has."""

    def __init__(self, channels, out_channels):
        super().__init__()
        self.a = torch.nn.Conv2d(channels, out_channels, 3, padding=1)
        self.b = torch.nn.Conv2d(channels, out_channels, 3, padding=1)
        self.b.weight = self.a.weight
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x, t):
        if self.training:
            self.calls += 1
        return self.a(x) + self.b(torch.rand_like(x) * x)


@dataclass(frozen=True)
class TiedConfig:
    """Its settings: none."""

    def build(self, shape, out_channels):
        return Tied(shape[0], out_channels)


def test_any_module_is_trained_and_resumed_to_the_same_bits(registered, tmp_path):
    """Tied weights, buffers, random numbers in the forward pass."""
    ddpm.register("network", "tied")(TiedConfig)
    config = replace(tiny_config(steps=8, save_every=4), network=TiedConfig())
    half = replace(config, training=replace(config.training, steps=4))
    ddpm.train(config, tiny_images(), tmp_path / "whole")
    ddpm.train(half, tiny_images(), tmp_path / "parts")
    ddpm.train(config, tiny_images(), tmp_path / "parts", resume=True)
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    for name in whole:
        if not name.startswith("denoising_error"):  # it draws random numbers too
            assert torch.equal(whole[name], parts[name]), name
    assert int(whole["network.calls"]) == 8
    assert torch.equal(whole["ema.a.weight"], whole["ema.b.weight"])
    network = ddpm.load(tmp_path / "parts").network
    assert network.a.weight is network.b.weight


class LooksAtItself(Tied):
    """Cannot exist without numbers."""

    def __init__(self, channels, out_channels):
        super().__init__(channels, out_channels)
        self.scale = float(self.a.weight.abs().max().item())


@dataclass(frozen=True)
class LooksConfig:
    """Its settings: none."""

    def build(self, shape, out_channels):
        return LooksAtItself(shape[0], out_channels)


def test_a_network_that_looks_at_its_numbers_is_counted_and_trained(registered, tmp_path, caplog):
    ddpm.register("network", "looks")(LooksConfig)
    config = replace(tiny_config(steps=2), network=LooksConfig())
    assert count_parameters(config) == 9 + 1 + 1
    ddpm.train(config, tiny_images(), tmp_path)
    assert "arithmetic cannot be counted" in caplog.text
    assert ddpm.load(tmp_path).num_parameters == 11


def test_a_network_that_cannot_recompute_its_activations_says_so(registered, tmp_path):
    ddpm.register("network", "tied")(TiedConfig)
    config = replace(tiny_config(activation_checkpointing=True), network=TiedConfig())
    with pytest.raises(DdpmError, match="Tied has no attribute activation_checkpointing"):
        ddpm.train(config, tiny_images(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_says_which_module_to_import(registered, tmp_path):
    @ddpm.register("network", "flat")
    @dataclass(frozen=True)
    class Flat(ddpm.UNetConfig):
        """The U-Net under another name."""

    config = replace(tiny_config(steps=2), network=Flat(**vars(tiny_config().network)))
    ddpm.train(config, tiny_images(), tmp_path)
    del registry._registered["network"]["flat"]
    words = rf"needs|network 'flat' is not known here; import .*\({__name__}; .*ddpm --import"
    with pytest.raises(DdpmError, match=words):
        ddpm.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"kind": "unet", "wings": 2}}, r"unknown setting network\.wings"),
        ({"network": {"kind": "dit"}}, "unknown network 'dit'; choose from unet"),
        ({"sampling": {}}, "unknown part 'sampling'"),
        ({"diffusion": {"kind": "gaussian", "schedule": "steep"}}, "unknown schedule 'steep'"),
        ({"training": {"loss": "l1"}}, "loss must be one of simple, vlb, hybrid"),
    ],
)
def test_what_is_stored_but_not_known_is_refused(change, words):
    with unchecked(), pytest.raises(DdpmError, match=words):
        Config.from_dict(change)


def test_settings_that_cannot_be_stored_are_refused():
    @dataclass(frozen=True)
    class Odd:
        """Holds what JSON cannot."""

        values: object = None

        def build(self, shape, out_channels):
            """Never called."""

    with pytest.raises(DdpmError, match="has no name"):
        replace(tiny_config(), network=Odd()).to_dict()
    known = {**registry._registered["network"], "odd": Odd}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._registered, "network", known)
        with pytest.raises(DdpmError, match="cannot be stored"):
            replace(tiny_config(), network=Odd({1, 2})).to_dict()
        with pytest.raises(DdpmError, match="would come back changed"):
            replace(tiny_config(), network=Odd([1, 2])).to_dict()
        assert (
            replace(tiny_config(), network=Odd((1, (2, 3)))).to_dict()["network"]["kind"] == "odd"
        )


def test_a_tensor_that_nobody_knows_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    tiny_model().save(path)
    tensors, metadata = load_checkpoint(path)
    save_checkpoint(path, {**tensors, "guidance.weight": torch.ones(2)}, metadata)
    with pytest.raises(DdpmError, match=r"guidance\.weight' is nothing that"):
        ddpm.load(path)


def test_what_is_no_source_is_one_sentence(tmp_path):
    with unchecked(), pytest.raises(DdpmError, match=r"a Tensor is no data source.*MemoryImages"):
        ddpm.train(tiny_config(), torch.zeros(3, 1, 8, 8, dtype=torch.uint8), tmp_path)


def test_a_registered_sampler_may_be_a_function(registered):
    @ddpm.register("sampler", "still")
    def still(diffusion, denoiser, x, noise, *, start=None, callback=None):
        return x

    model = tiny_model()
    noise = model.noise(torch.arange(2), 0)(20)
    assert torch.equal(model.sample(2, sampler="still"), model.format.from_unit(noise))


def test_a_name_is_given_once(registered):
    with pytest.raises(DdpmError, match=r"registered already, by ddpm\.config\.model\.UNetConfig"):
        ddpm.register("network", "unet")(Steeper)
    with unchecked(), pytest.raises(DdpmError, match="cannot register a 'sofa'"):
        ddpm.register("sofa", "red")


def test_a_run_with_an_own_loss_is_resumed_with_it_only(tmp_path):
    def loss(diffusion, denoiser, x_start, t, noise):
        return denoiser(diffusion.q_sample(x_start, t, noise), t).flatten(1).square().mean(1)

    ddpm.train(tiny_config(steps=2), tiny_images(), tmp_path, loss=loss)
    with pytest.raises(DdpmError, match=r"trained with the loss .*loss, and now it is that of"):
        ddpm.train(tiny_config(steps=4), tiny_images(), tmp_path, resume=True)
    assert ddpm.load(tmp_path).history.loss.endswith("loss")

    def wrong(diffusion, denoiser, x_start, t, noise):
        return noise.mean()

    with pytest.raises(DdpmError, match="one number for each of the 4 images"):
        ddpm.train(tiny_config(steps=2), tiny_images(), tmp_path / "other", loss=wrong)


# -- a source as good as the package's own --------------------------------------------------------


class OneByOne:
    """Reads single images and says in which process."""

    name, format = "one by one", ddpm.ImageFormat(1, 8, 8, 17)

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return 10

    def read(self, index):
        """Image `index`."""
        import os

        (self.folder / f"{os.getpid()}-{index}").touch()
        return tiny_images().images[index]

    def __getitem__(self, indices):
        return torch.stack([self.read(int(i)) for i in indices])


def test_single_reads_happen_in_workers_and_train_to_the_same_weights(tmp_path):
    (tmp_path / "seen").mkdir()
    source = OneByOne(tmp_path / "seen")
    config = tiny_config(steps=4)
    ddpm.train(config, source, tmp_path / "a")
    ddpm.train(config, tiny_images(), tmp_path / "b")
    a, b = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert len({path.name.split("-")[0] for path in source.folder.iterdir()}) > 1


def test_a_source_that_can_is_put_on_the_device(tmp_path):
    asked = []

    class Movable(type(tiny_images())):
        def to(self, device):
            asked.append(device)
            return self

    images = tiny_images()
    ddpm.train(tiny_config(steps=2), Movable(images.images, 17, "noise"), tmp_path)
    assert [device.type for device in asked] == ["cpu"]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(4, 1, 8, 8), "liar expects images of type uint8, got torch.float32"),
        (torch.zeros(4, 1, 9, 9, dtype=torch.uint8), r"shape \(1, 8, 8\), got \(1, 9, 9\)"),
        (torch.full((4, 1, 8, 8), 17, dtype=torch.uint8), r"grey levels 0\.\.16, but .* have 17"),
    ],
)
def test_a_source_that_does_not_give_what_it_promises_is_one_sentence(tmp_path, images, words):
    class Liar:
        name, format = "liar", ddpm.ImageFormat(1, 8, 8, 17)

        def __len__(self):
            return 4

        def __getitem__(self, indices):
            return images[indices]

    with pytest.raises(DdpmError, match=words):
        ddpm.train(tiny_config(steps=2), Liar(), tmp_path)


def test_the_images_decide_the_size_and_channels_that_are_stored(tmp_path):
    config = replace(tiny_config(steps=1), data=ddpm.DataConfig(image_size=32, channels=3))
    ddpm.train(config, tiny_images(), tmp_path)
    stored = ddpm.load(tmp_path).config.data
    assert (stored.image_size, stored.channels) == (8, 1)


# -- the command line ----------------------------------------------------------------------------

MODULE = '''
    from dataclasses import dataclass, replace
    import ddpm

    @ddpm.register("network", "other-unet")
    @dataclass(frozen=True)
    class Other(ddpm.UNetConfig):
        """Another one."""

    def tiny():
        base = ddpm.get_preset("digits")
        network = Other(ch=8, ch_mult=(1,), norm_groups=4, num_res_blocks=1, dropout=0)
        training = replace(base.training, steps=2, batch_size=4, sample_every=0)
        return replace(base, network=network, training=training,
                       diffusion=ddpm.DiffusionConfig(timesteps=20, beta_end=0.2))

    nothing = 3
'''


def run(folder, *arguments):
    """`ddpm` as its own process in a folder."""
    command = [sys.executable, "-m", "ddpm", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_preset_of_ones_own_from_the_folder_one_is_in(tmp_path):
    (tmp_path / "my_presets.py").write_text(textwrap.dedent(MODULE))
    done = run(tmp_path, "train", "my_presets.tiny", "--network.num-res-blocks", "2", "--out", "r")
    assert done.returncode == 0, done.stderr
    refused = run(tmp_path, "sample", "r", "-n", "1")
    assert refused.returncode == 2
    assert "import the module that registers it first (my_presets;" in refused.stderr
    done = run(tmp_path, "--import", "my_presets", "sample", "r", "-n", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "samples.png").is_file()
    more = ["--max-minutes", "1e-9", "--training.steps", "99", "--resume", "r"]
    done = run(tmp_path, "train", "my_presets.tiny", *more)
    assert "resume with: ddpm train my_presets.tiny --resume r" in done.stdout, done.stderr


def test_a_preset_that_is_none_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_odd_presets.py").write_text("nothing = 3\ndef sized(n):\n    pass\n")
    (tmp_path / "my_broken_presets.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    for name, words in (
        ("my_odd_presets.nothing", "does not give a ddpm.Config but 3"),
        ("my_odd_presets.missing", "has no 'missing'"),
        ("my_odd_presets.sized", "is no preset (sized() missing 1 required"),
        ("my_broken_presets.x", "cannot import my_broken_presets (ZeroDivisionError"),
        ("no_such_module.x", "cannot import no_such_module (ModuleNotFoundError"),
    ):
        assert main(["train", name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert main(["--import", "no_such_module", "models"]) == 2
    assert "cannot import no_such_module" in capsys.readouterr().err
    assert main(["--import"]) == 2


SCRIPT = """
    from dataclasses import dataclass
    from pathlib import Path
    import torch
    import ddpm

    @ddpm.register("network", "third-unet")
    @dataclass(frozen=True)
    class Third(ddpm.UNetConfig):
        pass

    def loss(diffusion, denoiser, x_start, t, noise):
        return denoiser(diffusion.q_sample(x_start, t, noise), t).flatten(1).square().mean(1)

    if __name__ == "__main__":
        images = ddpm.MemoryImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), 17, "grey")
        network = Third(ch=8, ch_mult=(1,), norm_groups=4, num_res_blocks=1, dropout=0.0)
        config = ddpm.Config(network=network, diffusion=ddpm.DiffusionConfig(timesteps=20),
                             training=ddpm.TrainingConfig(steps=2, batch_size=4))
        ddpm.train(config, images, Path(__file__).parent / "run", loss=loss)
"""


@pytest.mark.slow
def test_what_a_script_registers_is_known_by_the_scripts_name(tmp_path):
    (tmp_path / "my_script.py").write_text(textwrap.dedent(SCRIPT))
    script = [sys.executable, "my_script.py"]
    subprocess.run(script, cwd=tmp_path, check=True, capture_output=True)
    assert "(my_script;" in run(tmp_path, "info", "run").stderr
    shown = run(tmp_path, "--import", "my_script", "info", "run")
    assert shown.returncode == 0, shown.stderr
    assert "my_script.loss" in shown.stdout


def test_measure_stores_the_error_in_the_models_own_file(tmp_path, capsys):
    path = tmp_path / "m.safetensors"
    tiny_model().save(path)
    assert ddpm.load(path).denoising_error is None
    command = ["measure", str(path), *BRIEFLY, "--data", "digits", "--images", "20"]
    assert main(command) == 0
    assert "measured on 20 images of digits (train)" in capsys.readouterr().out
    assert ddpm.load(path).denoising_error.images == 20
    assert main([*command, "--images", "10", "--out", str(tmp_path / "copy.safetensors")]) == 0
    assert ddpm.load(tmp_path / "copy.safetensors").denoising_error.images == 10
    assert ddpm.load(path).denoising_error.images == 20
    assert main(["measure", "cifar10-small", "--data", "digits"]) == 2
    assert "comes with the package" in capsys.readouterr().err
