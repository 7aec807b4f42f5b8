"""What the named figures compute, before it is laid out: facts against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.evaluation import pixel_frechet_distance
from ddpm.figures.classes import Classes
from ddpm.figures.coarse_to_fine import CoarseToFine
from ddpm.figures.denoising import Denoising
from ddpm.figures.figure import scaled
from ddpm.figures.interpolation import HEAD, WEIGHTS, Interpolation
from ddpm.figures.named import FIGURES, figure_named
from ddpm.figures.neighbours import nearest_in
from ddpm.figures.progressive_quality import ProgressiveQuality
from ddpm.figures.schedule import curves
from ddpm.figures.shared_latents import SharedLatents
from ddpm.latents import denoise, diffuse
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from full_range import full_range_model, one_thread
from helpers import measured_model, tiny_images, tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def images():
    return tiny_images(12).images


def test_the_times_of_the_paper_are_scaled_with_t(model):
    assert SharedLatents().times(model) == [20, 15, 10, 5]
    assert CoarseToFine().times(tiny_model(timesteps=16)) == [16, 14, 12, 10, 8, 6, 4, 2, 0]
    assert Interpolation().time(model) == 10
    assert scaled(tiny_model(timesteps=1000), 875) == 875


def test_a_shared_latent_is_on_the_way_of_the_chain_and_its_samples_are_not(model):
    figure = SharedLatents(n=2, t=(20, 13, 1), seed=3)
    latents = figure.latents(model)
    # From any x_t of its own chain, with its own noise, the chain ends in its own sample.
    own = model.sample(2, seed=3)
    for t, x_t in latents.items():
        assert torch.equal(denoise(model, x_t, t, seed=3), own)
        around = figure.samples(model, x_t, t)
        assert around.shape == (2, 3, 1, 8, 8)
        if t > 1:  # the last step adds no noise
            assert not any(torch.equal(around[i, j], own[i]) for i in range(2) for j in range(3))
            assert not torch.equal(around[0, 0], around[0, 1])
    assert torch.equal(latents[20], model.noise(torch.arange(2), 3)(20))


def test_x_t_is_in_the_lower_right_of_its_block(model):
    figure = SharedLatents(n=1, t=(13,))
    (x_t,) = figure.latents(model).values()
    pixels = np.asarray(figure.draw(model).picture)
    shown = model.format.to_display(model.format.from_unit(x_t))[0]
    scale = 12
    side = scale * (2 * 9 + 1)
    block = pixels[-side:, :side]
    corner = block[scale * 10 : scale * 18, scale * 10 : scale * 18][::scale, ::scale]
    assert np.array_equal(corner, shown)


def test_a_chain_of_few_steps_parts_where_it_passes(model):
    figure = SharedLatents(n=1, t=(20, 9), plan=Plan(trajectory=(0, 4, 7, 15, 19)))
    assert figure.times(model) == [20, 8]
    assert torch.equal(
        denoise(model, figure.latents(model)[8], 8, plan=figure.plan),
        model.sample(1, plan=figure.plan),
    )


@pytest.mark.parametrize("options", [{"sampler": "ddim"}, {"sampler": "dpm-solver"}])
def test_a_sampler_without_noise_has_nothing_to_show_around_a_latent(model, options):
    with pytest.raises(DdpmError, match="all samples from one x_t are the same"):
        SharedLatents(**options).draw(model)
    SharedLatents(sampler="ddim", eta=1.0).check(model)


def test_the_ends_of_an_interpolation_are_each_images_own_way_there_and_back(model, images):
    figure = Interpolation(pairs=3, seed=5, t=7)
    mixed = figure.mixed(model, images[:6], 7)
    assert mixed.shape == (3, 11, 1, 8, 8)
    for end, numbers in ((0, (0, 2, 4)), (10, (1, 3, 5))):
        x_t = diffuse(model, images[list(numbers)], 7, seed=5, numbers=numbers)
        assert torch.equal(mixed[:, end], denoise(model, x_t, 7, seed=5))


def test_an_interpolation_after_no_step_is_the_mixture_of_the_pixels(model, images):
    mixed = Interpolation().mixed(model, images[:4], 0).double()
    for i, weight in enumerate(WEIGHTS):
        exact = (1 - weight) * images[0:4:2].double() + weight * images[1:4:2].double()
        assert float((mixed[:, i] - exact).abs().max()) <= 0.5 + 1e-4
    assert torch.equal(mixed[:, 0], images[0:4:2].double())
    assert torch.equal(mixed[:, -1], images[1:4:2].double())


def test_ddim_comes_back_to_its_sources_where_noise_does_not(model, images):
    def ends(sampler):
        found = Interpolation(sampler=sampler).mixed(model, images[:2], 10)
        return found[0, [0, -1]].double()

    def error(found):
        return float((found - images[:2].double()).square().mean())

    assert error(ends("ddim")) < 0.5 * error(ends("ancestral"))


def test_rows_of_coarse_to_fine_have_their_sources_at_the_ends_and_pixels_last(model, images):
    figure = CoarseToFine(t=(20, 6, 0))
    rows = figure.rows(model, images[:2])
    assert rows.shape == (3, len(HEAD), 1, 8, 8)
    for row in rows:
        assert torch.equal(row[[0, -1]], images[:2])
    assert torch.equal(rows[2, 1:-1], figure.mixed(model, images[:2], 0)[0])
    assert torch.equal(rows[1, 1:-1], Interpolation().mixed(model, images[:2], 6)[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [("linear", {}), ("cosine", {"timesteps": 50}), ("jsd", {"timesteps": 30})],
)
def test_the_curves_of_a_schedule_are_the_closed_forms(name, options):
    schedule = make_schedule(name, **options)
    beta = schedule.betas
    alpha, abar = 1 - beta, np.cumprod(1 - beta)
    before = np.append(1.0, abar[:-1])
    found = curves(schedule)
    assert found.t.tolist() == list(range(1, len(beta) + 1))
    assert found.abar == pytest.approx(abar)
    assert found.snr == pytest.approx(abar / (1 - abar))
    # Eq. 12 for 1 < t < T; at t = 1 a variance stands in for beta~, at T jsd divides by 0.
    inside = slice(1, -1)
    tilde = beta * (1 - before) / (1 - abar)
    for curve, variance in ((found.small, tilde), (found.large, beta)):
        weight = beta[inside] ** 2 / (2 * variance * alpha * (1 - abar))[inside]
        assert curve[inside] == pytest.approx(weight)
    assert found.small[0] == pytest.approx(found.large[0])


def test_a_shorter_chain_has_its_own_schedule():
    model = tiny_model()
    schedule = model.chain(Plan(trajectory=(3, 9, 19))).schedule
    found = curves(schedule)
    whole = model.diffusion.schedule.alphas_cumprod
    assert found.t.tolist() == [4, 10, 20]
    assert found.abar == pytest.approx(whole[[3, 9, 19]])


def test_the_error_of_denoising_is_the_bounds_own():
    # The same error, estimated by the bound with other noise for each of many copies.
    model, copies = tiny_model(), 60
    image = tiny_images(1).images
    bound = model.bound(image.expand(copies, -1, -1, -1).contiguous())
    one = np.stack([Denoising(seed=s).predictions(model, image).rmse for s in range(copies)])
    squares = one**2
    error = squares.std(axis=0, ddof=1) * np.sqrt(2 / copies)
    expected = 127.5**2 * bound.xstart_mse
    assert (np.abs(squares.mean(axis=0) - expected) <= 5 * error + 1e-3).all()


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_t_is_denoised_once_in_any_batches(model, images, batch_size):
    found = Denoising(columns=5, batch_size=batch_size).predictions(model, images[:1])
    assert found.shown == [1, 6, 10, 15, 20]
    assert found.rmse.shape == (20,)
    for row, t in enumerate(found.shown):
        x_t = diffuse(model, images[:1], t)
        p = model.diffusion.p_mean_variance(model.denoiser(), x_t, torch.tensor([t - 1]))
        assert torch.equal(found.noisy[row], model.format.from_unit(x_t)[0])
        assert torch.equal(found.predicted[row], model.format.from_unit(p.pred_xstart)[0])
        mse = float((p.pred_xstart - model.format.to_unit(images[:1])).square().mean())
        assert found.rmse[t - 1] == pytest.approx(127.5 * mse**0.5, rel=1e-5)


@pytest.mark.parametrize("chunk", [3, 5, 1000])
def test_a_training_image_is_its_own_neighbour_at_distance_0(monkeypatch, chunk):
    monkeypatch.setattr("ddpm.figures.neighbours.CHUNK", chunk)
    training = tiny_images(14).images
    found, far = nearest_in(training[[4, 11]], training, 3)
    assert found[:, 0].tolist() == [4, 11]
    assert far[:, 0].tolist() == [0, 0]
    # By brute force, in chunks that do not divide the set.
    apart = (training[[4, 11]].flatten(1)[:, None].double() - training.flatten(1).double()).norm(
        dim=2
    )
    assert torch.allclose(far, apart.sort(dim=1).values[:, :3])
    assert torch.equal(apart.gather(1, found), far)


def test_neighbours_in_a_space_of_features_are_near_there():
    training = tiny_images(14).images

    def brightness(images):
        return images.flatten(1).float().mean(dim=1, keepdim=True).numpy()

    found, far = nearest_in(training[:2], training, 2, brightness)
    values = brightness(training).squeeze(1).astype(np.float64)
    assert found[:, 0].tolist() == [0, 1]
    assert far[:, 1].numpy() == pytest.approx(
        [np.sort(abs(values - values[i]))[1] for i in range(2)]
    )


def test_too_few_images_for_so_many_neighbours():
    with pytest.raises(DdpmError, match="5 neighbours are asked for, and there are 4 images"):
        nearest_in(tiny_images(1).images, tiny_images(4).images, 5)


def test_the_quality_at_the_end_is_that_of_the_samples():
    model, images = full_range_model(1), tiny_images(24, 256).images
    found = ProgressiveQuality(n=12, columns=4).quality(model, images)
    assert found.steps == [0, 6, 13, 19]
    samples = model.sample(12)
    assert found.distances[-1] == pytest.approx(
        pixel_frechet_distance(samples, images[:12], model.format), rel=1e-5
    )
    assert found.real == pytest.approx(
        pixel_frechet_distance(images[12:], images[:12], model.format), rel=1e-5
    )


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in ("classes", "probe")])
def test_every_figure_is_drawn_of_a_tensor_and_says_what_it_shows(name):
    small = {"samples": {"n": 3}, "progressive-quality": {"n": 8, "columns": 3}}.get(name, {})
    if name == "rate-distortion":
        small = {"n": 4}
    drawn = FIGURES[name](**small).draw(measured_model(), tiny_images(16).images)
    assert drawn.picture.mode == "RGB"
    assert min(drawn.picture.size) > 100
    assert len(np.unique(np.asarray(drawn.picture).reshape(-1, 3), axis=0)) > 5
    assert not drawn.caption.endswith(".")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("interpolation", {"t": 21}, "1..20"),
        ("interpolation", {"t": 0}, "1..20"),
        ("coarse-to-fine", {"t": (20, -1)}, "0..20"),
        ("shared-latents", {"t": (0,)}, "1..20"),
        ("shared-latents", {"t": ()}, "names no step"),
        ("samples", {"n": 0}, "at least 1"),
        ("samples", {"seed": -1}, "the seed"),
        ("samples", {"sampler": "euler"}, "euler"),
        ("samples", {"eta": 0.5}, "ddim"),
        ("progressive", {"plan": Plan(steps=21)}, "20"),
        ("progressive-quality", {"n": 1}, "at least 2"),
        ("progressive-quality", {"features": "cifar10"}, "32x32"),
        ("neighbours", {"features": "cifar10"}, "32x32"),
        ("neighbours", {"features": "inception"}, "RGB"),
        ("neighbours", {"k": 0}, "at least 1"),
        ("denoising", {"columns": 1}, "at least 2"),
        ("rate-distortion", {"batch_size": 0}, "at least 1"),
        ("classes", {}, "knows no classes"),
        ("probe", {"t": (0,)}, "1..20"),
        ("probe", {"t": ()}, "names no step"),
        ("probe", {"layers": ("middle3",)}, "no layer 'middle3'; its layers are conv_in, down.0.0"),
        ("probe", {"n": 5}, "at least 6"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_any_work(model, name, options, words):
    with pytest.raises(DdpmError, match=words):
        FIGURES[name](**options).check(model)


def test_too_few_images_are_told(model, images):
    with pytest.raises(DdpmError, match="needs 2 images, and there is 1"):
        CoarseToFine().draw(model, images[:1])
    with pytest.raises(DdpmError, match="needs images"):
        Denoising().draw(model)
    with pytest.raises(DdpmError, match="expects images of shape"):
        Denoising().draw(model, torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_an_unknown_figure_is_answered_with_all_there_are():
    with pytest.raises(DdpmError, match="no figure 'fig7'; choose from samples, rate-distortion"):
        figure_named("fig7")


def conditional_model(classes=3):
    """One that knows classes, and whose every weight matters."""
    tiny = tiny_model()
    config = replace(tiny.config, network=replace(tiny.config.network, classes=classes))
    network = config.build_network(tiny.format.shape)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return Ddpm(config, tiny.format, network.requires_grad_(False), history=tiny.history)


def test_a_row_of_classes_is_what_the_model_draws_given_that_class():
    model = conditional_model()
    rows = Classes(n=2, seed=4, guidance=2.0).rows(model)
    assert rows.shape == (3, 2, 1, 8, 8)
    for label in range(3):
        assert torch.equal(rows[label], model.given(label, 2.0).sample(2, seed=4))
    assert not torch.equal(rows[0], rows[1])
    some = Classes(n=2, seed=4, guidance=2.0, classes=("2", "0")).rows(model)
    assert torch.equal(some, rows[[2, 0]])


def test_a_class_that_does_not_exist_is_refused_before_any_work():
    with pytest.raises(DdpmError, match="7"):
        Classes(classes=("7",)).check(conditional_model())
    with pytest.raises(DdpmError, match="these are 101; name some"):
        Classes().check(conditional_model(101))
