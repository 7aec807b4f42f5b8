"""docs/autoregressive.md and its examples: Eq. 5 and 16 by enumeration, and the order of bits."""

import contextlib
import io
import itertools
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm
from ddpm.diffusion.rotation import CosineTransform, cosines

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import autoregressive
import bit_order
from autoregressive import (
    Autoregressive,
    Chain,
    eq5,
    eq16,
    masking,
    mean_eq5,
    replacing,
    small_digits,
)

PAGES = Path(__file__).parents[2] / "docs"
PRINTED = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", flags=re.S)
ALL = np.array(list(itertools.product(range(3), repeat=4)))
ORDERS = [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)]


@pytest.mark.parametrize(("name", "count"), [("autoregressive.md", 6), ("likelihood.md", 1)])
def test_every_block_of_code_prints_what_stands_below_it(name, count):
    page, space = (PAGES / name).read_text(encoding="utf-8"), {}
    blocks = PRINTED.findall(page)
    assert len(blocks) == count == page.count("```text")
    with np.printoptions():  # the page sets its own
        for code, expected in blocks:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(code, space)
            assert out.getvalue() == expected, code


# -- masks ----------------------------------------------------------------------------------------


def counted(image, order, images):
    """-log2 p of an image by the chain rule: counts in plain loops, one added to each."""
    bits = 0.0
    for place in reversed(range(4)):
        seen = order[place + 1 :]
        fitting = [x for x in images.tolist() if all(x[i] == image[i] for i in seen)]
        hits = sum(x[order[place]] == image[order[place]] for x in fitting)
        bits -= math.log2((hits + 1) / (len(fitting) + 3))
    return bits


@pytest.mark.parametrize("order", ORDERS)
def test_the_bound_of_every_possible_image_is_the_models_negative_log_likelihood(order):
    """Also of those that no digit looks like, and term by term."""
    images = small_digits()
    model = Autoregressive(order, images)
    chain = masking(model)
    for image in ALL:
        terms = eq5(chain, image)
        assert terms.sum() == pytest.approx(counted(image, order, images), abs=1e-10)
        assert terms[:4][::-1] == pytest.approx(model.bits(image), abs=1e-10)
        assert terms[4] == 0  # L_T
    own = chain.model_bits()[chain.states.max(axis=1) < 3]
    assert own == pytest.approx([model.bits(x).sum() for x in ALL], abs=1e-10)
    assert (2.0**-own).sum() == pytest.approx(1, abs=1e-12)


def test_another_order_is_another_model():
    image, images = small_digits("test")[0], small_digits()
    bounds = {eq5(masking(Autoregressive(order, images)), image).sum() for order in ORDERS}
    assert len({round(bound, 6) for bound in bounds}) == 3


def test_every_step_hides_one_pixel_and_its_reverse_copies_the_others():
    order = (2, 0, 3, 1)
    chain = masking(Autoregressive(order, small_digits()))
    states = chain.states
    for t, (forward, reverse) in enumerate(zip(chain.forward, chain.reverse, strict=True)):
        rows, columns = np.nonzero(forward)
        assert (states[columns, order[t]] == 3).all()
        others = [i for i in range(4) if i != order[t]]
        assert (states[rows][:, others] == states[columns][:, others]).all()
        rows, columns = np.nonzero(reverse)
        assert (states[rows][:, others] == states[columns][:, others]).all()
        assert reverse[rows].sum(axis=1) == pytest.approx(1)


# -- Eq. 16 ---------------------------------------------------------------------------------------


def some_chain(seed, steps=3, size=5):
    """A chain, a model and a law that have nothing to do with one another."""
    draw = np.random.default_rng(seed).dirichlet
    rows = np.ones(size)
    forward, reverse = draw(rows, (steps, size)), draw(rows, (steps, size))
    states = np.arange(size)[:, None]
    return Chain(states, list(forward), list(reverse), draw(rows)), draw(rows)


def over_paths(chain, law):
    """E log2 q(x_1..T | x_0) / p(x_0..T), over every single path: the bound as defined (Eq. 3)."""
    size, total = len(law), 0.0
    for path in itertools.product(range(size), repeat=len(chain.forward) + 1):
        forwards, backwards = 1.0, chain.prior[path[-1]]
        for t, (forward, reverse) in enumerate(zip(chain.forward, chain.reverse, strict=True)):
            forwards *= forward[path[t], path[t + 1]]
            backwards *= reverse[path[t + 1], path[t]]
        total += law[path[0]] * forwards * math.log2(forwards / backwards)
    return total


