"""The calibration of a predicted x_0: what it recovers, what it leaves alone, where it acts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ddpm
from ddpm.data.images import ImageFormat
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.rotation import cosines
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood.bound import evaluate_bound
from ddpm.likelihood.calibration import Calibration, frequency_bands
from ddpm.likelihood.calibration_fit import share_and_level, shrunk_slopes
from ddpm.likelihood.denoising_error import DenoisingError, measure_denoising_error
from ddpm.likelihood.plan import Plan
from ddpm.likelihood.trajectory import optimal_timesteps
from ddpm.loading import load
from ddpm.runs.checkpoint import model_tensors
from ddpm.sampling import Ancestral, Ddim, DpmSolver, Langevin
from helpers import measured_model, tiny_images, tiny_model
from typecheck import unchecked

SIDE, T = 8, 20
MEAN, SPREAD = 0.1, 0.25  # of the Gaussian images
FORMAT = ImageFormat(1, SIDE, SIDE, 256)
BANDS = int(frequency_bands(SIDE, SIDE).max()) + 1


def diffusion(**options):
    return GaussianDiffusion(make_schedule("linear", T, 1e-3, 0.3), **options)


def gaussian_images(n, seed=0):
    """Independent normal pixels around MEAN."""
    generator = torch.Generator().manual_seed(seed)
    x = MEAN + SPREAD * torch.randn(n, 1, SIDE, SIDE, generator=generator)
    return FORMAT.from_unit(x)


def posterior_mean(chain, x, t):
    """E[x_0 | x_t] of the Gaussian images."""
    abar = torch.tensor(chain.schedule.alphas_cumprod)[t].float()[:, None, None, None]
    gain = abar.sqrt() * SPREAD**2 / (abar * SPREAD**2 + 1 - abar)
    return MEAN + gain * (x - abar.sqrt() * MEAN)


def in_bands(x, factors):
    """x with each band of its distance from MEAN multiplied by its factor."""
    matrix = torch.from_numpy(cosines(SIDE)).float()
    gains = torch.tensor(factors).float()[torch.from_numpy(frequency_bands(SIDE, SIDE))]
    return MEAN + matrix.T @ (gains * (matrix @ (x - MEAN) @ matrix.T)) @ matrix


def spoilt(chain, factors):
    """A network that predicts the noise from the posterior mean, spoilt band by band."""

    def denoiser(x, t):
        return chain.epsilon_from_xstart(in_bands(posterior_mean(chain, x, t), factors), x, t)

    return denoiser


def measured(chain, denoiser, n=400, **options):
    return measure_denoising_error(chain, denoiser, gaussian_images(n), FORMAT, **options)


FACTORS = (2.5, 2.0, 0.5, 1.0, 3.0)


# -- what it recovers ----------------------------------------------------------------------------


def test_a_posterior_mean_that_was_spoilt_in_every_band_comes_back():
    chain = diffusion(clip_sample=False)
    calibration = measured(chain, spoilt(chain, FACTORS), n=1500).calibration
    known = np.tile(1 / np.array(FACTORS), (8, 1))
    assert calibration.slopes[:8] == pytest.approx(known, rel=0.1)
    t = torch.full((50,), 7)
    x = chain.q_sample(FORMAT.to_unit(gaussian_images(50, seed=9)), t, torch.randn(50, 1, 8, 8))
    best, wrong = posterior_mean(chain, x, t), in_bands(posterior_mean(chain, x, t), FACTORS)
    corrected = chain.with_correction(calibration).p_mean_variance(spoilt(chain, FACTORS), x, t)
    assert torch.allclose(
        chain.p_mean_variance(spoilt(chain, FACTORS), x, t).pred_xstart, wrong, atol=1e-4
    )
    assert (corrected.pred_xstart - best).square().mean() < 0.01 * (wrong - best).square().mean()
    means = [chain.q_posterior_mean_variance(x0, x, t)[0] for x0 in (corrected.pred_xstart, best)]
    assert torch.equal(corrected.mean, means[0])
    assert torch.allclose(*means, atol=0.02)


def test_the_error_it_promises_is_that_of_the_corrected_prediction_on_other_images():
    chain = diffusion(clip_sample=False)
    denoiser = spoilt(chain, FACTORS)
    error = measured(chain, denoiser)
    others = gaussian_images(400, seed=5)
    corrected = chain.with_correction(error.calibration)
    found = measure_denoising_error(corrected, denoiser, others, FORMAT)
    promised, there = (
        e.reshape(T, -1).mean(axis=1) for e in (error.calibrated.xstart_mse, found.xstart_mse)
    )
    assert promised == pytest.approx(there, rel=0.05)
    assert error.calibrated.decoder_bpd == pytest.approx(found.decoder_bpd, abs=0.03)
    assert (promised < error.xstart_mse.reshape(T, -1).mean(axis=1)).all()


@pytest.mark.parametrize("n", [5, 40, 400])
def test_of_a_network_without_a_fault_noise_makes_next_to_nothing_worse(n):
    chain = diffusion(clip_sample=False)
    denoiser, others = spoilt(chain, (1.0,) * BANDS), gaussian_images(300, seed=6)
    calibration = measured(chain, denoiser, n).calibration
    own, corrected = (
        measure_denoising_error(c, denoiser, others, FORMAT).xstart_mse.reshape(T, -1).mean(axis=1)
        for c in (chain, chain.with_correction(calibration))
    )
    assert (corrected <= own * (1 + 0.6 / n)).all()
    assert (calibration.slopes == 1).mean() > 0.4


def test_a_network_that_always_says_the_true_mean_keeps_it():
    """These images' own mean would fit them better, and others worse."""
    chain = diffusion(prediction_type="sample")
    calibration = measured(chain, lambda x, t: torch.full_like(x, MEAN), n=30).calibration
    same = calibration(torch.full((1, 1, SIDE, SIDE), MEAN), torch.tensor([T - 1]))
    own = torch.from_numpy(calibration.mean)
    assert (same - MEAN).square().mean() < 0.35 * (own - MEAN).square().mean()


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3, 40])
@pytest.mark.parametrize("seed", range(3))
def test_the_measured_error_never_rises(n, clip, seed):
    model = tiny_model(seed)
    images = tiny_images(n, seed=seed).images
    chain = replace(model.diffusion, clip_sample=clip)
    error = measure_denoising_error(chain, model.denoiser(), images, model.format)
    corrected = measure_denoising_error(
        chain.with_correction(error.calibration), model.denoiser(), images, model.format
    )
    before, after = (e.xstart_mse.reshape(T, -1).mean(axis=1) for e in (error, corrected))
    assert (after <= before * (1 + 1e-6)).all()
    if n == 1:
        assert (error.calibration.slopes == 1).all()
    elif n == 40:
        assert after[-1] < 0.9 * before[-1]


