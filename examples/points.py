"""Points in the plane whose density is known: how true is what a diffusion model says of it?

    python examples/points.py FOLDER

trains a small network on eight Gaussians and on two moons, prints what docs/score-matching.md says,
and draws its pictures into FOLDER (the present one by default). t counts from 0.
"""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import points_pictures
import torch
from torch import nn
from torch.distributions import Normal

import ddpm

LEVELS = (10, 50, 150, 400)  # noise of standard deviation 0.05, 0.17, 0.46 and 0.90
GRID = torch.cartesian_prod(torch.linspace(-1.6, 1.6, 41), torch.linspace(-1.6, 1.6, 41))


# -- the data, and what is exactly true of it ---------------------------------------------------


class Mixture:
    """Gaussians of equal weight and width around `means`, [k, d]; all that follows is exact."""

    def __init__(self, means, std):
        self.means, self.std = means, std

    def sample(self, n):
        """[n, d]."""
        means = self.means[torch.randint(len(self.means), (n,))]
        return means + self.std * torch.randn_like(means)

    def parts(self, x, abar):
        """Of q(x_t), also a mixture: log-density of each part at x, [n, k], and its variance."""
        count, dim = self.means.shape
        if x.ndim != 2 or x.shape[1] != dim:
            raise ddpm.DdpmError(f"this data has points of shape [n, {dim}], got {list(x.shape)}")
        abar = torch.as_tensor(abar, dtype=x.dtype).reshape(-1, 1)
        means, variance = self.means.to(x.dtype), abar * self.std**2 + 1 - abar
        squares = x.square().sum(1, keepdim=True) + abar * means.square().sum(1)
        squares = squares - 2 * abar.sqrt() * (x @ means.T)
        logs = -squares / (2 * variance) - dim / 2 * (2 * math.pi * variance).log()
        return logs - math.log(count), variance

    def log_prob(self, x, abar=1.0):
        """log q(x_t) in nats, [n]; of the data itself by default. abar is a number or [n]."""
        return self.parts(x, abar)[0].logsumexp(1)

    def score(self, x, abar=1.0):
        """The gradient of log q(x_t) by x_t, [n, d]."""
        logs, variance = self.parts(x, abar)
        root = torch.as_tensor(abar, dtype=x.dtype).sqrt().reshape(-1, 1)
        return (root * (logs.softmax(1) @ self.means.to(x.dtype)) - x) / variance

    def denoiser(self, diffusion):
        """The network that training would end in: -sqrt(1 - abar_t) score, as (x_t, t) -> eps."""
        abar = torch.tensor(diffusion.schedule.alphas_cumprod)

        def epsilon(x, t):
            return -(1 - abar[t]).sqrt().to(x.dtype).reshape(-1, 1) * self.score(x, abar[t])

        return epsilon


def ring(count=8, std=0.1):
    """Gaussians on the unit circle."""
    angle = torch.arange(count) * (2 * math.pi / count)
    return Mixture(torch.stack([angle.cos(), angle.sin()], dim=1), std)


def moons(count=32, std=0.1):
    """Two half circles, each of so many Gaussians that no gap is left."""
    angle = torch.linspace(0, math.pi, count)
    arc = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    return Mixture(torch.cat([arc, -arc]), std)


# -- a network that is no U-Net, and Algorithm 1 --------------------------------------------------


