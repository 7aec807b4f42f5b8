"""Images to x_t and back with a whole model: levels, noise, plans, interpolation, inversion."""

from dataclasses import replace

import pytest
import torch

from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from ddpm.latents import denoise, diffuse, interpolate, invert
from ddpm.latents.interpolating import arc, straight
from ddpm.latents.levels import chain_through
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.sampling import Ddim
from helpers import measured_model, tiny_config, tiny_images, tiny_model
from typecheck import unchecked

T = 20


class Echo(torch.nn.Module):
    """A network that sees no noise at all, and writes down when it is asked."""

    def __init__(self, channels=1):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.asked, self.channels = [], channels

    def forward(self, x, t):
        self.asked.append(int(t[0]))
        return torch.zeros(len(x), self.channels, *x.shape[2:])


def echo_model(**options):
    """A model of that network."""
    config = tiny_config(timesteps=T)
    if options:
        config = replace(config, diffusion=replace(config.diffusion, **options))
    channels = 2 if "learned_range" in options.values() else 1
    return Ddpm(config, ImageFormat(1, 8, 8, 17), Echo(channels))


def images(n=4, seed=1):
    return tiny_images(n, seed=seed).images


def test_diffusion_by_t_steps_has_the_marginal_of_t_steps():
    model = tiny_model()
    x = images(1).expand(4000, 1, 8, 8)
    wanted = model.format.to_unit(images(1))[0]
    betas = model.diffusion.schedule.betas
    for t in (1, 2, 10, T):
        x_t = diffuse(model, x, t)
        abar = 1.0
        for beta in betas[:t]:  # t steps, counted out
            abar *= 1 - beta
        assert torch.allclose(x_t.mean(0), abar**0.5 * wanted, atol=0.08)
        assert torch.allclose(x_t.std(0), torch.full_like(wanted, (1 - abar) ** 0.5), atol=0.06)


def test_nothing_is_done_in_no_steps():
    model, x = tiny_model(), images()
    assert torch.equal(diffuse(model, x, 0), model.format.to_unit(x))
    assert torch.equal(invert(model, x, 0), model.format.to_unit(x))
    for sampler in ("ancestral", "ddim"):
        assert torch.equal(denoise(model, diffuse(model, x, 0), 0, sampler=sampler), x)


def test_the_noise_is_that_of_a_seed_and_a_number():
    model, x = tiny_model(), images(1).expand(5, 1, 8, 8)
    x_t = diffuse(model, x, 7, seed=3)
    assert torch.equal(diffuse(model, x[:2], 7, seed=3, numbers=[4, 1]), x_t[[4, 1]])
    assert not torch.equal(x_t, diffuse(model, x, 7, seed=4))
    assert len(x_t.unique(dim=0)) == 5
    found = denoise(model, x_t, 7, seed=3)
    again = denoise(model, x_t[[4, 1]], 7, seed=3, numbers=[4, 1], batch_size=1)
    assert torch.equal(again, found[[4, 1]])


def test_the_noise_of_both_directions_is_unrelated():
    """Else the reverse process would take away exactly what was added."""
    model, n = echo_model(), 3000
    x_t = diffuse(model, images(1).expand(n, 1, 8, 8), 5)
    forward = x_t - x_t.mean(0)
    noise = model.noise(torch.arange(n), 0)
    for step in range(T + 1):
        product = (forward * noise(step)).mean() / forward.std()
        assert abs(float(product)) < 5 / (n * 64) ** 0.5


@pytest.mark.parametrize(
    ("sampler", "steps"), [("ancestral", None), ("ancestral", 6), ("ddim", 6), ("dpm-solver", 5)]
)
def test_from_pure_noise_it_is_sampling(sampler, steps):
    model = tiny_model()
    plan = Plan(steps)
    start = model.noise(torch.arange(5), 2)(steps or T)
    found = denoise(model, start, T, seed=2, sampler=sampler, plan=plan, batch_size=2)
    assert torch.equal(found, model.sample(5, seed=2, sampler=sampler, plan=plan))


@pytest.mark.parametrize("t", [1, 2, 13, T])
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_the_reverse_process_begins_with_step_t(t, sampler):
    model = echo_model()
    denoise(model, diffuse(model, images(), t), t, sampler=sampler)
    assert model.network.asked == list(range(t - 1, -1, -1))


