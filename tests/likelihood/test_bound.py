"""The bound over a set of images against closed forms and against a known entropy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from ddpm.data.images import ImageFormat
from ddpm.diffusion.bound_terms import vb_term
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood.bound import evaluate_bound, stratified_bound
from ddpm.likelihood.trajectory import even_timesteps

V = 0.04  # variance of the Gaussian data: a standard deviation of 25 grey levels, never clipped


def bound_of(diffusion, denoiser, images, levels=256, **options):
    """`evaluate_bound` for images of any size."""
    image_format = ImageFormat(*images.shape[1:], levels)
    return evaluate_bound(diffusion, denoiser, images, image_format, **options)


def gaussian_denoiser(diffusion, v=V):
    """The optimal noise prediction for pixels drawn from N(0, v)."""
    abar = torch.from_numpy(diffusion.schedule.alphas_cumprod.copy())

    def denoise(x, t):
        a = abar[t].reshape(-1, 1, 1, 1)
        x_start = a.sqrt() * v / (a * v + 1 - a) * x
        return ((x - a.sqrt() * x_start) / (1 - a).sqrt()).to(x.dtype)

    return denoise


def gaussian_images(n=64, side=16):
    pixels = torch.randn(n, 1, side, side) * math.sqrt(V)
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def expected_terms(schedule, sigma2):
    """E KL(q || p) of every step in bits/dim for a reverse variance sigma2 [T]; entry 0 unused."""
    abar = schedule.alphas_cumprod
    mse = V * (1 - abar) / (abar * V + 1 - abar)
    lam = schedule.posterior_variance
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = 0.5 * (
            np.log(sigma2 / lam) + (lam + schedule.posterior_mean_coef1**2 * mse) / sigma2 - 1
        )
    return kl / math.log(2), mse


def expected_decoder(sigma2, mse):
    """E -log2 of the mass of a pixel's bin when the mean errs by N(0, mse)."""
    error = np.linspace(-8, 8, 4001)
    weight = norm.pdf(error) / norm.pdf(error).sum()
    error, scale, half = error * math.sqrt(mse), math.sqrt(sigma2), 1 / 255
    mass = norm.cdf((error + half) / scale) - norm.cdf((error - half) / scale)
    return float((weight * -np.log2(mass)).sum())


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "analytic"])
@pytest.mark.parametrize("steps", [None, 10])
def test_every_term_and_the_total_agree_with_the_closed_form_on_gaussian_data(variance, steps):
    schedule = make_schedule(timesteps=100, beta_end=0.1)
    whole_mse = expected_terms(schedule, schedule.betas)[1]
    table = whole_mse.__getitem__ if variance == "analytic" else None
    diffusion = GaussianDiffusion(schedule, "epsilon", variance, False, table)
    denoiser = gaussian_denoiser(diffusion)
    if steps:
        diffusion = diffusion.respace(even_timesteps(schedule.num_timesteps, steps))
    chain = diffusion.schedule
    bound = bound_of(diffusion, denoiser, gaussian_images(), 256)

    mse = expected_terms(chain, chain.betas)[1]
    sigma2 = {
        "fixed_small": np.exp(chain.posterior_log_variance_clipped),
        "fixed_large": chain.fixed_large_variance,
        "analytic": chain.posterior_variance + chain.posterior_mean_coef1**2 * mse,
    }[variance]
    terms, _ = expected_terms(chain, sigma2)
    terms[0] = expected_decoder(sigma2[0], mse[0])
    parts = [
        bound_of(diffusion, denoiser, part, 256, seed=seed).terms
        for seed, part in enumerate(gaussian_images().chunk(16))
    ]
    measured, error = np.mean(parts, axis=0), np.std(parts, axis=0, ddof=1) / math.sqrt(len(parts))
    assert np.all(np.abs(bound.terms - measured) < 8 * error + 1e-5)
    # The data are rounded to grey levels, which adds a hundredth of the variance at most.
    assert np.all(np.abs(measured - terms) < 5 * error + 0.01 * np.abs(terms) + 1e-5)
    a = chain.alphas_cumprod[-1]
    prior = 0.5 * (a * V + (1 - a) - 1 - math.log(1 - a)) / math.log(2)
    assert bound.prior.mean() == pytest.approx(prior, rel=0.03)
    total = prior + terms.sum()
    assert bound.mean == pytest.approx(total, abs=5 * bound.standard_error + 0.005 * total)
    assert bound.xstart_mse == pytest.approx(mse, rel=0.05)