@pytest.mark.parametrize("seed", range(5))
def test_eq_16_eq_5_and_the_sum_over_paths_agree_for_any_chain(seed):
    chain, law = some_chain(seed)
    expected = over_paths(chain, law)
    assert mean_eq5(chain, law).sum() == pytest.approx(expected, abs=1e-10)
    assert eq16(chain, law).sum() == pytest.approx(expected, abs=1e-10)
    assert expected > law @ chain.model_bits() + 1e-3  # other paths lead there, too
    assert eq16(chain, law)[-1] == pytest.approx(-(law * np.log2(law)).sum(), abs=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_eq_16_is_the_mean_of_eq_5_for_masks(order):
    chain = masking(Autoregressive(order, small_digits()))
    law = chain.law(*small_digits("test"))
    assert eq16(chain, law).sum() == pytest.approx(mean_eq5(chain, law).sum(), abs=1e-10)
    assert (eq16(chain, law) > -1e-12).all()


def test_with_the_true_reverse_nothing_is_lost_but_the_entropy():
    chain, law = some_chain(0)
    at = chain.marginals(law)
    chain.reverse = [
        (before[:, None] * forward / after).T
        for before, after, forward in zip(at[:-1], at[1:], chain.forward, strict=True)
    ]
    chain.prior = at[-1]
    assert eq16(chain, law)[:-1] == pytest.approx(0, abs=1e-12)
    assert mean_eq5(chain, law).sum() == pytest.approx(eq16(chain, law)[-1], abs=1e-10)


def test_what_the_model_holds_for_impossible_costs_infinitely_much():
    chain, law = some_chain(0)
    chain.reverse[0][0] = np.eye(5)[0]
    assert mean_eq5(chain, law).sum() == math.inf


def test_noise_with_more_steps_loses_less_of_what_pixels_know_of_one_another():
    images = small_digits()
    bounds = []
    for steps in (1, 4, 16):
        chain = replacing(images, steps)
        law = chain.law(*images)
        assert eq16(chain, law).sum() == pytest.approx(mean_eq5(chain, law).sum(), abs=1e-10)
        assert all(
            step.sum(axis=1) == pytest.approx(1) for step in (*chain.forward, *chain.reverse)
        )
        bounds.append(mean_eq5(chain, law).sum())
    alone = sum(
        -(p * np.log2(p)).sum()
        for p in (np.bincount(images[:, i], minlength=3) / len(images) for i in range(4))
    )
    assert bounds[0] == pytest.approx(alone, abs=0.01)  # all but a thousandth is replaced
    assert bounds[0] > bounds[1] > bounds[2] > eq16(chain, law)[-1]


@pytest.mark.slow
def test_the_example_prints_both_bounds(capsys):
    autoregressive.main()
    shown = capsys.readouterr().out
    for order in ("(0, 1, 2, 3)", "(2, 0, 3, 1)"):
        block = shown.split(f"hiding pixels {order}: ")[1].split("\n\n")[0]
        assert len({float(x) for x in re.findall(r"\d\.\d{10}", block)}) == 1


# -- the order of the bits ------------------------------------------------------------------------


def gaussian_model(spectrum):
    """The best denoiser of images whose frequencies are independent, of these variances [h, w]."""
    diffusion = ddpm.GaussianDiffusion(
        ddpm.make_schedule(timesteps=200, beta_end=0.1), clip_sample=False
    )
    abar = torch.from_numpy(diffusion.schedule.alphas_cumprod.copy()).float()
    basis = torch.from_numpy(cosines(len(spectrum))).float()
    variances = torch.from_numpy(spectrum).float()

    def denoise(x, t):
        a = abar[t].reshape(-1, 1, 1, 1)
        gain = a.sqrt() * variances / (a * variances + 1 - a)
        x_0 = basis.T @ (gain * (basis @ x @ basis.T)) @ basis
        return (x - a.sqrt() * x_0) / (1 - a).sqrt()

    def images(n):
        return basis.T @ (variances.sqrt() * torch.randn(n, 1, *spectrum.shape)) @ basis

    return diffusion, denoise, images


def spectrum_of(side=6):
    """Falling from the mean to fine detail, and not the same across as down."""
    down, across = np.mgrid[:side, :side]
    return 0.2 / (1 + down + 2 * across) ** 2


def test_the_transform_keeps_squares_and_finds_a_wave():
    x = torch.randn(3, 2, 5, 7)
    found = CosineTransform(*x.shape[-2:])(x)
    assert found.square().sum() == pytest.approx(float(x.square().sum()), rel=1e-5)
    wave = torch.cos(math.pi * 2 * (torch.arange(7) + 0.5) / 7).expand(1, 1, 5, 7)
    coefficients = CosineTransform(*wave.shape[-2:])(wave)[0, 0].abs()
    assert divmod(int(coefficients.argmax()), 7) == (0, 2)  # no change downwards, two half waves
    assert coefficients.square().sum() == pytest.approx(float(coefficients.max() ** 2))


def test_the_error_of_each_frequency_is_that_of_the_closed_form():
    variances = spectrum_of()
    diffusion, denoise, images = gaussian_model(variances)
    times, n = np.array([0, 20, 100, 199]), 1500
    error = bit_order.frequency_error(diffusion, denoise, images(n), times)
    snr = diffusion.schedule.snr[times][:, None, None]
    expected = variances / (1 + snr * variances)
    # A mean of n squares of a normal number is off by sqrt(2/n) of itself; 5 times that for 144.
    assert error.xstart_mse[:, 0] == pytest.approx(expected, rel=5 * math.sqrt(2 / n))


def test_the_bits_of_all_steps_are_the_mutual_information_and_coarse_ones_come_first():
    """Of Gaussian numbers I(x_0; x_t) is 1/2 log2(1 + snr v), to which the steps add up."""
    variances = spectrum_of()
    schedule = ddpm.make_schedule(timesteps=200, beta_end=0.1)
    snr = schedule.snr[:, None, None, None]
    error = ddpm.DenoisingError(
        np.arange(200), variances / (1 + snr * variances), np.zeros(200), 100
    )
    bits = bit_order.bits_of_steps(schedule, error)
    assert bits.shape == (199, 6, 6)
    told = 0.5 * np.log2(1 + schedule.snr[0] * variances)
    before = 0.5 * np.log2(1 + schedule.snr[-1] * variances)
    assert bits.sum(axis=0) == pytest.approx(told - before, rel=1e-9)
    found = bit_order.arrival(bits)
    order = np.argsort(variances.ravel())[::-1]
    assert (np.diff(found.ravel()[order]) >= -1e-12).all()
    assert found.ravel()[order[0]] < 0.3 < 0.5 < found.ravel()[order[-1]]
    means = bit_order.band_means(found)
    assert means[0] == found[0, 0]
    assert (np.diff(means) > 0).all()


def test_arrival_of_bits_that_come_one_pixel_after_another_is_row_by_row():
    bits = np.eye(12).reshape(12, 3, 4)
    assert bit_order.arrival(bits) == pytest.approx(bit_order.row_by_row(3, 4))
    together = np.ones((5, 3, 4))
    assert bit_order.arrival(together) == pytest.approx(0.5)


def test_the_picture_is_drawn_of_the_shipped_model_whatever_it_predicts(tmp_path, capsys):
    """Of one that knows classes, with its null class."""
    (tmp_path / "set" / "test").mkdir(parents=True)
    for i, pixels in enumerate(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)):
        Image.fromarray(pixels.numpy()).save(tmp_path / "set" / "test" / f"{i}.png")
    arguments = ["cifar10-small", str(tmp_path / "set"), "--count", "2", "--times", "3"]
    bit_order.main([*arguments, "--out", str(tmp_path / "x.png")])
    shown = capsys.readouterr().out
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    rate = float(re.search(r"([\d.]+) bits/dim before the last step", shown)[1])
    model = ddpm.load("cifar10-small")
    bits = bit_order.bits_of_steps(model.diffusion.schedule, model.denoising_error)
    assert rate == pytest.approx(bits.sum() / 3072, abs=1e-3)
    assert 1 < rate < 3
