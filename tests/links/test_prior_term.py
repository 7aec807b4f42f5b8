"""L_T: what `ddpm evaluate --bpd` says of it, what it bounds, and what a schedule that ends early
costs (docs/likelihood.md, examples/short_schedule.py)."""

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ddpm
from ddpm.cli import main
from ddpm.cli.evaluate import prior_words
from ddpm.diffusion.bound_terms import prior_bpd
from helpers import tiny_config, tiny_model

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import short_schedule


def digits(count=40):
    """Held-out digits, and the same in [-1, 1]."""
    source = ddpm.open_data("digits", "test", image_size=8, channels=1)
    images = source[torch.arange(count)]
    return images, source.format.to_unit(images)


def model_with(**diffusion):
    """A tiny one with another schedule."""
    config = replace(tiny_config(), diffusion=ddpm.DiffusionConfig(**diffusion))
    model = tiny_model()
    return ddpm.Ddpm(config, model.format, model.network)


@pytest.mark.parametrize(
    ("diffusion", "large"),
    [({"timesteps": 20, "beta_end": 0.2}, True), ({"timesteps": 20, "beta_end": 0.9}, False)],
)
def test_the_row_and_the_sentence_are_those_of_the_closed_form(diffusion, large, tmp_path, capsys):
    model = model_with(**diffusion)
    model.save(tmp_path / "model.safetensors")
    command = ["evaluate", tmp_path / "model.safetensors", "--bpd", "--images", "40"]
    assert main([*map(str, command), "--out", str(tmp_path / "e")]) == 0
    shown = capsys.readouterr().out
    abar = model.diffusion.schedule.alphas_cumprod[-1]
    square = float((digits()[1].double() ** 2).mean())
    expected = 0.5 * (abar * square - abar - math.log1p(-abar)) / math.log(2)
    (row,) = re.findall(r"prior L_T\D*([\d.e+-]+)", shown)
    assert float(row) == pytest.approx(expected, rel=0.05)  # two digits
    (told,) = re.findall(r"at most (\S+) bits of a whole image", shown)
    assert float(told) == pytest.approx(64 * expected, rel=0.05)
    assert ("ends before the image is noise" in shown) == large


def test_small_and_large_terms_are_told_apart_a_hundred_times_the_papers():
    assert "begin where no image leads" not in prior_words(0.9e-3, 64)
    assert "begin where no image leads" in prior_words(1.1e-3, 64)
    assert prior_words(7.4e-6, 3072).startswith("x_T tells at most 0.023 bits of a whole image")


def test_l_t_is_the_mutual_information_and_the_distance_of_all_x_t_from_the_prior():
    """For one pixel that is -1 or 1: I(x_0; x_T) + KL(q(x_T) || N(0, 1)), by quadrature."""
    x, width = np.linspace(-12, 12, 24_001, retstep=True)
    normal = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    for steps in (100, 300, 1000):
        schedule = ddpm.make_schedule(timesteps=steps)
        a = schedule.alphas_cumprod[-1]
        both = [
            np.exp(-((x - sign * math.sqrt(a)) ** 2) / (2 * (1 - a)))
            / math.sqrt(2 * math.pi * (1 - a))
            for sign in (-1, 1)
        ]
        mixed = sum(both) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            information = sum(np.nansum(p * np.log2(p / mixed)) * width / 2 for p in both)
            distance = np.nansum(mixed * np.log2(mixed / normal)) * width
        pixels = torch.tensor([-1.0, 1.0]).double().reshape(2, 1, 1, 1)
        found = float(prior_bpd(ddpm.GaussianDiffusion(schedule), pixels).mean())
        assert information + distance == pytest.approx(found, rel=1e-4)
        assert information > 0
        assert distance > -1e-12


def test_a_chain_that_is_cut_off_has_the_bound_of_its_own_schedule():
    model, (images, x_start) = tiny_model(timesteps=12), digits(6)
    images = images % 17
    prior = short_schedule.prior_terms(model.diffusion, x_start)
    whole = model.bound(images)
    bounds = short_schedule.cut_bounds(whole, prior)
    assert bounds[-1] == pytest.approx(whole.mean, rel=1e-5)
    assert (np.diff(prior) < 0).all()
    for end in (1, 5, 11):
        betas = model.diffusion.schedule.betas[:end]
        short = replace(
            model, diffusion=replace(model.diffusion, schedule=ddpm.schedule_from_betas(betas))
        )
        found = short.bound(images)
        assert prior[end - 1] == pytest.approx(found.prior.mean(), rel=1e-3)
        if end > 1:  # a chain of one step has another variance there
            assert bounds[end - 1] == pytest.approx(found.mean, rel=1e-4)


def test_the_samples_of_a_cut_chain_begin_at_its_end():
    """A network that knows the image is x_t / sqrt(abar_t) gives away where it was asked first."""
    model, asked = tiny_model(timesteps=12), []

    def denoiser(x, t):
        asked.append(int(t[0]))
        return torch.zeros_like(x)

    model.denoiser = lambda precision=None: denoiser
    drawn = short_schedule.draw(model, 5, count=3)
    assert drawn.shape == (3, 1, 8, 8)
    assert asked == [4, 3, 2, 1, 0]
