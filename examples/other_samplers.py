"""A model in azula: its samplers and ours, from the same noise (docs/other-samplers.md).

Needs azula: `pip install --no-deps azula einops`.
"""

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from azula.sample import DDIMSampler, Sampler, xEABSampler

import ddpm


class ChainSchedule(Schedule):
    """sqrt(abar) and sqrt(1 - abar) of the time index nearest to t (K - 1)."""

    def __init__(self, chain):
        self.alpha = torch.tensor(chain.schedule.sqrt_alphas_cumprod)
        self.sigma = torch.tensor(chain.schedule.sqrt_one_minus_alphas_cumprod)

    def index(self, t):
        return (t * (len(self.alpha) - 1)).round().long()

    def __call__(self, t):
        return self.alpha.to(t)[self.index(t)], self.sigma.to(t)[self.index(t)]


class ChainDenoiser(Denoiser):
    """The x_0 that our own samplers aim at."""

    def __init__(self, chain, denoiser):
        super().__init__()
        self.chain, self.denoiser, self.schedule = chain, denoiser, ChainSchedule(chain)

    def forward(self, x_t, t):
        index = self.schedule.index(t.to(x_t.device)).expand(len(x_t))
        step = self.chain.p_mean_variance(self.denoiser, x_t, index)
        return DiracPosterior(step.pred_xstart)


def draw(sampler: Sampler, x: torch.Tensor) -> torch.Tensor:
    """Down to time index 0, and from there to the image."""
    return sampler.denoiser(sampler(x), torch.tensor(0.0)).mean


def main(name="cifar10-small", steps=20, count=4):
    """How far azula's images are from ours, in grey levels: the worst pixel and the mean."""
    model, plan = ddpm.load(name, precision="fp32"), ddpm.Plan(steps, "quadratic", calibrated=False)
    ours = ChainDenoiser(model.chain(plan), model.denoiser())
    x = model.noise(torch.arange(count), seed=0)(steps)  # what model.sample(count) begins with
    differences = []
    for theirs, sampler in ((DDIMSampler, "ddim"), (xEABSampler, "dpm-solver")):
        images = model.format.from_unit(draw(theirs(ours, steps=steps - 1, silent=True), x))
        same = model.sample(count, sampler=sampler, plan=plan)
        difference = (images.cpu().float() - same).abs()
        worst, mean = float(difference.max()), float(difference.mean())
        print(f"{theirs.__name__} and {sampler}: at most {worst:.0f}, {mean:.2f} in the mean")
        differences.append((worst, mean))
    return differences


if __name__ == "__main__":
    main()