@pytest.mark.parametrize(
    ("t", "wanted"), [(1, [0]), (4, [3, 0]), (5, [4, 0]), (6, [5, 4, 0]), (19, [18, 9, 4, 0])]
)
def test_a_shorter_chain_is_left_at_x_t_itself(t, wanted):
    model, plan = echo_model(), Plan(None, (0, 4, 9, 19))
    denoise(model, diffuse(model, images(), t), t, plan=plan)
    assert model.network.asked == wanted
    model.network.asked.clear()
    invert(model, images(), t, plan=plan, corrections=0)
    up = wanted[::-1]
    assert model.network.asked == [up[0], *up[:-1]]


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "analytic"])
def test_a_step_is_as_wide_as_it_is_long(variance):
    """From x_t (t = 8) to timestep 4, in closed form."""
    model = measured_model()
    chain, start = chain_through(model, Plan(None, (0, 4, 9, 19), variance), 8)
    assert chain.schedule.timesteps[start] == 7
    abar = model.diffusion.schedule.alphas_cumprod
    beta = 1 - abar[7] / abar[4]
    small = beta * (1 - abar[4]) / (1 - abar[7])
    wanted = {"fixed_small": small, "fixed_large": beta}.get(variance)
    x, t = torch.zeros(1, 1, 8, 8), torch.tensor([start])
    found = chain.log_variance(None, x, t).exp()
    if wanted is None:
        error = torch.from_numpy(model.denoising_error.at(chain.schedule.timesteps[[start]]))
        gain = beta * abar[4] ** 0.5 / (1 - abar[7])
        wanted = small + gain**2 * error
    assert torch.allclose(found.double(), torch.as_tensor(wanted).expand(found.shape), rtol=1e-5)


@pytest.mark.parametrize("prediction", ["previous_mean", "v_prediction", "sample"])
def test_every_kind_of_network_serves(prediction):
    model = echo_model(prediction_type=prediction, variance_type="learned_range")
    x = images()
    mixed = interpolate(model, x[:2], x[2:], [0.5], 9, plan=Plan(4))
    assert mixed.shape == (1, 2, 1, 8, 8)
    assert invert(model, x, 9, plan=Plan(4)).isfinite().all()


def test_a_callback_sees_the_place_of_each_batch_and_progress_is_complete():
    model, seen, told = tiny_model(), [], []
    x_t = diffuse(model, images(5), 3, numbers=[7, 7, 1, 2, 9])
    denoise(
        model,
        x_t,
        3,
        numbers=[7, 7, 1, 2, 9],
        batch_size=2,
        callback=lambda state: seen.append((state.first, state.timestep, len(state.x_t))),
        progress=lambda done, total, label: told.append((done, total)),
    )
    assert seen == [(f, t, 1 if f == 4 else 2) for f in (0, 2, 4) for t in (2, 1, 0)]
    assert told == [(i, 9) for i in range(10)]
    told.clear()
    invert(model, images(5), 3, batch_size=2, progress=lambda d, n, label: told.append((d, n)))
    assert told == [(i, 18) for i in range(19)]


# -- inversion -------------------------------------------------------------------------------------


def test_inversion_does_not_depend_on_the_batch_and_returns():
    model, x = tiny_model(), images(5)
    x_t = invert(model, x, corrections=8)
    assert torch.allclose(invert(model, x, corrections=8, batch_size=2), x_t, atol=1e-4)
    assert torch.equal(denoise(model, x_t, T, sampler="ddim"), x)


# -- interpolation ---------------------------------------------------------------------------------


def test_without_diffusion_pixels_are_mixed():
    model, (x, y) = tiny_model(), images(4).split(2)
    for sampler in ("ancestral", "ddim"):
        found = interpolate(model, x, y, [0, 0.25, 1], 0, sampler=sampler)
        assert torch.equal(found[0], x)
        assert torch.equal(found[2], y)
        quarter = 0.75 * x.double() + 0.25 * y.double()
        assert ((found[1] - quarter).abs() <= 0.5 + 1e-5).all()


def test_an_interpolation_is_what_the_paper_says():
    """x_t and x'_t with noise of their own, one reverse process for all weights."""
    model, (x, y) = tiny_model(), images(4).split(2)
    x_t = diffuse(model, x, 6, seed=5, numbers=[0, 2])
    y_t = diffuse(model, y, 6, seed=5, numbers=[1, 3])
    found = interpolate(model, x, y, [0, 0.3, 1], 6, seed=5)
    for images_, weight in zip(found, [0, 0.3, 1], strict=True):
        mixed = (1 - weight) * x_t + weight * y_t
        assert torch.equal(images_, denoise(model, mixed, 6, seed=5))
    one = interpolate(model, x[1:], y[1:], [0.3], 6, seed=5)
    assert one.shape == (1, 1, 1, 8, 8)
    same = interpolate(model, x, x, [0, 1], 6, seed=5)
    assert not torch.equal(same[0], same[1])  # each of a pair has noise of its own


