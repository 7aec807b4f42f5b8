"""Algorithm 1 as a reader wants to see it: train, average, sample, measure, all by hand.

`ddpm.train` does the same, and also resumes, logs, saves, and shares the work.
"""

import torch

import ddpm


def train(network, diffusion, images, image_format, steps=200, batch=64, lr=2e-3):
    """Algorithm 1, with the paper's Adam, clipping and averaged weights."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    average = ddpm.Ema(network, decay=0.99)
    for step in range(steps):
        x_start = image_format.to_unit(images[torch.randint(len(images), (batch,))])
        t = torch.randint(diffusion.num_timesteps, (batch,))  # a timestep for each image
        noise = torch.randn_like(x_start)
        x_t = diffusion.q_sample(x_start, t, noise)  # Eq. 4
        loss = (noise - network(x_t, t)).square().mean()  # Eq. 14

        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network, step)
        if step % 50 == 0:
            print(f"step {step:4}: loss {loss.item():.3f}")
    return average.network


def sample(network, diffusion, shape):
    """Algorithm 2."""
    x = torch.randn(shape)
    for i in reversed(range(diffusion.num_timesteps)):
        t = torch.full((len(x),), i)
        step = diffusion.p_mean_variance(network, x, t)  # Eq. 11 and 15
        x = step.mean + (step.variance.sqrt() * torch.randn_like(x) if i > 0 else 0.0)
    return x


def main(steps=200, count=16):
    """Train on the embedded digits, draw some, and say what held-out ones cost."""
    torch.manual_seed(0)
    digits = ddpm.open_data("digits", image_size=8, channels=1)
    network = ddpm.get_preset("digits").build_network(digits.format.shape)
    diffusion = ddpm.GaussianDiffusion(ddpm.make_schedule())
    network = train(network, diffusion, digits.images, digits.format, steps)
    with torch.inference_mode():
        drawn = digits.format.from_unit(sample(network, diffusion, (count, *digits.format.shape)))
    model = ddpm.Ddpm(ddpm.get_preset("digits"), digits.format, network)
    held_out = ddpm.open_data("digits", "test", image_size=8, channels=1)
    bits = model.bits_per_dim(held_out.images[:count], plan=ddpm.Plan(steps=50))
    print(f"{count} digits drawn; held-out digits cost {bits:.2f} bits/dim")
    return drawn, bits


if __name__ == "__main__":
    main()
