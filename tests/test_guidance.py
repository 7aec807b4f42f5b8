"""`Ddpm.given`: a class, by name or number, and guidance, in everything that a model does."""

from dataclasses import replace

import pytest
import torch

import ddpm
from ddpm.cli import main
from ddpm.codec import parse
from ddpm.config import DataConfig
from ddpm.errors import DdpmError
from ddpm.loading import load, load_for_file
from ddpm.model import Ddpm
from ddpm.sampling import Ancestral
from helpers import BRIEFLY, measured_model, tiny_config, tiny_images, tiny_model
from mistakes import refused
from typecheck import unchecked

pytestmark = pytest.mark.slow

PETS = ("cat", "10", "2")


def pets(measured=False, names=PETS, diffusion=None, **options):
    """A conditional model whose every weight matters."""
    plain = tiny_model()
    config = replace(
        plain.config,
        network=replace(plain.config.network, classes=3, **options),
        data=replace(plain.config.data, class_names=names),
        diffusion=replace(plain.config.diffusion, **(diffusion or {})),
    )
    network = config.build_network(plain.format.shape)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    model = Ddpm(config, plain.format, network.requires_grad_(False))
    if measured:
        model.measure(tiny_images(20))
        model.learn_coding(tiny_images(20), steps=5)
    return model


def by_hand(model, label, n=4):
    """Algorithm 2 on the network itself."""

    def denoiser(x, t):
        return model.network(x, t, torch.full_like(t, label)).contiguous()

    noise = model.noise(torch.arange(n), 0)
    with torch.inference_mode():
        x = Ancestral()(model.diffusion, denoiser, noise(20), noise)
    return model.format.from_unit(x)


def test_a_class_and_no_class_are_the_network_s_own_to_the_last_bit():
    model = pets()
    for label in range(3):
        assert torch.equal(model.given(label).sample(4), by_hand(model, label))
        assert torch.equal(model.given(label, 1.0).sample(4), by_hand(model, label))
        assert torch.equal(model.given(label, 0.0).sample(4), by_hand(model, 3))
    assert torch.equal(model.sample(4), by_hand(model, 3))
    assert torch.equal(model.given(None).sample(4), by_hand(model, 3))
    assert not torch.equal(model.given(1).sample(4), model.given(0).sample(4))


def test_guidance_moves_away_from_no_class():
    model = pets()
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 7, 19])
    c, u = model.given(1).denoiser()(x, t), model.denoiser()(x, t)
    for s in (0.25, 1.5, 4):
        found = model.given(1, s).denoiser()(x, t)
        torch.testing.assert_close(found, u + s * (c - u))
    assert not torch.equal(model.given(1, 4).sample(4), model.given(1).sample(4))


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
def test_a_model_that_learned_its_variance_can_be_guided(variance):
    model = pets(diffusion={"variance_type": variance})
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 7, 19])
    c, u = model.given(1).denoiser()(x, t), model.denoiser()(x, t)
    found = model.given(1, 3.0).denoiser()(x, t)
    torch.testing.assert_close(found[:, :1], u[:, :1] + 3 * (c[:, :1] - u[:, :1]))
    torch.testing.assert_close(found[:, 1:], c[:, 1:])
    assert model.given(1, 3.0).sample(2).shape == (2, 1, 8, 8)


def test_dropout_of_the_network_is_off_with_a_class_too():
    model = pets(dropout=0.5)
    model.network.train()
    again = Ddpm(model.config, model.format, model.network)
    assert torch.equal(again.given(1, 2.0).sample(3), again.given(1, 2.0).sample(3))


def test_an_image_is_the_same_in_any_batch_and_by_any_sampler():
    model = pets(measured=True).given("10", 2.0)
    for sampler in ("ancestral", "ddim", "dpm-solver"):
        whole = model.sample(5, sampler=sampler, steps=5)
        parts = model.sample(5, sampler=sampler, steps=5, batch_size=2)
        # Sums of another batch may round another way.
        assert (whole.int() - parts.int()).abs().max() <= 1


def test_names_come_before_numbers():
    model = pets()
    assert [model.given(label).label for label in ("cat", "10", "2", 2, "1")] == [0, 1, 2, 2, 1]
    assert model.given("cat", 1.5).guidance == 1.5
    assert pets(names=()).class_names == ("0", "1", "2")
    assert pets(names=()).given("2").label == 2


def test_the_weights_are_shared_and_the_model_itself_stays_as_it_is():
    model = pets(measured=True)
    given = model.given("cat", 2.0)
    assert given.network is model.network
    assert (model.label, model.guidance) == (None, 1.0)
    assert given.given(None) is model
    assert (given.given("2").label, given.given("2").guidance) == (2, 1.0)
    again = replace(given, precision="bf16")
    assert (again.label, again.given(None).label, again.given(None).precision) == (0, None, "bf16")