def test_by_ddim_the_ends_are_the_reconstructions():
    model, (x, y) = tiny_model(), images(4).split(2)
    found = interpolate(model, x, y, [0, 0.5, 1], 12, sampler="ddim", plan=Plan(5))
    for end, image in ((found[0], x), (found[2], y)):
        x_t = invert(model, image, 12, plan=Plan(5))
        assert torch.equal(end, denoise(model, x_t, 12, sampler="ddim", plan=Plan(5)))
    again = interpolate(model, x, y, [0, 0.5, 1], 12, sampler=Ddim(), plan=Plan(5), seed=9)
    assert torch.equal(again, found)  # no noise, so no seed


def test_an_arc_keeps_the_length_and_the_angle():
    x = torch.randn(3, 1, 8, 8)
    y = torch.randn(3, 1, 8, 8)
    y *= (x.flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
    angle = (x * y).flatten(1).sum(1) / x.flatten(1).square().sum(1)
    for weight in (0.1, 0.5, 0.8):
        z = arc(x, y, weight)
        assert torch.allclose(z.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-4)
        part = (x * z).flatten(1).sum(1) / x.flatten(1).square().sum(1)
        assert torch.allclose(part.arccos(), weight * angle.arccos(), rtol=1e-3)
    assert torch.equal(arc(x, y, 0), x)
    assert torch.equal(arc(x, y, 1), y)
    for parallel in (x, 2 * x, -x):
        assert torch.equal(arc(x, parallel, 0.25), straight(x, parallel, 0.25))


# -- mistakes --------------------------------------------------------------------------------------


def test_wrong_use_gives_a_sentence():
    model, x = tiny_model(), images()
    x_t = diffuse(model, x, 5)
    for t in (-1, T + 1, 2.5, True):
        for call in (
            lambda t: diffuse(model, x, t),
            lambda t: denoise(model, x_t, t),
            lambda t: invert(model, x, t),
            lambda t: interpolate(model, x, x, [0.5], t),
        ):
            with unchecked(), pytest.raises(DdpmError, match="steps of diffusion t must"):
                call(t)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(DdpmError, match=r"must lie in \[0, 1\]"):
            interpolate(model, x, x, [0.5, weight], 5)
    with pytest.raises(DdpmError, match="at least one weight"):
        interpolate(model, x, x, [], 5)
    with unchecked(), pytest.raises(DdpmError, match="in pairs, but there are 4 and 3"):
        interpolate(model, x, x[:3], [0.5], 5)
    with pytest.raises(DdpmError, match="2 numbers for 4 images"):
        diffuse(model, x, 5, numbers=[1, 2])
    with pytest.raises(DdpmError, match="number of an image must be at least 0"):
        diffuse(model, x, 5, numbers=[1, 2, 3, -1])
    with pytest.raises(DdpmError, match="seed must be at least 0"):
        denoise(model, x_t, 5, seed=-1)
    with pytest.raises(DdpmError, match="batch_size must be at least 1"):
        denoise(model, x_t, 5, batch_size=0)
    with pytest.raises(DdpmError, match="batch_size must be at least 1"):
        invert(model, x, 5, batch_size=0)
    with pytest.raises(DdpmError, match="corrections must be at least 0"):
        invert(model, x, 5, corrections=-1)
    with pytest.raises(DdpmError, match="unknown sampler"):
        denoise(model, x_t, 5, sampler="euler")
    with unchecked(), pytest.raises(DdpmError, match=r"float type, got torch\.uint8"):
        denoise(model, x, 5)
    with pytest.raises(DdpmError, match=r"shape \(1, 8, 8\), got \(1, 4, 8\)"):
        denoise(model, x_t[:, :, :4], 5)
    with pytest.raises(DdpmError, match="expects images of shape"):
        diffuse(model, x[:, :, :4], 5)
    with pytest.raises(DdpmError, match="grey levels"):
        invert(model, x + 20, 5)


def test_no_images_are_no_images():
    model, none = tiny_model(), images()[:0]
    assert denoise(model, diffuse(model, none, 5), 5).shape == (0, 1, 8, 8)
    assert invert(model, none, 5).shape == (0, 1, 8, 8)
