"""Two Markov chains that forget where they started: the weather, and a pixel under diffusion."""

import numpy as np
import torch

from ddpm import GaussianDiffusion, make_schedule


def weather(days: int = 10) -> np.ndarray:
    """The belief over (sunny, rainy) on each day, the first of which nobody knows: [days, 2]."""
    transition = np.array([[0.8, 0.2], [0.6, 0.4]])
    belief = np.array([0.5, 0.5])
    history = [belief]
    for _ in range(days - 1):
        belief = belief @ transition
        history.append(belief)
    return np.array(history)


def pixel(n: int = 20_000, value: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """x_T by a thousand single steps (Eq. 2), and by one jump (Eq. 4)."""
    diffusion = GaussianDiffusion(make_schedule())
    start = torch.full((n, 1, 1, 1), value)
    x = start
    for beta in diffusion.schedule.betas:
        x = (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn_like(x)
    last = torch.full((n,), diffusion.num_timesteps - 1)
    return x, diffusion.q_sample(start, last, torch.randn_like(start))


if __name__ == "__main__":
    for day, (sunny, rainy) in enumerate(weather(), start=1):
        print(f"day {day:2}: sunny {sunny:.6f}  rainy {rainy:.6f}")
    for name, x in zip(("1,000 steps", "one jump"), pixel(), strict=True):
        print(f"{name:>11}: mean {float(x.mean()):+.3f}  standard deviation {float(x.std()):.3f}")