def toy(diffusion):
    """Two pixels of three grey levels with a known joint law, and its exact posterior mean."""
    law = torch.tensor([[0.30, 0.05, 0.02], [0.05, 0.20, 0.03], [0.01, 0.04, 0.30]]).double()
    values = torch.tensor([-1.0, 0.0, 1.0]).double()
    pairs = torch.cartesian_prod(values, values)
    abar = torch.from_numpy(diffusion.schedule.alphas_cumprod.copy())

    def denoise(x, t):
        a = abar[t][:, None]
        flat = x.double().flatten(1)
        distance = ((flat[:, None] - a.sqrt()[:, :, None] * pairs[None]) ** 2).sum(-1)
        weight = torch.softmax(law.flatten().log() - distance / (2 * (1 - a)), dim=1)
        return (weight @ pairs).reshape(x.shape).to(x.dtype)

    images = (pairs + 1).to(torch.uint8).reshape(-1, 1, 1, 2)
    counts = (law.flatten() * 400).round().long()
    entropy = float(-(law * law.log2()).sum()) / 2
    return denoise, images.repeat_interleave(counts, dim=0), entropy


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "analytic"])
@pytest.mark.parametrize("steps", [200, 12])
def test_the_bound_is_never_below_the_entropy_of_the_data(variance, steps):
    schedule = make_schedule(timesteps=200, beta_end=0.05)
    plain = GaussianDiffusion(schedule, "sample", "fixed_small")
    denoise, images, entropy = toy(plain)
    mse = None
    if variance == "analytic":
        mse = bound_of(plain, denoise, images, 3).xstart_mse + 1e-6
        mse = mse.__getitem__
    diffusion = GaussianDiffusion(schedule, "sample", variance, True, mse)
    diffusion = diffusion.respace(even_timesteps(schedule.num_timesteps, steps))
    bound = bound_of(diffusion, denoise, images, 3)
    assert bound.mean > entropy - 2 * bound.standard_error
    if variance == "analytic" and steps == 200:
        assert bound.mean < entropy + 0.5  # and it is a useful bound, not just any large number


def test_no_image_is_dropped_and_batches_change_nothing():
    diffusion = GaussianDiffusion(make_schedule(timesteps=20), clip_sample=False)
    images = gaussian_images(n=11, side=4)
    whole = bound_of(diffusion, gaussian_denoiser(diffusion), images, 256, batch_size=11)
    split = bound_of(diffusion, gaussian_denoiser(diffusion), images, 256, batch_size=3)
    assert whole.terms.shape == whole.eps_mse.shape == (20,)
    assert whole.mean == pytest.approx(whole.prior.mean() + whole.terms.sum())
    assert whole.total == pytest.approx(split.total, rel=1e-5)
    other = bound_of(diffusion, gaussian_denoiser(diffusion), images, 256, seed=1)
    assert abs(other.mean - whole.mean) > 1e-6


def test_the_stratified_estimate_is_unbiased():
    diffusion = GaussianDiffusion(make_schedule(timesteps=50, beta_end=0.1), clip_sample=False)
    denoiser, images = gaussian_denoiser(diffusion), gaussian_images(n=400, side=4)
    full = bound_of(diffusion, denoiser, images, 256)
    estimate = stratified_bound(diffusion, denoiser, images, ImageFormat(1, 4, 4), draws=10)
    difference = estimate.double().numpy() - full.total
    error = float(difference.std()) / math.sqrt(len(images))
    assert float(difference.mean()) == pytest.approx(0, abs=4 * error)
    # Ten t drawn evenly instead, with the terms of the whole bound, would vary far more.
    even = torch.randint(50, (400, 10)).numpy()
    x_start, noise = ImageFormat(1, 4, 4).to_unit(images), torch.randn(50, *images.shape)
    terms = np.stack(
        [
            vb_term(diffusion, denoiser, x_start, diffusion.q_sample(x_start, t, e), t, 256)[0]
            for t, e in zip(torch.arange(50)[:, None].expand(50, 400), noise, strict=True)
        ],
        axis=1,
    )
    naive = full.prior + 5 * np.take_along_axis(terms, even, axis=1).sum(axis=1)
    assert difference.std() < 0.3 * (naive - full.total).std()


