"""The rotation into colour and frequency, and the reverse step in its coordinates, against dense
matrices."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch.distributions import MultivariateNormal, kl_divergence

from ddpm.diffusion.bound_terms import vb_term
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses import training_loss
from ddpm.diffusion.rotation import CosineTransform, Rotation, principal_colours
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.sampling import Ancestral
from ddpm.sampling.repaint import repaint
from typecheck import unchecked

SHAPES = [(1, 1, 1), (1, 8, 8), (2, 3, 5), (3, 8, 8), (3, 32, 32), (4, 7, 2), (3, 1, 6)]


def axes(channels, seed=0):
    """Orthonormal rows in no particular direction."""
    a = np.random.default_rng(seed).standard_normal((channels, channels))
    return np.linalg.qr(a)[0].astype(np.float32)


def rotation(shape, seed=0):
    return Rotation(axes(shape[0], seed), *shape[1:])


def dense(turned, dtype=torch.float32):
    """U as a matrix: its columns are the images of the coordinates one by one."""
    size = math.prod(turned.shape)
    eye = torch.eye(size, dtype=dtype).reshape(size, *turned.shape)
    return turned.unrotate(eye).reshape(size, size).T


# -- the rotation --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_orthonormal_and_its_two_directions_undo_one_another(shape):
    turned = rotation(shape)
    matrix = dense(turned).double()
    assert (matrix.T @ matrix - torch.eye(len(matrix))).abs().max() < 1e-6
    x = torch.randn(5, *shape)
    assert torch.allclose(turned.unrotate(turned.rotate(x)), x, atol=3e-6)
    assert torch.allclose(turned.rotate(x).flatten(1), x.flatten(1) @ matrix.float(), atol=3e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_a_turn_of_the_colours_and_the_dct_of_scipy(shape):
    turned, x = rotation(shape), torch.randn(3, *shape, dtype=torch.float64)
    spectrum = dctn(x.numpy(), axes=(2, 3), norm="ortho")
    expected = np.einsum("dc,bchw->bdhw", turned.colours.astype(np.float64), spectrum)
    assert turned.rotate(x).numpy() == pytest.approx(expected, abs=1e-12)
    assert CosineTransform(*shape[1:])(x).numpy() == pytest.approx(spectrum, abs=1e-12)


def test_an_even_grey_picture_is_one_coordinate():
    grey = np.full((3, 3), 1 / math.sqrt(3)) * [[1], [0], [0]]
    grey[1], grey[2] = np.array([1, -1, 0]) / math.sqrt(2), np.array([1, 1, -2]) / math.sqrt(6)
    y = Rotation(grey, 4, 6).rotate(torch.full((1, 3, 4, 6), 0.5))
    assert float(y[0, 0, 0, 0]) == pytest.approx(0.5 * math.sqrt(3 * 4 * 6))
    y[0, 0, 0, 0] = 0
    assert y.abs().max() < 1e-6


def test_principal_colours_are_those_of_the_covariance():
    turn = axes(3, seed=4).astype(np.float64)
    colours = principal_colours(turn.T @ np.diag([0.1, 3.0, 0.7]) @ turn)
    assert np.abs(colours @ turn[[1, 2, 0]].T) == pytest.approx(np.eye(3), abs=1e-6)
    assert (colours[np.arange(3), np.abs(colours).argmax(axis=1)] > 0).all()
    assert colours.dtype == np.float32
    assert principal_colours(np.array([[0.3]])).tolist() == [[1.0]]
    assert np.abs(principal_colours(np.zeros((3, 3)))).sum() == 3  # images of one colour


def test_what_does_not_fit_is_refused():
    turned = rotation((3, 4, 6))
    for shape in ((2, 3, 6, 4), (2, 1, 4, 6), (2, 3, 4)):
        for way in (turned.rotate, turned.unrotate):
            with unchecked(), pytest.raises(DdpmError, match=r"of shape \(3, 4, 6\), got"):
                way(torch.zeros(shape))
    with pytest.raises(DdpmError, match="orthonormal"):
        Rotation(np.array([[1.0, 0.1], [0.0, 1.0]]), 2, 2)


# -- the reverse step ----------------------------------------------------------------------------

TINY, T = (2, 2, 3), 6


def errors(seed):
    """A table of errors at every timestep, that differ by up to a factor of 100."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.uniform(-4.5, 0, (T, *TINY)))


