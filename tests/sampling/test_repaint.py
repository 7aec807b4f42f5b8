"""RePaint: its levels against the algorithm, its result against a known conditional."""

import itertools
import math

import pytest
import torch

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood.trajectory import even_timesteps
from ddpm.sampling import Ancestral
from ddpm.sampling.repaint import calls, levels, repaint
from typecheck import unchecked


def algorithm_1(steps, repeats):
    """The two loops of Lugmayr et al., Algorithm 1, which knows jumps of one level only."""
    visited = [steps]
    for t in range(steps, 0, -1):
        for u in range(1, repeats + 1):
            visited.append(t - 1)
            if u < repeats and t > 1:
                visited.append(t)
            if t == 1:  # the loop would draw the same x_0 again
                break
    return visited


def stretches(steps, repeats, jump):
    """The same with longer jumps: the way down, cut into stretches that are walked repeatedly."""
    bottoms = [b for b in range(1, steps, jump) if b + jump <= steps]
    top = bottoms[-1] + jump if bottoms else steps
    visited = list(range(steps, top - 1, -1))
    for bottom in reversed(bottoms):
        for _ in range(repeats):
            if visited[-1] != bottom + jump:
                visited.append(bottom + jump)
            visited += range(bottom + jump - 1, bottom - 1, -1)
    return visited + list(range(visited[-1] - 1, -1, -1))


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 11, 12])
@pytest.mark.parametrize("repeats", [1, 2, 4])
def test_the_levels_are_those_of_the_algorithm(steps, repeats):
    assert levels(steps, repeats, 1) == algorithm_1(steps, repeats)
    for jump in (1, 2, 3, 9, 10, 11, 20):
        visited = levels(steps, repeats, jump)
        assert visited == stretches(steps, repeats, jump)
        down = sum(b < a for a, b in itertools.pairwise(visited))
        assert calls(steps, repeats, jump) == down
        assert {b - a for a, b in itertools.pairwise(visited)} <= {-1, jump}
        assert visited[-1] == 0
        assert visited.count(0) == 1
        assert max(visited) == steps


def test_the_papers_schedule():
    """T = 250, r = 10, j = 10: 24 stretches, each walked nine times more."""
    assert calls(250, 10, 10) == 250 + 24 * 9 * 10
    assert levels(5, 2, 2) == [5, 4, 3, 5, 4, 3, 2, 1, 3, 2, 1, 0]


CORRELATION = 0.8
SPREAD = 0.5  # standard deviation of a pixel


def pair_denoiser(x, timesteps):
    """The optimal network for images of two pixels with that correlation."""
    abar = float(make_schedule().alphas_cumprod[int(timesteps[0])])
    covariance = SPREAD**2 * torch.tensor([[1, CORRELATION], [CORRELATION, 1]])
    marginal = abar * covariance + (1 - abar) * torch.eye(2)
    x_start = x.flatten(1) @ (math.sqrt(abar) * covariance @ torch.linalg.inv(marginal)).T
    return (x - math.sqrt(abar) * x_start.reshape(x.shape)) / math.sqrt(1 - abar)


def filled_pairs(n, repeats):
    """The second of two pixels of which the first is 0.6."""
    diffusion = GaussianDiffusion(make_schedule(), "epsilon", "fixed_small", clip_sample=False)
    generator = torch.Generator().manual_seed(0)
    x = repaint(
        diffusion.respace(even_timesteps(1000, 100)),
        pair_denoiser,
        torch.tensor([0.6, 99.0]).expand(n, 1, 1, 2),  # nothing may depend on the second
        torch.tensor([False, True]).reshape(1, 1, 1, 2),
        lambda i: torch.randn(n, 1, 1, 2, generator=generator),
        repeats=repeats,
        jump=5,
    )
    assert torch.equal(x[..., 0], torch.full((n, 1, 1), 0.6))
    return x[..., 1].flatten()


def test_what_is_filled_in_follows_from_what_is_known_the_better_the_more_it_is_repeated():
    mean, deviation = CORRELATION * 0.6, SPREAD * math.sqrt(1 - CORRELATION**2)
    once, often = filled_pairs(2000, 1), filled_pairs(2000, 10)
    assert abs(often.mean() - mean) < 0.05
    assert abs(often.std() - deviation) < 0.03
    assert once.mean() < mean - 0.1  # it knows too little of the first


