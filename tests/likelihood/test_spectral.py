"""The denoising error in colour and frequency: measured, kept, priced, and the bits it saves."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import ddpm
from ddpm.cli import main
from ddpm.data.images import ImageFormat
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.rotation import Rotation
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood.bound import evaluate_bound
from ddpm.likelihood.calibration import frequency_bands
from ddpm.likelihood.denoising_error import DenoisingError, measure_denoising_error
from ddpm.likelihood.plan import Plan
from ddpm.likelihood.spectral_error import SpectralError
from ddpm.likelihood.trajectory import optimal_timesteps, predicted_bpd, step_bits, step_costs
from ddpm.loading import load
from ddpm.sampling import Ancestral
from full_range import one_thread
from helpers import BRIEFLY, checkpoint_path, measured_model, tiny_images, tiny_model
from mistakes import refused
from typecheck import unchecked

SHAPE, T = (3, 6, 8), 200
FORMAT = ImageFormat(*SHAPE)
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
PLACES = Rotation(COLOURS, *SHAPE[1:])


def diffusion(**options):
    options = {"clip_sample": False, **options}
    return GaussianDiffusion(make_schedule(timesteps=T, beta_end=0.08), "sample", **options)


def power():
    """[c, h, w], variances of the coordinates of pictures: smooth, and more grey than coloured."""
    radius = np.hypot(*np.meshgrid(np.arange(6), np.arange(8), indexing="ij"))
    return 0.3 * np.array([1, 0.2, 0.05])[:, None, None] / (0.4 + radius) ** 2


def pictures(n, seed, variances=None):
    """Normal pictures whose coordinates have these variances, as grey levels."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, *SHAPE, generator=generator)
    variances = power() if variances is None else variances
    return FORMAT.from_unit(PLACES.unrotate(z * torch.from_numpy(np.sqrt(variances)).float()))


def wiener(chain, variances=None):
    """E[x_0 | x_t] of them."""
    s = torch.from_numpy(power() if variances is None else variances).float()
    abar = torch.from_numpy(chain.schedule.alphas_cumprod.copy()).float()

    def denoise(x, t):
        a = abar[t].reshape(-1, 1, 1, 1)
        return PLACES.unrotate(a.sqrt() * s / (a * s + 1 - a) * PLACES.rotate(x))

    return denoise


def known_error(chain, t, variances=None):
    """[c, h, w], the mean squared error of that in each coordinate."""
    s = power() if variances is None else variances
    a = chain.schedule.alphas_cumprod[t]
    return s * (1 - a) / (a * s + 1 - a)


def in_pixels(error):
    """[c, h, w], the diagonal of U diag(error) U^T."""
    size = error.size
    u = PLACES.unrotate(torch.eye(size).reshape(size, *SHAPE)).reshape(size, size).double()
    return ((u**2).T @ torch.from_numpy(error.reshape(-1))).numpy().reshape(SHAPE)


@pytest.fixture(scope="module")
def known():
    """The chain, its best network, and what was measured of it."""
    chain = diffusion()
    denoise = wiener(chain)
    with one_thread():
        return chain, denoise, measure_denoising_error(chain, denoise, pictures(600, 0), FORMAT)


# -- measuring -----------------------------------------------------------------------------------


def test_the_colours_are_found_and_the_errors_are_the_known_ones(known):
    chain, _, error = known
    spectral = error.spectral
    assert np.abs(spectral.colours @ COLOURS.T) == pytest.approx(np.eye(3), abs=0.05)
    assert spectral.timesteps.tolist() == error.timesteps.tolist()
    assert spectral.xstart_mse.dtype == np.float32
    for t in (0, 5, 30, 100, T - 1):
        ratio = spectral.at(np.array([t]))[0] / known_error(chain, t)
        # 144 mean squares over 600 pictures: a relative standard error of sqrt(2 / 600).
        assert np.abs(ratio - 1).max() < 5 * math.sqrt(2 / 600)
        total = spectral.at(np.array([t])).mean()
        assert total == pytest.approx(error.at(np.array([t])).mean(), rel=0.01)