def chain(**options):
    """A chain with the spectral variance, its table of pixels and that of coordinates."""
    pixels, spectral = errors(1), errors(2)
    schedule = make_schedule(timesteps=T, beta_start=0.05, beta_end=0.5)
    plain = GaussianDiffusion(schedule, "sample", "fixed_small", False, **options)
    turned = rotation(TINY, seed=3)
    tables = pixels.__getitem__, spectral.__getitem__
    return plain.with_variance("spectral", *tables, turned), pixels, spectral


def network(x, t):
    """A predicted x_0 that is some function of its input."""
    return torch.sin(2 * x) + 0.1 * t.reshape(-1, 1, 1, 1)


def covariance(diffusion, spectral, index):
    """The dense matrix of a reverse step: lambda^2 I + c^2 U diag(e) U^T."""
    u = dense(diffusion.rotation, torch.float64)
    schedule, step = diffusion.schedule, diffusion.schedule.timesteps[index]
    e = torch.from_numpy(spectral[step].reshape(-1))
    isotropic = schedule.posterior_variance[index] * torch.eye(len(e), dtype=torch.float64)
    return isotropic + schedule.posterior_mean_coef1[index] ** 2 * u @ torch.diag(e) @ u.T


@pytest.mark.parametrize("times", [None, [0, 2, 5], [1, 5]])
def test_the_kl_is_that_of_the_dense_matrices(times):
    diffusion, pixels, spectral = chain()
    diffusion = diffusion if times is None else diffusion.respace(times)
    torch.manual_seed(1)
    last = diffusion.num_timesteps - 1
    t = torch.tensor([last, 1, 0, last, 1])  # all kinds of steps in one batch
    x_start, x_t = torch.rand(2, len(t), *TINY, dtype=torch.float64) * 2 - 1
    found, p = vb_term(diffusion, network, x_start, x_t, t)
    means, variances, _ = diffusion.q_posterior_mean_variance(x_start, x_t, t)
    for i, index in enumerate(t.tolist()):
        if index == 0:
            continue
        isotropic = float(variances[i]) * torch.eye(12, dtype=torch.float64)
        q = MultivariateNormal(means[i].reshape(-1), isotropic)
        matrix = covariance(diffusion, spectral, index)
        dense_p = MultivariateNormal(p.mean[i].reshape(-1), matrix)
        expected = float(kl_divergence(q, dense_p)) / 12 / math.log(2)
        assert float(found[i]) == pytest.approx(expected, rel=1e-5)
    analytic = diffusion.with_variance("analytic", pixels.__getitem__)
    same, p_pixels = vb_term(analytic, network, x_start, x_t, t)
    assert found[2] == same[2]  # the discrete decoder, in pixels
    assert torch.equal(p.variance[2], p_pixels.variance[2])
    assert not torch.isclose(found[[0, 1]], same[[0, 1]], rtol=1e-3).any()


def test_a_rotation_that_turns_nothing_changes_no_bit():
    """1x1 pixels of one channel: U = 1."""
    schedule = make_schedule(timesteps=T, beta_end=0.5)
    table = np.linspace(0.01, 0.3, T).reshape(T, 1, 1, 1)
    plain = GaussianDiffusion(schedule, "sample", "fixed_small", False)
    here = Rotation(np.eye(1), 1, 1)
    spectral = plain.with_variance("spectral", table.__getitem__, table.__getitem__, here)
    analytic = plain.with_variance("analytic", table.__getitem__)
    x_start, x_t = torch.randn(2, T, 1, 1, 1)
    ours, theirs = (
        vb_term(d, network, x_start, x_t, torch.arange(T))[0] for d in (spectral, analytic)
    )
    assert torch.equal(ours, theirs)


def second_moments(x):
    """Empirical covariance of samples [n, d], and the standard error of each entry."""
    apart = x - x.mean(dim=0)
    found = apart.T @ apart / len(x)
    squares = (apart**2).T @ (apart**2) / len(x)
    return found, ((squares - found**2) / len(x)).sqrt()