class Mlp(nn.Module):
    """(points [n, d], t [n]) -> [n, d]; four layers, each of which is told the time."""

    def __init__(self, dim=2, width=96, depth=3):
        super().__init__()
        self.dim, self.first = dim, nn.Linear(dim, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.times = nn.ModuleList(nn.Linear(32, width) for _ in range(depth))
        self.last = nn.Linear(width, dim)

    def forward(self, x, t):
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ddpm.DdpmError(
                f"this network was made for points of shape [n, {self.dim}], got {list(x.shape)}"
            )
        angle = (1 + t[:, None]).sqrt() * torch.logspace(0, -1.5, 16)
        time = torch.cat([angle.sin(), angle.cos()], dim=1).to(x.dtype)
        x = self.first(4 * x)  # what is to be told apart is a tenth wide
        for layer, told in zip(self.layers, self.times, strict=True):
            x = x + layer(nn.functional.silu(x + told(time)))
        return self.last(nn.functional.silu(x))


def train(data, diffusion, steps=5000, batch=256, lr=2e-3):
    """Algorithm 1 on points that are drawn anew for every step; the averaged network."""
    remains = diffusion.schedule.alphas_cumprod[-1]
    if remains > 0.05:
        raise ddpm.DdpmError(
            f"this schedule ends at abar = {remains:.3g}, where the data still shows, so the "
            "reverse chain cannot begin with noise; raise beta_end or T until abar_T is below 0.05"
        )
    network = Mlp(data.means.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    average = ddpm.Ema(network, decay=0.995)
    for step in range(steps):
        x_start = data.sample(batch)
        t = torch.randint(diffusion.num_timesteps, (batch,))
        loss = ddpm.training_loss(diffusion, network, x_start, t, torch.randn_like(x_start)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        average.update(network, step)
    return average.network


# -- scores, chains, distances --------------------------------------------------------------------


def score(diffusion, denoiser, t):
    """The score that a denoiser stands for at time index t: x_t -> -eps / sqrt(1 - abar_t)."""
    sigma = float(diffusion.schedule.sqrt_one_minus_alphas_cumprod[t])
    return lambda x: -diffusion.model_output(denoiser, x, torch.full((len(x),), t)) / sigma


def noised(data, diffusion, t, n):
    """x_t ~ q(x_t), [n, d]."""
    x = data.sample(n)
    return diffusion.q_sample(x, torch.full((n,), t), torch.randn_like(x))


def relative_error(found, exact):
    """Root mean square of |found - exact|, over that of |exact|."""
    return float(((found - exact).square().sum() / exact.square().sum()).sqrt())


def reverse_chain(diffusion, denoiser, n=2000, noise=1.0, callback=None):
    """Algorithm 2; with another `noise`, that times the variance in every step."""
    return ddpm.Ancestral()(
        diffusion,
        denoiser,
        torch.randn(n, 2),
        lambda i: noise**0.5 * torch.randn(n, 2),
        callback=callback,
    )


def annealed_langevin(diffusion, denoiser, n=2000, levels=100, sampler=None):
    """Annealed Langevin dynamics down noise levels in even proportion, 5 steps on each."""
    sigma = diffusion.schedule.sqrt_recipm1_alphas_cumprod
    times = np.unique(np.searchsorted(sigma, np.geomspace(sigma[0], sigma[-1] * 0.999999, levels)))
    sampler = sampler or ddpm.Langevin()
    return sampler(
        diffusion.respace(times), denoiser, torch.randn(n, 2), lambda i: torch.randn(n, 2)
    )


def spread(diffusion, denoiser, noise=1.0, n=1000):
    """Mean square of x_t, [T], as Algorithm 2 comes down with `noise` times its variance."""
    found = np.empty(diffusion.num_timesteps)

    def see(state):
        found[state.index] = float(state.x_t.square().mean())

    reverse_chain(diffusion, denoiser, n, noise, callback=see)
    return found


def energy_distance(x, y):
    """2 E|x - y| - E|x - x'| - E|y - y'| (Szekely & Rizzo); 0 in the mean for equal laws."""

    def within(z):
        return torch.cdist(z, z).sum() / (len(z) * (len(z) - 1))

    return float(2 * torch.cdist(x, y).mean() - within(x) - within(y))


def fresh_distances(data, n=2000, repeats=10):
    """Mean and standard deviation of the distance of two fresh samples of the data."""
    found = [energy_distance(data.sample(n), data.sample(n)) for _ in range(repeats)]
    return float(np.mean(found)), float(np.std(found, ddof=1))


# -- the bound ------------------------------------------------------------------------------------


def bound(diffusion, denoiser, x_start):
    """An upper bound of -log p for each point, in nats, [n]: one path of Eq. 3.

    It is Eq. 5 in the mean, with far less noise where the reverse chain is nearly right. Points
    have no grey levels, so L_0 is not Eq. 13 but their density under N(x^_0, (1/abar_1 - 1) I).
    """
    schedule = diffusion.schedule
    total, x = torch.zeros(len(x_start)), x_start
    for index, beta in enumerate(schedule.betas):
        noise = torch.randn_like(x)
        after = (1 - beta) ** 0.5 * x + beta**0.5 * noise  # Eq. 2
        p = diffusion.p_mean_variance(denoiser, after, torch.full((len(x),), index))
        if index > 0:
            total -= Normal(p.mean, p.variance.sqrt()).log_prob(x).sum(1)
        else:
            width = float(schedule.sqrt_recipm1_alphas_cumprod[0])
            total -= Normal(p.pred_xstart, width).log_prob(x).sum(1)
        total += (Normal(0.0, 1.0).log_prob(noise) - 0.5 * math.log(beta)).sum(1)
        x = after
    return total - Normal(0.0, 1.0).log_prob(x).sum(1)


def gap(data, diffusion, denoiser, n=2000):
    """The bound less the exact -log q over n fresh points, in nats: mean and standard error."""
    x = data.sample(n)
    above = bound(diffusion, denoiser, x) + data.log_prob(x)
    return float(above.mean()), float(above.std() / n**0.5)


def chain_between(steps, first=0.9999, last=1e-4, variance_type="fixed_large"):
    """A chain of so many steps with abar_1 and abar_T held, even in log SNR between them."""
    log_snr = np.linspace(math.log(first / (1 - first)), math.log(last / (1 - last)), steps)
    abar = 1 / (1 + np.exp(-log_snr))
    schedule = ddpm.schedule_from_betas(1 - abar / np.append(1.0, abar[:-1]))
    return ddpm.GaussianDiffusion(schedule, variance_type=variance_type, clip_sample=False)


# -- energies -------------------------------------------------------------------------------------


def jacobian(field, x):
    """Of a vector field at each point: [n, 2, 2], the second index that of the derivative."""
    x = x.detach().requires_grad_()
    out = field(x)
    rows = [torch.autograd.grad(out[:, i].sum(), x, retain_graph=i == 0)[0] for i in range(2)]
    return torch.stack(rows, dim=1)


def curl_share(field, x):
    """Root mean square of the curl over that of the Jacobian's norm: 0 for every gradient."""
    slopes = jacobian(field, x)
    curl = slopes[:, 1, 0] - slopes[:, 0, 1]
    return float((curl.square().mean() / slopes.square().sum((1, 2)).mean()).sqrt())


def work(field, *corners, pieces=100):
    """The integral of a field along the straight lines through the corners, each [n, 2]: [n]."""
    total = 0
    for begin, end in itertools.pairwise(corners):
        for i in range(pieces):
            middle = begin + (i + 0.5) / pieces * (end - begin)
            total = total + (field(middle) * (end - begin)).sum(1) / pieces
    return total


def two_ways(field, begin, end):
    """The same first along x, then along y; and first along y, then along x."""
    below = torch.stack([end[:, 0], begin[:, 1]], dim=1)
    beside = torch.stack([begin[:, 0], end[:, 1]], dim=1)
    return work(field, begin, below, end), work(field, begin, beside, end)


# -- what is measured -----------------------------------------------------------------------------


def study_score(data, diffusion, network, t, n):
    """At time index t: error and curl of the score, and energies of pairs of points two ways."""
    abar = float(diffusion.schedule.alphas_cumprod[t])
    learned, x = score(diffusion, network, t), noised(data, diffusion, t, n)
    exact = data.score(x, abar)
    curl = curl_share(learned, x)
    with torch.no_grad():
        begin, end = x[: n // 2], x[n // 2 : n // 2 * 2]
        one, other = two_ways(learned, begin, end)
        true = data.log_prob(end, abar) - data.log_prob(begin, abar)
        return {
            "t": t,
            "noise": (1 - abar) ** 0.5,
            "told": (1 - abar) * float(exact.square().mean()),
            "error": relative_error(learned(x), exact),
            "curl": curl,
            "energy": float(true.square().mean().sqrt()),
            "energy error": float((one - true).square().mean().sqrt()),
            "two ways": float((one - other).square().mean().sqrt()),
            "arrows": (x[:150], exact[:150], learned(x[:150])),
        }


def study_energies(data, diffusion, network, t=50):
    """-log q(x_t) on GRID less that at the first mean: exact, and as the learned work two ways."""
    abar = float(diffusion.schedule.alphas_cumprod[t])
    begin = data.means[:1].expand_as(GRID)
    with torch.no_grad():
        one, other = two_ways(score(diffusion, network, t), begin, GRID)
    return data.log_prob(begin, abar) - data.log_prob(GRID, abar), -one, -other


def study(data, diffusion, network, n=2000):
    """All that is told and drawn of one data set and its network, of n points each."""
    found = {"scores": [study_score(data, diffusion, network, t, n // 2) for t in LEVELS]}
    with torch.no_grad():
        drawn = {
            "data": data.sample(n),
            "reverse chain": reverse_chain(diffusion, network, n),
            "Langevin": annealed_langevin(diffusion, network, n),
        }
        found["bound"] = bound(diffusion, network, drawn["data"])
    found["exact"] = -data.log_prob(drawn["data"])
    found["fresh"] = fresh_distances(data, n)
    found["samples"] = {
        name: (x, energy_distance(x, data.sample(n)), -float(data.log_prob(x).mean()))
        for name, x in drawn.items()
    }
    found["energies"] = study_energies(data, diffusion, network)
    return found


def study_chains(data_sets, diffusion, lengths=(4, 8, 16, 32, 64, 128, 256, 512), n=1000):
    """With the exact score of each data set, by its name: gaps of the bound by T and variance;
    and of the first one the mean square of x_t in truth, in Algorithm 2, with twice its variance.
    """
    data = next(iter(data_sets.values()))
    abar = diffusion.schedule.alphas_cumprod
    spreads = [abar * (float(data.means.square().mean()) + data.std**2) + 1 - abar]
    spreads += [spread(diffusion, data.denoiser(diffusion), noise, n) for noise in (1.0, 2.0)]
    gaps = {}
    for name, data in data_sets.items():
        for variance, kind in (("beta", "fixed_large"), ("beta~", "fixed_small")):
            rows = gaps.setdefault(f"{name}, variance {variance}", [])
            for steps in lengths:
                chain = chain_between(steps, variance_type=kind)
                rows.append((steps, *gap(data, chain, data.denoiser(chain), n)))
    return spreads, gaps


def tell(name, found):
    """Print the numbers of one data set."""
    for row in found["scores"]:
        print(
            f"{name}, t = {row['t']}, noise {row['noise']:.2f}, of which x_t tells "
            f"{100 * row['told']:.0f} %: score off by {100 * row['error']:.1f} %, curl "
            f"{100 * row['curl']:.1f} % of the Jacobian; energies "
            f"of two points differ by {row['energy']:.2f} nats, learned ones are off by "
            f"{row['energy error']:.2f}, two ways by {row['two ways']:.2f}"
        )
    mean, deviation = found["fresh"]
    print(f"{name}: fresh data is at a distance of {mean:.5f} +- {deviation:.5f} from data")
    for what, (_, distance, energy) in found["samples"].items():
        print(f"{name}: {what} is at {distance:.5f}, its mean -log q is {energy:.3f} nats")
    above = found["bound"] - found["exact"]
    print(
        f"{name}: the bound is {above.mean():.3f} +- {above.std() / len(above) ** 0.5:.3f} nats "
        f"above -log q in the mean, and below it at {100 * (above < 0).float().mean():.0f} % of "
        "the points, one draw each"
    )


def main(folder=".", steps=5000, n=2000):
    """Everything that docs/score-matching.md shows, from seed 0."""
    torch.manual_seed(0)
    folder, data_sets = Path(folder), {"ring": ring(), "moons": moons()}
    folder.mkdir(parents=True, exist_ok=True)
    diffusion = ddpm.GaussianDiffusion(ddpm.make_schedule(), clip_sample=False)
    for name, data in data_sets.items():
        found = study(data, diffusion, train(data, diffusion, steps), n)
        tell(name, found)
        points_pictures.scores(found).savefig(folder / f"points-{name}.png", dpi=72)
        energies = points_pictures.energies(GRID, found["energies"])
        energies.savefig(folder / f"points-{name}-energy.png", dpi=72)
    spreads, gaps = study_chains(data_sets, diffusion, n=n // 2)
    exact, once, twice = (float(values[500]) for values in spreads)
    print(f"mean square of x_500: {exact:.2f}, in Algorithm 2 {once:.2f}, with 2 beta {twice:.2f}")
    for name, rows in gaps.items():
        print(f"gap, {name}:", ", ".join(f"T = {t}: {m:.3f} +- {e:.3f}" for t, m, e in rows))
    points_pictures.chains(spreads, gaps).savefig(folder / "points-chains.png", dpi=72)


if __name__ == "__main__":
    main(*sys.argv[1:2])