def recorded(chain, repeats, jump, known=1.0):
    """x at every call of the network, with the time index it is asked at, and the result."""
    seen = []

    def denoiser(x, t):
        seen.append((int(t[0]), x.clone()))
        return torch.zeros_like(x)

    n = 20_000
    generator = torch.Generator().manual_seed(1)
    fill = torch.tensor([False, True]).reshape(1, 1, 1, 2)
    x = repaint(
        chain,
        denoiser,
        torch.full((n, 1, 1, 2), known),
        fill,
        lambda i: torch.randn(n, 1, 1, 2, generator=generator),
        repeats=repeats,
        jump=jump,
    )
    return seen, x


@pytest.mark.parametrize("timesteps", [[0, 250, 500, 750, 999], [3, 40, 999]])
def test_the_known_part_lies_at_the_level_at_which_the_network_is_asked(timesteps):
    """Neighbouring levels are far apart here; one off would be seen at once."""
    chain = GaussianDiffusion(make_schedule(), clip_sample=False).respace(timesteps)
    seen, x = recorded(chain, repeats=2, jump=1)
    wanted = [
        timesteps[a - 1] for a, b in itertools.pairwise(levels(len(timesteps), 2, 1)) if b < a
    ]
    assert [t for t, _ in seen] == wanted
    for t, at in seen[1:]:  # the first is nothing but noise
        abar = float(make_schedule().alphas_cumprod[t])
        part = at[..., 0]
        assert abs(part.mean() - math.sqrt(abar)) < 0.03
        assert abs(part.std() - math.sqrt(1 - abar)) < 0.03
    assert (x[..., 0] == 1).all()


def test_the_way_back_up_is_that_of_the_forward_process():
    """The unknown part before and after a jump of several levels."""
    chain = GaussianDiffusion(make_schedule(), clip_sample=False).respace([0, 300, 500, 700, 999])
    seen, _ = recorded(chain, repeats=2, jump=3, known=0.0)
    assert [t for t, _ in seen] == [999, 700, 500, 300, 700, 500, 300, 0]
    abar = make_schedule().alphas_cumprod
    # Level 1 is reached from timestep 300, then level 4 (700) from it.
    before = _step_from(chain, seen[3][1])
    after, ratio = seen[4][1][..., 1], abar[700] / abar[0]
    slope = torch.cov(torch.stack([before.flatten(), after.flatten()]))[0, 1] / before.var()
    assert abs(float(slope) - math.sqrt(ratio)) < 0.05
    rest = after.flatten() - math.sqrt(ratio) * before.flatten()
    assert abs(float(rest.mean()) / math.sqrt(1 - ratio)) < 0.03
    assert 0.9 < float(rest.var()) / (1 - ratio) < 1.2  # and the noise of the step that is not seen


def _step_from(chain, x):
    """The mean of the step that leaves time index 1, for a network that sees no noise."""
    t = torch.ones(len(x), dtype=torch.long)
    return chain.p_mean_variance(lambda x, t: torch.zeros_like(x), x, t).mean[..., 1]


@pytest.mark.parametrize("prediction", ["epsilon", "previous_mean"])
@pytest.mark.parametrize("variance", ["fixed_large", "learned_range"])
def test_without_anything_known_and_without_repeats_it_is_algorithm_2(prediction, variance):
    chain = GaussianDiffusion(make_schedule(), prediction, variance).respace([5, 200, 500, 999])

    def denoiser(x, t):
        output = torch.tanh(x) * 0.3
        return torch.cat([output, x.sin()], dim=1) if variance == "learned_range" else output

    def number(i):
        return torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(i))

    # The noise of the known part is drawn too, though nothing is known: one number a step.
    ancestral = {3: 1, 2: 3, 1: 5}
    wanted = Ancestral()(chain, denoiser, number(0), lambda i: number(ancestral[i]))
    everything = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    known = torch.zeros(2, 1, 4, 4)
    found = repaint(chain, denoiser, known, everything, number, repeats=1, jump=1)
    assert torch.equal(found, wanted)


def test_no_noise_is_used_twice():
    chain = GaussianDiffusion(make_schedule()).respace([5, 200, 500, 999])
    asked = []

    def noise(i):
        asked.append(i)
        return torch.zeros(1, 1, 2, 2)

    fill = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    repaint(chain, lambda x, t: x, torch.zeros(1, 1, 2, 2), fill, noise, repeats=3, jump=2)
    assert asked == list(range(len(asked)))


def test_wrong_use_gives_a_sentence():
    for repeats, jump, word in ((0, 1, "repeats"), (1, 0, "jump"), (1.5, 1, "repeats")):
        with unchecked(), pytest.raises(DdpmError, match=f"{word} must be"):
            levels(5, repeats, jump)