def drawn_by_ancestral(diffusion, x, noise):
    """x at time index 0, after the one step of a chain of two that adds noise."""
    seen = []
    Ancestral()(diffusion, network, x, noise, callback=lambda state: seen.append(state.x_t))
    return seen[1]


def drawn_by_repaint(diffusion, x, noise):
    """The same of RePaint, where all is to be filled in."""
    seen = []

    def watched(x_t, t):
        seen.append(x_t)
        return network(x_t, t)

    first = [x]
    fresh = lambda i: first.pop() if i == 0 else noise(i)  # noqa: E731
    fill = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    repaint(diffusion, watched, torch.zeros_like(x), fill, fresh, repeats=1)
    return seen[1]


@pytest.mark.parametrize("draw", [drawn_by_ancestral, drawn_by_repaint])
def test_what_is_drawn_has_the_covariance_of_the_dense_matrix(draw):
    n = 100_000
    diffusion, _, spectral = chain()
    diffusion = diffusion.respace([2, 5])
    torch.manual_seed(2)
    x = torch.randn(1, *TINY).expand(n, *TINY)
    mean = diffusion.p_mean_variance(network, x[:1], torch.tensor([1])).mean
    drawn = draw(diffusion, x, lambda i: torch.randn(n, *TINY)).double().flatten(1)
    expected = covariance(diffusion, spectral, 1)
    found, error = second_moments(drawn)
    assert ((found - expected).abs() < 5 * error).all()
    assert ((drawn.mean(dim=0) - mean.reshape(-1)).abs() < 5 * (expected.diag() / n).sqrt()).all()
    # The same variances in pixels are another law.
    assert ((found - expected.diag().diag()).abs() > 20 * error).any()


def test_respaced_chains_take_the_errors_of_their_timesteps():
    diffusion, pixels, spectral = chain()
    short = diffusion.respace([1, 3, 5])
    p = short.p_mean_variance(network, torch.randn(3, *TINY), torch.arange(3))
    for i, table in ((0, pixels[1]), (1, spectral[3]), (2, spectral[5])):
        schedule = short.schedule
        expected = schedule.posterior_variance[i] + schedule.posterior_mean_coef1[i] ** 2 * table
        assert p.variance[i].numpy() == pytest.approx(expected, rel=1e-5)
    assert short.rotation is diffusion.rotation
    assert short.with_variance("fixed_small").rotation is None


def test_what_does_not_belong_together_is_refused():
    diffusion, pixels, _ = chain()
    curve, turned = pixels.__getitem__, diffusion.rotation
    for given in ((curve,), (curve, curve), (None, curve, turned), (curve, None, turned)):
        with pytest.raises(DdpmError, match="'spectral' needs the network's denoising error"):
            diffusion.with_variance("spectral", *given)
    for given in ((curve, None, turned), (curve, curve, None)):
        with pytest.raises(
            DdpmError, match="belong to variance_type 'spectral', not to 'analytic'"
        ):
            diffusion.with_variance("analytic", *given)
    with pytest.raises(DdpmError, match=r"of shape \(2, 2, 3\), got \(2, 3, 2\)"):
        diffusion.p_mean_variance(network, torch.zeros(1, 2, 3, 2), torch.tensor([1]))


def test_a_table_of_one_number_for_each_timestep_serves_all_pixels_and_coordinates():
    diffusion, _, _ = chain()
    flat = np.linspace(0.1, 0.6, T).__getitem__
    one = diffusion.with_variance("spectral", flat, flat, diffusion.rotation)
    p = one.p_mean_variance(network, torch.randn(2, *TINY), torch.tensor([0, 4]))
    q = one.with_variance("analytic", flat).p_mean_variance(
        network, torch.randn(2, *TINY), torch.tensor([0, 4])
    )
    assert torch.equal(p.variance, q.variance)


def test_the_bound_can_be_trained_on():
    diffusion, _, _ = chain()
    weight = torch.tensor(0.5, requires_grad=True)
    x, t = torch.randn(4, *TINY), torch.tensor([0, 1, 3, 5])
    training_loss(diffusion, lambda x, t: weight * x, x, t, x.flip(0), "vlb").mean().backward()
    assert torch.isfinite(weight.grad)
    assert weight.grad != 0