def test_the_stratified_estimate_of_every_t_of_a_chain_is_the_bound_itself():
    diffusion = GaussianDiffusion(make_schedule(timesteps=1, beta_end=0.1), clip_sample=False)
    denoiser, images = gaussian_denoiser(diffusion), gaussian_images(n=400, side=4)
    full = bound_of(diffusion, denoiser, images, 256).total
    estimate = (
        stratified_bound(diffusion, denoiser, images, ImageFormat(1, 4, 4), draws=1)
        .double()
        .numpy()
    )
    assert estimate.mean() == pytest.approx(full.mean(), abs=4 * full.std() / math.sqrt(400))


def test_rate_distortion_starts_with_the_prior_and_ends_with_everything_paid():
    diffusion = GaussianDiffusion(make_schedule(timesteps=20), clip_sample=False)
    images = gaussian_images(n=6, side=4)
    bound = bound_of(diffusion, gaussian_denoiser(diffusion), images, 256)
    curve = bound.rate_distortion()
    assert curve["rate"][0] == pytest.approx(bound.prior.mean())
    assert curve["rate"][-1] == pytest.approx(bound.mean)
    assert curve["rmse"][0] == pytest.approx(127.5 * math.sqrt(bound.xstart_mse[-1]))
    assert curve["rmse"][-1] == 0
    assert curve["reverse_step"].tolist() == list(range(21))
    # After one call the receiver has paid for the step away from T-1 and sees what comes next.
    assert curve["rate"][1] == pytest.approx(bound.prior.mean() + bound.terms[-1])
    seen = 20 * math.log10(255 / curve["rmse"][3])
    assert curve["psnr"][3] == pytest.approx(seen)


def test_the_squared_errors_are_those_of_x_0_and_of_the_noise():
    diffusion = GaussianDiffusion(make_schedule(timesteps=10), clip_sample=False)
    images = gaussian_images(n=3, side=4)
    bound = bound_of(diffusion, lambda x, t: torch.zeros_like(x), images, 256)
    # A network that always says 0 errs by the noise's own mean square, which is about 1.
    assert bound.eps_mse.mean() == pytest.approx(1.0, abs=0.15)
    # And its x_0 = x_t / sqrt(abar) errs by noise^2 (1 - abar) / abar.
    ratio = (1 / diffusion.schedule.alphas_cumprod - 1) * bound.eps_mse
    assert bound.xstart_mse == pytest.approx(ratio, rel=1e-3)


def test_an_empty_set_is_refused():
    diffusion = GaussianDiffusion(make_schedule(timesteps=5))
    with pytest.raises(DdpmError, match="no images"):
        bound_of(diffusion, lambda x, t: x, torch.zeros(0, 1, 4, 4, dtype=torch.uint8), 256)


def test_a_source_is_read_batch_by_batch_and_gives_what_a_tensor_gives():
    diffusion = GaussianDiffusion(make_schedule(timesteps=10), clip_sample=False)
    images, read = gaussian_images(n=7, side=4), []

    class Source:
        def __len__(self):
            return 7

        def __getitem__(self, indices):
            read.append(indices.tolist())
            return images[indices]

    denoiser = gaussian_denoiser(diffusion)
    image_format = ImageFormat(1, 4, 4)
    streamed = evaluate_bound(diffusion, denoiser, Source(), image_format, batch_size=3)
    assert max(map(len, read)) == 3
    assert [i for batch in read for i in batch] == list(range(7))
    whole = evaluate_bound(diffusion, denoiser, images, image_format, batch_size=3)
    assert np.array_equal(streamed.terms, whole.terms)


def test_images_of_another_format_are_refused():
    diffusion = GaussianDiffusion(make_schedule(timesteps=5))
    images = torch.full((2, 1, 4, 4), 17, dtype=torch.uint8)
    with pytest.raises(DdpmError, match="but the images have 17"):
        evaluate_bound(diffusion, lambda x, t: x, images, ImageFormat(1, 4, 4, 17))