def test_slopes_go_only_as_far_from_one_as_chance_does_not():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((500, 3))
    x = z * [1.0, 0.5, 1.5] + 0.3 * rng.standard_normal((500, 3))
    many = shrunk_slopes(x * z, z * z)
    assert many == pytest.approx([1, 0.5, 1.5], abs=0.03)
    few = shrunk_slopes((x * z)[:4], (z * z)[:4])
    plain = (x * z)[:4].sum(axis=0) / (z * z)[:4].sum(axis=0)
    assert (np.abs(few - 1) < np.abs(plain - 1)).all()
    assert shrunk_slopes(np.zeros((5, 1)), np.zeros((5, 1))) == 1  # nothing was predicted


# -- how it is kept ------------------------------------------------------------------------------


def test_bands_are_rings_that_double_and_cosines_are_orthonormal():
    assert frequency_bands(4, 6).tolist() == [
        [0, 1, 2, 2, 3, 3],
        [1, 1, 2, 3, 3, 3],
        [2, 2, 2, 3, 3, 3],
        [2, 3, 3, 3, 3, 3],
    ]
    assert frequency_bands(1, 1).tolist() == [[0]]
    assert cosines(7) @ cosines(7).T == pytest.approx(np.eye(7))


def made(slopes, times=(0, 10, 19), mean=None):
    """A calibration of 8x8 images with these slopes in all bands."""
    flat = np.full((1, SIDE, SIDE), 0.1, np.float32)
    rows = np.ones(len(times), np.float32)
    every = np.repeat(np.array(slopes, np.float32)[:, None], BANDS, axis=1)
    where = flat if mean is None else mean
    return Calibration(np.array(times), where, every, flat, 0 * rows, rows, rows)


def test_slopes_are_interpolated_between_the_timesteps_that_were_measured():
    calibration = made([1.0, 0.5, 0.0])
    assert calibration.slopes_at(np.array([5]))[0] == pytest.approx([0.75] * BANDS)
    x = torch.randn(20, 1, SIDE, SIDE)
    found = calibration(x, torch.arange(20))
    known = np.interp(np.arange(20), [0, 10, 19], [1, 0.5, 0])
    expected = 0.1 + torch.from_numpy(known).float()[:, None, None, None] * (x - 0.1)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(found[0], x[0])  # a slope of 1: bit for bit


def test_the_error_at_each_pixel_lies_between_the_networks_own_and_the_images_spread():
    rng = np.random.default_rng(1)
    own, spread = rng.uniform(0.1, 1, (2, 1, SIDE, SIDE))
    assert share_and_level(own, 0.8 * own, spread) == pytest.approx((0, 0.8))
    assert share_and_level(own, 0.7 * spread, spread) == pytest.approx((1, 0.7))
    share, level = share_and_level(own, (own * spread) ** 0.5, spread)
    assert (share, level) == pytest.approx((0.5, 1))