@pytest.mark.parametrize(
    ("label", "guidance", "said"),
    [
        ("fox", 1.0, "there is no class 'fox'; the classes are 0 cat, 1 10, 2"),
        (3, 1.0, "there is no class 3"),
        (-1, 1.0, "there is no class -1"),
        ("cat", -1.0, "guidance must be a number of at least 0, got -1"),
        ("cat", float("nan"), "guidance must be a number"),
        ("cat", float("inf"), "guidance must be a number"),
        (None, 2.0, "guidance 2 has no effect without a class"),
    ],
)
def test_what_has_no_meaning_is_refused(label, guidance, said):
    model = pets()
    with unchecked():
        with pytest.raises(DdpmError, match=said):
            model.given(label, guidance)
        with pytest.raises(DdpmError, match=said):
            Ddpm(model.config, model.format, model.network, label=label, guidance=guidance)


def test_a_model_without_classes_has_none():
    model = tiny_model()
    assert model.class_names == ()
    assert model.given(None) is model
    for label in (0, "cat"):
        with pytest.raises(DdpmError, match="trained without classes"):
            model.given(label)
    with pytest.raises(DdpmError, match="guidance 3 has no effect"):
        model.given(None, 3.0)


def test_bits_and_measures_are_those_of_no_class_unless_one_is_given():
    model, images = pets(), tiny_images(6)
    plain = model.bits_per_dim(images)
    assert plain == model.given(1, 0.0).bits_per_dim(images)
    assert plain != model.given(1).bits_per_dim(images)
    null, one = model.measure(images), model.given(1).measure(images)
    assert not (null.xstart_mse == one.xstart_mse).all()
    # The error of a class belongs to the class: the model and other classes have that of no class.
    given = model.given(1)
    given.measure(images)
    assert model.denoising_error is null
    assert given.denoising_error is not null
    assert given.given(2).denoising_error is null
    assert given.given(None) is model


# -- archives ----------------------------------------------------------------------------------


def test_a_file_is_read_with_the_class_and_the_guidance_it_was_written_with():
    model, images = pets(measured=True), list(tiny_images(2).images)
    cases = [(None, 1.0), (0, 1.0), (1, 1.0), (1, 0.0), (1, 1.5)]
    models = [model.given(*case) for case in cases]
    assert len({each.for_codec().fingerprint for each in models}) == len(cases)
    for writer in models:
        data = writer.compress(images, steps=2)
        for reader in models:
            if reader is writer:
                found = reader.decompress(data)
                assert found.exact
                assert all(map(torch.equal, found.images, images))
            else:
                with pytest.raises(DdpmError, match="with the class and the guidance it was given"):
                    reader.decompress(data)


def test_without_classes_the_sentence_says_nothing_of_them():
    model, other = measured_model(), measured_model(seed=1)
    data = model.compress(list(tiny_images(2).images), steps=2)
    with pytest.raises(DdpmError, match="this file needs the model") as error:
        other.decompress(data)
    assert "class" not in str(error.value)


def test_a_model_is_saved_without_a_class_and_found_for_a_file_with_one(tmp_path):
    model = pets(measured=True)
    with pytest.raises(DdpmError, match=r"save it without one \(model\.given\(None\)\)"):
        model.given(1).save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
    model.save(tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors")
    assert loaded.class_names == PETS
    assert torch.equal(loaded.given("2").sample(2), model.given(2).sample(2))
    images = list(tiny_images(2).images)
    data = model.given("10", 1.5).compress(images, steps=2)
    header = parse(data).header
    found, _ = load_for_file(tmp_path / "m.safetensors", header, "10", 1.5)
    assert found.decompress(data).exact
    with pytest.raises(DdpmError, match="no class 'fox'"):
        load_for_file(tmp_path / "m.safetensors", header, "fox")


def test_measure_stores_the_error_of_no_class(tmp_path, capsys):
    model = pets(names=())
    model = replace(model, config=replace(model.config, data=DataConfig("digits", 8, 1, False)))
    path = tmp_path / "m.safetensors"
    model.save(path)
    refused(["measure", path, "--class", "1"], capsys, "--class")
    assert main(["measure", str(path), *BRIEFLY, "--images", "10"]) == 0
    digits = ddpm.open_data("digits", image_size=8, channels=1)
    stored = load(path)
    assert stored.denoising_error.images == 10
    again = model.measure(digits, count=10)
    assert (stored.denoising_error.xstart_mse == again.xstart_mse).all()


def test_the_tiny_model_of_other_tests_has_no_classes():
    assert tiny_config().classes == 0