def test_a_coordinate_that_never_erred_keeps_a_share_of_its_bands_error():
    """And not of the mean of all: coarse ones err a hundred times more than fine ones."""
    chain = diffusion()
    variances = power()
    variances[2, 5, 7] = 1e-9
    images = pictures(9, 1, variances)
    x = FORMAT.to_unit(images)
    error = measure_denoising_error(chain, lambda x, t: torch.zeros_like(x), images, FORMAT)
    y = PLACES.rotate(x).double().square().mean(dim=0).numpy()
    turned = error.spectral.rotation.rotate(x).double().square().mean(dim=0).numpy()
    bands = frequency_bands(6, 8)
    for band in np.unique(bands):
        inside = turned[:, bands == band]
        expected = (9 * inside + inside.mean(axis=1, keepdims=True)) / 10
        found = error.spectral.xstart_mse[0][:, bands == band]
        assert found == pytest.approx(expected, rel=1e-4)
    assert y.sum() == pytest.approx(turned.sum(), rel=1e-5)


def test_the_network_is_called_no_more_often():
    model, calls = tiny_model(), []
    denoiser = model.denoiser()

    def counted(x, t):
        calls.append(len(x))
        return denoiser(x, t)

    images = tiny_images(10).images
    measure_denoising_error(model.diffusion, counted, images, model.format, timesteps=5)
    assert calls == [10] * 5


@pytest.mark.slow
def test_the_calibrated_error_is_that_of_the_corrected_prediction():
    chain = diffusion()
    best = wiener(chain)
    bands = torch.from_numpy(frequency_bands(6, 8))
    factors = torch.tensor([2.0, 1.5, 0.6, 1.0, 3.0])[bands]

    def spoilt(x, t):
        return PLACES.unrotate(factors * PLACES.rotate(best(x, t)))

    error = measure_denoising_error(chain, spoilt, pictures(600, 0), FORMAT)
    corrected = chain.with_correction(error.calibration)
    found = measure_denoising_error(corrected, spoilt, pictures(600, 7), FORMAT)
    promised, there = error.calibrated.spectral, found.spectral
    assert np.abs(error.spectral.xstart_mse / promised.xstart_mse).max() > 1.5
    for ours, theirs in zip(promised.xstart_mse, there.xstart_mse, strict=True):
        own, measured = (
            np.array([[c[bands == band].sum() for band in range(5)] for c in table])
            for table in (ours, theirs)
        )
        # A band of one coordinate, over twice 600 pictures: 5 times sqrt(2 / 600 + 2 / 600).
        assert own == pytest.approx(measured, rel=0.4)
        assert own[:, 1:].sum() == pytest.approx(measured[:, 1:].sum(), rel=0.1)
    assert (promised.kept == 1).all()
    plan = Plan(6, "optimal", "spectral", calibrated=True)
    bits, others = {}, pictures(100, 8)
    for calibrated, table in ((False, error), (True, error.calibrated)):
        chosen = replace(plan, calibrated=calibrated).chain(chain, error)
        bound = bits[calibrated] = evaluate_bound(chosen, spoilt, others, FORMAT)
        promised = predicted_bpd(chain.schedule, table, bound.timesteps, spectral=True)
        assert bound.terms.sum() == pytest.approx(promised, rel=0.03)
    assert bits[True].mean < bits[False].mean - 0.01


def test_several_processes_measure_what_one_does(monkeypatch):
    whole, parts = measured_model(channels=3).denoising_error, []
    for rank in (0, 1):
        monkeypatch.setattr("ddpm.runtime.parallel.is_mine", lambda i, rank=rank: i % 2 == rank)
        monkeypatch.setattr(
            "ddpm.runtime.parallel.all_reduce_sum", lambda *tables: parts.append(tables)
        )
        with pytest.raises(DdpmError):  # the rows of the other process are still empty
            measured_model(channels=3)
    sums = [sum(tables).numpy() for tables in zip(*parts[::2], strict=True)]
    for name, found in zip(("xstart_mse", "kept"), sums[2:], strict=True):
        assert np.array_equal(found, getattr(whole.spectral, name))


# -- keeping -------------------------------------------------------------------------------------


def before(model):
    """The same model as an earlier version measured it."""
    return replace(model, denoising_error=replace(model.denoising_error, spectral=None))


PLAN = Plan(4, "optimal", "spectral")


def test_a_model_keeps_it_in_its_file_bit_for_bit(tmp_path):
    model = measured_model(channels=3)
    model.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors", "cpu")
    ours, theirs = (m.denoising_error.spectral for m in (model, again))
    for name in ("timesteps", "colours", "xstart_mse", "kept"):
        assert getattr(theirs, name).dtype == getattr(ours, name).dtype
        assert np.array_equal(getattr(theirs, name), getattr(ours, name))
    images = tiny_images(4, channels=3).images
    bounds = [m.bound(images, plan=PLAN) for m in (model, again)]
    assert np.array_equal(bounds[0].total, bounds[1].total)
    assert torch.equal(model.sample(2, plan=PLAN), again.sample(2, plan=PLAN))


