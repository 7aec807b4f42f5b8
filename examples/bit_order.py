"""When the bits of each pixel and of each frequency arrive while an image is received step by step
(s. 4.3 of the paper; docs/autoregressive.md).

    python examples/bit_order.py RUN IMAGES --out FILE.png

The bits of a step follow from the error of the predicted x_0. That of the pixels is stored in a
model; that of the frequencies is measured here, in the cosine transform of each channel.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.fft import dctn

import ddpm

IMAGES, TIMES = 32, 32


def frequency_error(diffusion, denoiser, x_start, timesteps, seed=0):
    """The mean squared error of the predicted x_0 at each frequency instead of each pixel.

    Args:
        diffusion: the whole chain.
        denoiser: the network.
        x_start: [n, c, h, w] in [-1, 1].
        timesteps: at which it is measured, rising, the first and the last among them.
        seed: decides the noise.

    Returns:
        A `ddpm.DenoisingError`, whose `at` interpolates.
    """
    generator, errors = torch.Generator().manual_seed(seed), []
    for timestep in timesteps.tolist():
        t = torch.full((len(x_start),), timestep)
        x_t = diffusion.q_sample(x_start, t, torch.randn(x_start.shape, generator=generator))
        wrong = diffusion.p_mean_variance(denoiser, x_t, t).pred_xstart - x_start
        spectrum = dctn(wrong.double().numpy(), axes=(-2, -1), norm="ortho")
        errors.append((spectrum**2).mean(axis=0).clip(min=1e-12))
    mse = np.stack(errors)
    return ddpm.DenoisingError(timesteps, mse, np.zeros(len(mse)), len(x_start))


def bits_of_steps(schedule, error):
    """[T-1, h, w], what each step from T-1 down to 1 says of each pixel, summed over channels.

    With the best variance for an error mse of the predicted x_0 that is 1/2 log2(1 + gain mse)
    bits, the gain being how much the signal-to-noise ratio grows.
    """
    falling = np.arange(schedule.num_timesteps - 1, 0, -1)
    gain = schedule.snr[falling - 1] - schedule.snr[falling]
    steps = zip(gain, falling, strict=True)
    return np.stack([0.5 * np.log2(1 + g * error.at(t[None])[0]).sum(axis=0) for g, t in steps])


def arrival(bits):
    """[h, w] in 0..1: how much of all bits is there when half of those of a pixel are."""
    flat = np.cumsum(bits.reshape(len(bits), -1), axis=0)
    whole = np.append(0.0, flat.sum(axis=1) / flat[-1].sum())
    own = np.concatenate([np.zeros((1, flat.shape[1])), flat / flat[-1]])
    return np.array([np.interp(0.5, pixel, whole) for pixel in own.T]).reshape(bits.shape[1:])


def row_by_row(height, width):
    """The same for an autoregressive model whose pixels have equally many bits."""
    return ((np.arange(height * width) + 0.5) / (height * width)).reshape(height, width)


def band_means(table):
    """[..., bands], the mean of a table [..., h, w] over each band of frequencies.

    Band 0 is the mean of the image, band 1 reaches 1.5 half waves far, every other twice as far.
    """
    radius = np.hypot(*np.indices(table.shape[-2:]))
    bands = np.where(radius > 0, 1 + np.ceil(np.log2(radius.clip(1.5) / 1.5)), 0).astype(int)
    return np.stack([table[..., bands == i].mean(axis=-1) for i in range(bands.max() + 1)], axis=-1)


def picture(schedule, pixels, frequencies):
    """Three maps of arrival, and the bits of every band against the noise that is left."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.5))
    for panel, title, table, across, down in (
        (axes[0], "masks, row by row: pixels", row_by_row(*pixels.shape[1:]), "column", "row"),
        (axes[1], "Gaussian: pixels", arrival(pixels), "column", "row"),
        (axes[2], "Gaussian: frequencies", arrival(frequencies), "half waves across", "down"),
    ):
        map_ = panel.imshow(100 * table, vmin=0, vmax=100, interpolation="nearest")
        low, high = 100 * table.min(), 100 * table.max()
        panel.set_title(f"{title}\n{low:.0f} to {high:.0f}%", fontsize="medium")
        height, width = table.shape
        panel.set(xlabel=across, xticks=[0, width - 1], yticks=[0, height - 1])
        panel.set_ylabel(down, labelpad=-8)
    label = "share of all bits that are there when half of its own are, %"
    figure.colorbar(map_, ax=list(axes[:3]), location="bottom", aspect=40, label=label)
    noise = 127.5 / np.sqrt(schedule.snr[-2::-1])  # after each step, on the scale of 0..255
    received = band_means(np.cumsum(frequencies, axis=0))
    for i, band in enumerate(received.T):
        label = f"up to {1.5 * 2 ** (i - 1):g}" if i else "the mean"
        axes[3].plot(noise, band, color=map_.cmap(i / received.shape[1]), label=label)
    axes[3].set(xscale="log", xlabel="noise left in x_t, grey levels of 0..255")
    axes[3].set(ylabel="bits of a coefficient", xlim=(3000, noise.min()))
    axes[3].xaxis.set_major_formatter("{x:g}")
    axes[3].grid(alpha=0.3)
    axes[3].legend(title="half waves", fontsize="small", title_fontsize="small")
    return figure


def main(argv=None):
    """Measure, draw, and print what the picture shows."""
    parser = argparse.ArgumentParser(description="When the bits of pixels and frequencies arrive.")
    parser.add_argument("run", help="a run's folder, a checkpoint or a model of `ddpm models`")
    parser.add_argument("images", help="images that it was not trained on, or digits")
    parser.add_argument("--out", type=Path, default=Path("bit-order.png"))
    parser.add_argument("--count", type=int, default=IMAGES, help="images to measure on")
    parser.add_argument("--times", type=int, default=TIMES, help="timesteps to measure at")
    args = parser.parse_args(argv)
    model = ddpm.load(args.run, precision="fp32")
    shape, schedule = model.format, model.diffusion.schedule
    source = ddpm.open_data(args.images, "test", image_size=shape.height, channels=shape.channels)
    x_start = shape.to_unit(source[torch.arange(args.count)])
    if model.denoising_error is None:
        raise SystemExit(f"the errors of {args.run} were not measured yet: ddpm measure {args.run}")
    times = model.denoising_error.timesteps  # of the pixels' error: many at first, then fewer
    some = np.linspace(0, len(times) - 1, min(args.times, len(times))).round().astype(int)
    error = frequency_error(model.diffusion, model.denoiser(), x_start, times[some])
    pixels = bits_of_steps(schedule, model.denoising_error)
    frequencies = bits_of_steps(schedule, error)
    for name, bits in (("pixel", pixels), ("frequency", frequencies)):
        rate = bits.sum() / np.prod(shape.shape)
        low, high = arrival(bits).min(), arrival(bits).max()
        print(f"{rate:.3f} bits/dim before the last step; half of each {name}'s own are there")
        print(f"    when {low:.1%} (the first) to {high:.1%} (the last) of all are")
    print("    by band of frequencies:", *(f"{x:.1%}" for x in band_means(arrival(frequencies))))
    picture(schedule, pixels, frequencies).savefig(args.out, dpi=100)


if __name__ == "__main__":
    main()
