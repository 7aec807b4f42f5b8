"""The pictures of points.py, drawn from what it measured."""

from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # Okabe & Ito


def scores(found):
    """Scores at four noise levels, exact above learned; the samples; the bound of each point."""
    figure = Figure(figsize=(13, 9.8), layout="constrained")
    axes = figure.subplots(3, 4)
    for column, row in enumerate(found["scores"]):
        x, exact, learned = row["arrows"]
        title = f"exact score, t = {row['t']}, noise {row['noise']:.2f}"
        draw_arrows(axes[0, column], x, row["noise"] * exact, title)
        title = f"learned score, {100 * row['error']:.0f} % off"
        draw_arrows(axes[1, column], x, row["noise"] * learned, title)
    for panel, (name, (x, distance, _)) in zip(axes[2, :3], found["samples"].items(), strict=True):
        panel.plot(*x.T.numpy(), ".", color=BLUE, markersize=1.5)
        title = f"{name}, distance {distance:.4f}".replace("-0", "\N{MINUS SIGN}0")
        panel.set(xlim=(-1.8, 1.8), ylim=(-1.8, 1.8), aspect="equal", title=title)
    draw_bound(axes[2, 3], found["exact"], found["bound"])
    return figure


def draw_arrows(axes, x, arrows, title):
    """Arrows, at a fifth of their length, at points in the plane."""
    axes.plot(*x.T.numpy(), ".", color="#999999", markersize=2)
    style = {"angles": "xy", "scale_units": "xy", "scale": 5, "width": 0.006, "color": BLUE}
    axes.quiver(*x.T.numpy(), *arrows.T.numpy(), **style)
    reach = max(1.6, float(x.abs().max()))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title)


def draw_bound(axes, exact, bound):
    """The bound of each point beside the exact -log q."""
    axes.plot(exact.numpy(), bound.numpy(), ".", color=ORANGE, markersize=2)
    ends = (float(exact.min()), float(exact.max()))
    axes.plot(ends, ends, "k-", linewidth=1, label="equal")
    axes.set(xlabel="exact -log q(x), nats", ylabel="one draw of the bound, nats")
    axes.set_title(f"the bound, {float((bound - exact).mean()):.2f} nats above")
    axes.legend(fontsize="small")


def energies(grid, maps):
    """Energies on a grid: exact, and as the work of the learned score, two ways from one point."""
    side = round(len(grid) ** 0.5)
    exact, one, other = (values.reshape(side, side).numpy() for values in maps)
    x, y = grid.T.reshape(2, side, side).numpy()
    figure = Figure(figsize=(13, 3.3), layout="constrained")
    for axes, values, title in zip(
        figure.subplots(1, 4),
        (exact, one, other, other - one),
        ("exact energy", "learned: along x, then y", "learned: along y, then x", "difference"),
        strict=True,
    ):
        style = {"cmap": "viridis", "vmin": -1, "vmax": 20}
        if title == "difference":
            style = {"cmap": "PuOr", "vmin": -5, "vmax": 5}
        image = axes.pcolormesh(x, y, values, **style)
        axes.set(aspect="equal", title=title)
        figure.colorbar(image, ax=axes, extend="both", label="nats", shrink=0.75)
    return figure


def chains(spreads, gaps):
    """The mean square of x_t along chains with the exact score, and the gap of the bound by T."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = ("$q(x_t)$", r"Algorithm 2, adds $\beta_t$", r"the same, adds $2\beta_t$")
    for name, values, color, style in zip(
        names, spreads, ("black", BLUE, ORANGE), (":", "-", "--"), strict=True
    ):
        left.plot(values, style, color=color, label=name)
    left.set(xlabel="t", ylabel="mean square of a coordinate of $x_t$", ylim=(0, 2.3))
    styles = zip("os^D", (BLUE, ORANGE, GREEN, PINK), strict=True)
    for (name, rows), (marker, color) in zip(gaps.items(), styles, strict=True):
        steps, means, errors = zip(*rows, strict=True)
        right.errorbar(steps, means, errors, marker=marker, color=color, label=name)
    right.set(xscale="log", yscale="log", xlabel="T", ylabel=r"bound less $-\log q$, nats")
    for axes in (left, right):
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    return figure