def test_an_older_file_loads_and_says_how_to_measure_it(tmp_path):
    model = measured_model()
    before(model).save(tmp_path / "m.safetensors")
    old = load(tmp_path / "m.safetensors", "cpu")
    assert old.denoising_error.spectral is None
    images = tiny_images(3).images
    assert np.array_equal(
        old.bound(images, plan=Plan(4)).total, model.bound(images, plan=Plan(4)).total
    )
    assert torch.equal(old.sample(2, steps=4), model.sample(2, steps=4))
    for refuse in (
        lambda: old.chain(PLAN),
        lambda: old.bound(images, plan=Plan(variance="spectral")),
        lambda: old.sample(1, plan=Plan(3, "even", "spectral")),
        lambda: predicted_bpd(old.diffusion.schedule, old.denoising_error, np.array([0, 19]), True),
    ):
        with pytest.raises(
            DdpmError, match=r"colour and frequency, which has not .*`ddpm measure RUN"
        ):
            refuse()
    with pytest.raises(DdpmError, match=r"`ddpm measure RUN`"):
        tiny_model().chain(PLAN)


def test_the_models_that_come_along_load_as_before():
    model = load("cifar10-small", "cpu")
    assert model.denoising_error.calibration is not None
    assert model.chain(Plan(5)).variance_type == "analytic"
    assert model.chain(Plan(5, variance="spectral")).rotation is not None


def test_archives_have_the_variance_that_their_model_chose():
    model = measured_model()
    for spectral in (False, True):
        model.coding = replace(model.coding, spectral=spectral)
        chain = model.for_codec().chain((3, 9, 19))
        assert (chain.rotation is not None) == spectral


def test_a_file_with_a_part_of_it_is_refused():
    tensors = measured_model().denoising_error.tensors()
    del tensors["denoising_error.spectral.kept"]
    with pytest.raises(KeyError, match="kept"):
        DenoisingError.from_tensors(tensors)