@pytest.mark.parametrize(
    "broken",
    [
        lambda c: {"timesteps": c.timesteps[::-1].copy()},
        lambda c: {"slopes": c.slopes[:, 1:]},
        lambda c: {"slopes": c.slopes[1:]},
        lambda c: {"slopes": c.slopes * np.float32(np.nan)},
        lambda c: {"share": c.share[1:]},
        lambda c: {"spread": 0 * c.spread},
        lambda c: {"spread": c.spread[:, 1:]},
        lambda c: {"level": -c.level},
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(broken):
    calibration = made([1.0, 0.5, 0.0])
    with unchecked(), pytest.raises(DdpmError, match="one row for each of its rising timesteps"):
        replace(calibration, **broken(calibration))


def test_a_model_keeps_it_in_its_file_bit_for_bit(tmp_path):
    model = measured_model()
    model.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors", "cpu")
    ours, theirs = (m.denoising_error.calibration for m in (model, again))
    for name in ("timesteps", "mean", "slopes", "spread", "share", "level", "decoder_bpd"):
        found = getattr(theirs, name)
        assert found.dtype == getattr(ours, name).dtype
        assert np.array_equal(found, getattr(ours, name))
    how = {"sampler": "ddim", "steps": 5, "seed": 3}
    assert torch.equal(model.sample(4, **how), again.sample(4, **how))
    assert ddpm.provenance.fingerprint(model) == ddpm.provenance.fingerprint(again)


def test_a_file_with_a_part_of_it_is_refused(tmp_path):
    tensors = measured_model().denoising_error.tensors()
    del tensors["denoising_error.calibration.slopes"]
    with pytest.raises(KeyError, match="slopes"):
        DenoisingError.from_tensors(tensors)


def test_several_processes_fit_what_one_does(monkeypatch):
    """Each leaves the rows of the others at 0, and they are added up."""
    whole = measured_model().denoising_error
    halves = []
    for rank in (0, 1):
        monkeypatch.setattr("ddpm.runtime.parallel.is_mine", lambda i, rank=rank: i % 2 == rank)
        monkeypatch.setattr(
            "ddpm.likelihood.calibration_fit.parallel.all_reduce_sum",
            lambda *tables: halves.append(tables),
        )
        with pytest.raises(DdpmError):  # the rows of the other process have no level yet
            measured_model()
    slopes, numbers = (sum(tables) for tables in zip(*halves[1::2], strict=True))
    assert np.array_equal(slopes.numpy(), whole.calibration.slopes)
    assert np.array_equal(numbers[1].numpy(), whole.calibration.level)


# -- where it acts -------------------------------------------------------------------------------


def without(model):
    """The same model as an earlier version measured it."""
    return replace(model, denoising_error=replace(model.denoising_error, calibration=None))


SAMPLERS = {
    "ddim": ("ddim", {}, True),
    "ddim, eta 0.5": (Ddim(eta=0.5), {}, None),
    "Ddim()": (Ddim(), {}, True),
    "dpm-solver": ("dpm-solver", {}, True),
    "DpmSolver()": (DpmSolver(), {}, True),
    "unipc": ("unipc", {}, True),
    "heun": ("heun", {}, True),
    "ancestral": (Ancestral(), {}, None),
    "ancestral, all steps": ("ancestral", {"steps": None}, None),
    "langevin": (Langevin(), {}, None),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_that_add_no_noise_use_it_by_default(name):
    sampler, options, used = SAMPLERS[name]
    model = measured_model()
    plan = Plan(options.get("steps", 5))
    assert model.plan_samples(sampler, plan)[1].calibrated is used
    assert without(model).plan_samples(sampler, plan)[1].calibrated is None
    for asked in (True, False):
        chosen = model.plan_samples(sampler, replace(plan, calibrated=asked))[1]
        assert chosen.calibrated is asked
        assert (model.chain(chosen).correct_xstart is not None) is asked
        again = model.plan_samples(sampler, chosen)[1]
        assert again == chosen


def test_a_model_without_it_draws_and_states_what_it_always_did(tmp_path):
    measured_before, model = without(measured_model()), measured_model()
    same = Plan(5, "quadratic")  # smooth steps are those of the calibrated x_0
    for sampler in ("ddim", "ancestral"):
        drawn = measured_before.sample(4, sampler=sampler, plan=same)
        off = replace(same, calibrated=False)
        assert torch.equal(drawn, model.sample(4, sampler=sampler, plan=off))
        _, plan = measured_before.plan_samples(sampler, Plan(5, calibrated=False))
        assert plan.document().keys() == {"steps", "trajectory", "variance"}
    before, now = (each.sample(4, sampler="ddim", plan=same) for each in (measured_before, model))
    assert not torch.equal(before, now)


def test_it_is_never_missed_in_silence():
    for model in (tiny_model(), without(measured_model())):
        for refused in (
            lambda model=model: model.sample(1, plan=Plan(3, calibrated=True)),
            lambda model=model: model.chain(Plan(3, "even", calibrated=True)),
            lambda model=model: model.bound(tiny_images(), plan=Plan(3, calibrated=True)),
        ):
            with pytest.raises(DdpmError, match=r"no calibration .*`ddpm measure RUN`"):
                refused()


def test_archives_know_nothing_of_it():
    model = measured_model()
    before = without(model)
    assert model.for_codec().fingerprint == before.for_codec().fingerprint
    assert model.for_codec().chain((3, 9, 19)).correct_xstart is None
    images = tiny_images(3).images
    assert before.decompress(model.compress(list(images), steps=3)).images[2].equal(images[2])


def test_what_it_changes_of_a_drawing_is_in_the_fingerprint():
    model = measured_model()
    fingerprints = [ddpm.provenance.fingerprint(m) for m in (model, without(model))]
    assert fingerprints[0] != fingerprints[1]
    weights = model.network.state_dict()
    old = model_tensors(weights, model.diffusion, without(model).denoising_error)
    assert not [name for name in old if "calibration" in name]


def test_a_calibrated_chain_has_the_variance_and_trajectory_of_its_own_error():
    model = measured_model()
    error = model.denoising_error.calibrated
    plan = Plan(4, "optimal", "analytic", calibrated=True)
    chain = model.chain(plan)
    assert (
        chain.schedule.timesteps.tolist()
        == optimal_timesteps(model.diffusion.schedule, error, 4).tolist()
    )
    t = torch.tensor([2])
    x = torch.randn(1, 1, SIDE, SIDE)
    expected = (
        chain.coefficient("posterior_variance", t, x)
        + chain.coefficient("posterior_mean_coef1", t, x) ** 2
        * torch.from_numpy(error.at(chain.schedule.timesteps[[2]])).float()
    )
    assert torch.allclose(chain.analytic_variance(t, x), expected, rtol=1e-5)
    own = model.chain(replace(plan, calibrated=None))
    assert not torch.allclose(own.analytic_variance(t, x), expected, rtol=1e-3)


def test_the_bound_of_a_calibrated_chain_is_what_its_error_predicts():
    chain = diffusion(clip_sample=False)
    denoiser = spoilt(chain, FACTORS)
    error, images = measured(chain, denoiser), gaussian_images(200, seed=4)
    bits = {}
    for calibrated in (False, True):
        plan = Plan(8, "optimal", "analytic", calibrated)
        bound = evaluate_bound(plan.chain(chain, error), denoiser, images, FORMAT)
        table = error.calibrated if calibrated else error
        promised = ddpm.likelihood.trajectory.predicted_bpd(chain.schedule, table, bound.timesteps)
        bits[calibrated] = bound.mean
        assert bound.mean - bound.prior.mean() == pytest.approx(promised, abs=0.05)
    assert bits[True] < bits[False] - 0.01


def test_a_network_that_predicts_the_posterior_mean_is_calibrated_by_way_of_x0():
    model = tiny_model()
    chain = replace(model.diffusion, prediction_type="previous_mean")
    calibration = made([0.5, 0.5, 0.5])
    t, x = torch.tensor([9]), torch.randn(1, 1, SIDE, SIDE)
    output = model.denoiser()(x, t)
    plain, corrected = (
        c.p_mean_variance_from_output(output, x, t)
        for c in (chain, chain.with_correction(calibration))
    )
    assert torch.equal(plain.mean, output)
    expected = calibration(plain.pred_xstart, t).clamp(-1, 1)
    assert torch.equal(corrected.pred_xstart, expected)
    assert torch.equal(corrected.mean, chain.q_posterior_mean_variance(expected, x, t)[0])


def test_inversion_undoes_the_calibrated_ddim():
    model = measured_model()
    images = ddpm.latents.diffuse(model, tiny_images(4).images, 0)
    plan = Plan(T, "even")
    grey = model.format.from_unit(images * 0.5)
    errors = []
    for calibrated in (None, False):  # None: as DDIM resolves it, which calibrates
        x = ddpm.latents.invert(
            model, grey, 12, plan=replace(plan, calibrated=calibrated), corrections=8
        )
        back = ddpm.latents.denoise(model, x, 12, sampler="ddim", plan=plan)
        errors.append((back.int() - grey.int()).abs().float().mean())
    assert errors[0] < 0.2 * errors[1]
