"""The learned score is no gradient by construction: curl, and work along two ways."""

import sys
from pathlib import Path

import pytest
import torch

import ddpm

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from points import (
    Mlp,
    curl_share,
    jacobian,
    noised,
    relative_error,
    ring,
    score,
    train,
    two_ways,
    work,
)

TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()


def pairs(n=20):
    """Points to begin and to end at."""
    return torch.randn(n, 2).double(), torch.randn(n, 2).double()


def test_the_jacobian_has_the_derivative_second():
    x = torch.randn(6, 2).double()
    found = jacobian(lambda x: torch.stack([x[:, 0] * x[:, 1] ** 2, x[:, 0].sin()], dim=1), x)
    a, b = x.T
    expected = [[b**2, 2 * a * b], [a.cos(), torch.zeros(6).double()]]
    assert torch.allclose(found, torch.stack([torch.stack(row, 1) for row in expected], 1))


@pytest.mark.parametrize(("turned", "share"), [(0.0, 0.0), (1.0, 2**0.5), (0.5, 1 / 2.5**0.5)])
def test_the_curl_of_known_fields(turned, share):
    """-x or nothing, and a turn: the curl is 2 turned, the norm sqrt(2 (1 or 0 + turned^2))."""
    inward = 0.0 if turned == 1 else 1.0
    found = curl_share(lambda x: turned * x @ TURN.T - inward * x, torch.randn(50, 2).double())
    assert found == pytest.approx(share, abs=1e-12)


def test_the_exact_score_has_no_curl_and_its_work_is_the_energy():
    data, abar = ring(), 0.6
    x, y = pairs()
    assert curl_share(lambda x: data.score(x, abar), x) < 1e-12
    energy = data.log_prob(y, abar) - data.log_prob(x, abar)
    for found in two_ways(lambda x: data.score(x, abar), x, y):
        assert torch.allclose(found, energy, atol=2e-3)  # the midpoint rule with 100 pieces
    doubled = work(lambda x: data.score(x, abar), x, y, pieces=800)
    assert torch.allclose(doubled, energy, atol=5e-5)


def test_two_ways_differ_by_the_curl_inside():
    """Stokes: first along x, then along y, runs counter-clockwise where both differences agree."""
    x, y = pairs()
    one, other = two_ways(lambda x: x @ TURN.T, x, y)
    assert torch.allclose(one - other, 2 * (y - x).prod(dim=1), atol=1e-10)


def test_a_network_is_no_gradient_by_construction_and_less_far_from_one_when_trained():
    data = ring()
    diffusion = ddpm.GaussianDiffusion(ddpm.make_schedule(), clip_sample=False)
    t = 150
    x = noised(data, diffusion, t, 500)
    before = curl_share(score(diffusion, Mlp(), t), x)
    learned = score(diffusion, train(data, diffusion, steps=300), t)
    after = curl_share(learned, x)
    assert before > 0.3  # a matrix of independent random slopes has 0.71
    assert 0.005 < after < 0.5 * before
    # Two ways tell the same: they differ, and by less than the energies do.
    with torch.no_grad():
        one, other = two_ways(learned, x[:250], x[250:])
    abar = float(diffusion.schedule.alphas_cumprod[t])
    exact = data.score(x, abar)
    off = (learned(x).detach() - exact).norm() / exact.norm()
    assert float(off) < 0.25  # 0.16 to 0.17 for three seeds; a network that says 0 is off by 1
    assert relative_error(learned(x).detach(), exact) == pytest.approx(float(off))
    true = data.log_prob(x[250:], abar) - data.log_prob(x[:250], abar)
    assert 0 < float((one - other).square().mean()) < float(true.square().mean())
