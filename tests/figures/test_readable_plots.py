"""Plots say what their axes are, in units, and their curves can be told apart by everybody."""

import itertools

import matplotlib
import matplotlib.figure
import numpy as np
import pytest

from ddpm.cli import main
from ddpm.figures.bound_plots import steps_plot
from ddpm.figures.curves import run_curves
from ddpm.figures.style import CURVES, STYLE
from full_range import one_thread
from helpers import tiny_model

# What people without the red, green or blue cones see, of linear RGB (Machado et al. 2009).
BLIND = {
    name: np.array(numbers).reshape(3, 3)
    for name, numbers in {
        "red": (
            *(0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216),
            *(-0.003882, -0.048116, 1.051998),
        ),
        "green": (
            *(0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413),
            *(-0.011820, 0.042940, 0.968881),
        ),
        "blue": (
            *(1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602),
            *(0.004733, 0.691367, 0.303900),
        ),
        "none": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    }.items()
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
SEEN = 10  # distance in CIELAB; about 2 is the least that is seen side by side


def lab(colour, blindness):
    """CIELAB of a colour as somebody sees it."""
    value = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(BLIND[blindness] @ linear, 0, 1) / XYZ.sum(axis=1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colours, blindness):
    """The distance of the two that are most alike."""
    seen = [lab(colour, blindness) for colour in colours]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("blindness", BLIND)
def test_the_first_five_curves_are_told_apart_by_everybody(blindness):
    assert nearest(CURVES[:5], blindness) > SEEN
    assert all(np.linalg.norm(lab(c, blindness) - lab("white", blindness)) > 30 for c in CURVES[:5])


def test_matplotlibs_own_colours_would_fail():
    assert min(nearest([f"C{i}" for i in range(5)], blindness) for blindness in BLIND) < SEEN


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved."""
    saved, save = [], matplotlib.figure.Figure.savefig

    def keep(figure, *args, **kwargs):
        saved.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return saved


def readable(figure):
    """Words at both axes and colours of ours."""
    for axes in figure.axes:
        assert axes.get_ylabel()
        last = axes.get_subplotspec() is None or axes.get_subplotspec().is_last_row()
        assert axes.get_xlabel() or not last
        for label in (axes.xaxis.label, axes.yaxis.label):
            assert label.get_fontsize() >= 11
        ours = {*map(matplotlib.colors.to_hex, CURVES)} | {"#808080"}
        assert {matplotlib.colors.to_hex(line.get_color()) for line in axes.lines} <= ours


NAMES = {
    "rate-distortion": ["--n", "2"],
    "schedule": [],
    "denoising": ["--columns", "3"],
    "progressive-quality": ["--n", "4", "--columns", "2"],
    "probe": ["--n", "60", "--t", "3"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_figures_of_a_model_are_readable(figures, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    tiny_model().save("m.safetensors")
    with one_thread():
        assert main(["figure", name, "m.safetensors", *NAMES[name]]) == 0
    assert figures
    with matplotlib.rc_context(STYLE):
        for figure in figures:
            readable(figure)


def test_curves_of_a_run_and_of_steps_are_readable(figures):
    stats = [
        {"step": i, "loss": 1 / i, "lr": 1e-3, "images_per_second": 9.0, "bits_per_dim": 3.0}
        for i in range(1, 50)
    ]
    run_curves(stats)
    steps_plot({"even": {5: 3.0, 10: 2.0}}, {"histogram": 2.5})
    assert len(figures) == 2
    with matplotlib.rc_context(STYLE):
        for figure in figures:
            readable(figure)


def test_other_programs_keep_their_colours():
    before = matplotlib.rcParams["axes.prop_cycle"]
    steps_plot({"even": {5: 3.0, 10: 2.0}})
    assert matplotlib.rcParams["axes.prop_cycle"] == before