@pytest.mark.parametrize(
    "broken",
    [
        lambda s: {"timesteps": s.timesteps[::-1].copy()},
        lambda s: {"timesteps": s.timesteps[1:]},
        lambda s: {"colours": s.colours[:2, :2]},
        lambda s: {"kept": s.kept[:, :, 1:]},
        lambda s: {"kept": -s.kept},
        lambda s: {"xstart_mse": 0 * s.xstart_mse},
        lambda s: {"xstart_mse": s.xstart_mse * np.float32(np.inf)},
        lambda s: {"xstart_mse": s.xstart_mse[:, :1]},
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(broken):
    spectral = measured_model(n=4, channels=3).denoising_error.spectral
    with unchecked(), pytest.raises(DdpmError, match="one positive entry for each coordinate"):
        replace(spectral, **broken(spectral))


def test_an_error_of_other_images_is_refused():
    grey, colour = (measured_model(n=4, channels=c).denoising_error for c in (1, 3))
    with pytest.raises(DdpmError, match="equal images"):
        replace(grey, spectral=colour.spectral)
    with unchecked(), pytest.raises(DdpmError, match="orthonormal"):
        replace(colour.spectral, colours=2 * colour.spectral.colours)


# -- choosing ------------------------------------------------------------------------------------


def random_error(total, pixels=(1, 2, 2)):
    rng = np.random.default_rng(0)
    tables = np.sort(rng.uniform(1e-4, 1, (2, total, *pixels)), axis=1)
    kept = np.ones((total, pixels[0], int(frequency_bands(*pixels[1:]).max()) + 1))
    times = np.arange(total)
    spectral = SpectralError(times, np.eye(pixels[0]), 20 * tables[1], kept)
    return DenoisingError(
        times, tables[0], np.sort(rng.uniform(0.1, 5, total)), 100, spectral=spectral
    )


def test_the_optimal_trajectory_equals_brute_force():
    schedule, error = make_schedule(timesteps=9, beta_end=0.3), random_error(9)
    differ = 0
    for k in range(1, 10):
        candidates = [np.array([*middle, 8]) for middle in itertools.combinations(range(8), k - 1)]
        best = min(predicted_bpd(schedule, error, steps, True) for steps in candidates)
        found = Plan(k, "optimal", "spectral").timesteps(GaussianDiffusion(schedule), error)
        assert predicted_bpd(schedule, error, found, True) == pytest.approx(best)
        differ += found.tolist() != optimal_timesteps(schedule, error, k).tolist()
    assert differ > 0  # in pixels other timesteps are best


def test_a_step_costs_the_kl_of_the_posterior_and_the_best_reverse_step():
    schedule, error = make_schedule(timesteps=50), random_error(50)
    costs = step_costs(schedule, error.spectral)
    for t, s in ((1, 0), (17, 3), (49, 30)):
        chain = schedule.respace([s, t])
        variance, coef1 = chain.posterior_variance[1], chain.posterior_mean_coef1[1]
        ratio = (variance + coef1**2 * error.spectral.xstart_mse[t]) / variance
        # Two of the four coordinates may be so near to one another that they are priced as one.
        assert costs[t, s] == pytest.approx(0.5 * np.log2(ratio).mean(), rel=1e-4)
    assert np.isinf(costs[3, 3:]).all()


def test_coordinates_priced_in_groups_cost_what_they_cost_one_by_one():
    """Errors over five powers of ten, of which few are large, as those of frequencies are."""
    schedule, pixels = make_schedule(timesteps=30), (1, 40, 40)
    radius = np.hypot(*np.meshgrid(np.arange(40), np.arange(40), indexing="ij"))
    spread = 20 / (1 + radius) ** 3 * np.linspace(0.001, 1, 30)[:, None, None]
    kept = np.ones((30, 1, int(frequency_bands(40, 40).max()) + 1))
    error = SpectralError(np.arange(30), np.eye(1), spread.reshape(30, *pixels), kept)
    costs = step_costs(schedule, error)
    for t, s in ((29, 0), (29, 20), (10, 9), (1, 0)):
        gain = schedule.snr[s] - schedule.snr[t]
        exact = step_bits(gain, spread[t]).mean()
        assert costs[t, s] == pytest.approx(exact, rel=2e-3)
    flat = SpectralError(np.arange(30), np.eye(1), np.ones((30, *pixels)), kept)
    assert step_costs(schedule, flat)[29, 3] == pytest.approx(
        step_bits(schedule.snr[3] - schedule.snr[29], np.ones(1))[0]
    )


# -- bits ----------------------------------------------------------------------------------------


def closed_form(chain, timesteps, spectral, variances=None):
    """Bits/dim of the path of a trajectory, by what is known of the pictures."""
    bits, snr = 0.0, chain.schedule.snr
    for s, t in itertools.pairwise(timesteps):
        error = known_error(chain, t, variances)
        bits += step_bits(snr[s] - snr[t], error if spectral else in_pixels(error)).mean()
    return bits


@pytest.mark.parametrize("steps", [2, 4, 12])
def test_correlated_pictures_cost_less_by_what_the_closed_form_says(known, steps):
    chain, denoise, error = known
    held_out, paths = pictures(200, 3), {}
    times = optimal_timesteps(chain.schedule, error, steps, spectral=True)
    for variance in ("analytic", "spectral"):
        plan = Plan(trajectory=tuple(times.tolist()), variance=variance)
        bound = evaluate_bound(plan.chain(chain, error), denoise, held_out, FORMAT)
        path, spectral = bound.terms[1:].sum(), variance == "spectral"
        assert path == pytest.approx(closed_form(chain, times, spectral), rel=0.02)
        predicted = predicted_bpd(chain.schedule, error, times, spectral)
        assert bound.terms.sum() == pytest.approx(predicted, rel=0.02)
        paths[variance] = path
    saved = closed_form(chain, times, False) - closed_form(chain, times, True)
    assert paths["analytic"] - paths["spectral"] == pytest.approx(saved, rel=0.05)
    assert saved > 0.1


def smooth_pixels(n, seed):
    """A stationary process that no DCT makes quite independent: AR(1) in both directions."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (
        np.linalg.cholesky(0.9 ** np.abs(np.subtract.outer(np.arange(k), np.arange(k))))
        for k in SHAPE[1:]
    )
    mixed = 0.25 * np.linalg.cholesky(0.7 + 0.3 * np.eye(3))
    z = torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)
    maker = [torch.from_numpy(m) for m in (mixed, rows, columns)]
    x = torch.einsum("dc,hk,wl,bckl->bdhw", *maker, z)
    cov = np.kron(mixed @ mixed.T, np.kron(rows @ rows.T, columns @ columns.T))
    return FORMAT.from_unit(x.float()), cov


def white_pixels(n, seed):
    """Independent pixels, of which no rotation knows more."""
    return pictures(n, seed, np.full(SHAPE, 0.04)), 0.04 * np.eye(math.prod(SHAPE))


@pytest.mark.parametrize("make", [smooth_pixels, white_pixels])
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_on_held_out_images_of_a_stationary_process_it_never_costs_more(make, steps):
    chain = diffusion()
    images, cov = make(400, 0)
    abar = chain.schedule.alphas_cumprod
    values, vectors = np.linalg.eigh(cov)
    gains = np.sqrt(abar)[:, None] * values / (abar[:, None] * values + 1 - abar[:, None])
    gains, vectors = torch.from_numpy(gains).float(), torch.from_numpy(vectors).float()

    def denoise(x, t):
        return (gains[t] * (x.flatten(1) @ vectors) @ vectors.T).reshape(x.shape)

    error = measure_denoising_error(chain, denoise, images, FORMAT, timesteps=40)
    held_out, found = make(150, 5)[0], {}
    for variance in ("analytic", "spectral"):
        plan = Plan(steps, "optimal", variance).chain(chain, error)
        found[variance] = evaluate_bound(plan, denoise, held_out, FORMAT).total
    more = found["spectral"] - found["analytic"]
    assert more.mean() < 3 * more.std(ddof=1) / math.sqrt(len(more)) + 1e-9
    if make is smooth_pixels and steps > 1:
        assert more.mean() < -0.05
    if steps == 1:  # the exact pixels alone, in pixels for both
        assert np.array_equal(found["spectral"], found["analytic"])


# -- drawing, and the command line ---------------------------------------------------------------


class Plain:
    """Somebody's own sampler, that multiplies the noise of pixels by the root of the variance."""

    def __call__(self, diffusion, denoiser, x, noise, *, start=None, callback=None):
        return Ancestral()(diffusion, denoiser, x, noise, start=start, callback=callback)


class Knowing(Plain):
    knows_rotation = True


def test_images_are_drawn_with_it_and_samplers_that_do_not_know_it_are_refused():
    model = measured_model()
    drawn = model.sample(4, plan=PLAN)
    times = tuple(model.chain(PLAN).schedule.timesteps.tolist())
    analytic = Plan(trajectory=times, variance="analytic")
    assert not torch.equal(drawn, model.sample(4, plan=analytic))
    assert torch.equal(drawn, model.sample(4, sampler=Knowing(), plan=PLAN))
    with pytest.raises(DdpmError, match=r"^Plain takes .* 'spectral' is in other coordinates"):
        model.sample(4, sampler=Plain(), plan=PLAN)
    assert len(model.sample(1, sampler=Plain(), plan=Plan(3, variance="analytic"))) == 1
    for sampler in ("ddim", "langevin", "heun"):
        with pytest.raises(DdpmError, match="no effect"):
            model.sample(1, sampler=sampler, plan=PLAN)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5] = True
    images = tiny_images(2).images
    filled = ddpm.latents.inpaint(model, images, mask, plan=PLAN, repeats=2, jump=1)
    assert torch.equal(filled[..., ~mask], images[..., ~mask])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with the run of a model of digits that was measured before there was it."""
    monkeypatch.chdir(tmp_path)
    model = measured_model()
    model.config = replace(model.config, data=replace(model.config.data, path="digits"))
    model.history = replace(model.history, data="digits (train)")
    before(model).save(checkpoint_path("run", 3))
    with one_thread():
        yield tmp_path


@pytest.mark.slow
def test_measure_adds_it_to_a_run_and_commands_use_it(place, capsys):
    ask = ["run", "--steps", "4", "--variance", "spectral"]
    commands = {
        "evaluate": ["evaluate", *ask, "--bpd", "--images", "4"],
        "sample": ["sample", *ask, "-n", "2", "--out", "s.png"],
    }
    for command in commands.values():
        refused(command, capsys, "`ddpm measure RUN`")
    old = load("run", "cpu").denoising_error
    assert main(["measure", "run", *BRIEFLY, "--images", "750"]) == 0
    assert "before there was an error in colour and frequency; what" in capsys.readouterr().out
    new = load("run", "cpu").denoising_error
    assert new.spectral is not None
    assert np.array_equal(new.xstart_mse, old.xstart_mse)
    assert np.array_equal(new.calibration.slopes, old.calibration.slopes)
    for command in commands.values():
        assert main(command) == 0
    said = capsys.readouterr().out
    assert "variance spectral" in said
    assert "predicted" in said
    assert main(["info", "run"]) == 0
    assert "spectral error" in capsys.readouterr().out
