"""A forward process that hides pixel after pixel makes the bound that of an autoregressive model
(s. 4.3 and Eq. 16 of the paper; docs/autoregressive.md).

Nothing is sampled: digits are reduced to 2x2 pixels of three grey levels, and every expectation is
a sum over all states. Matrices have a row for each state that a step leaves from.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch

import ddpm

LEVELS, PIXELS = 3, 4
HIDDEN = LEVELS  # the value of a pixel that is masked


def small_digits(split="train"):
    """The embedded digits as tuples of 2x2 grey levels out of three: [n, 4] of 0..2."""
    source = ddpm.open_data("digits", split, image_size=8, channels=1)
    images = source[torch.arange(len(source))].double()
    means = torch.nn.functional.avg_pool2d(images, 4).flatten(1).numpy()
    return np.digitize(means, (4, 6))


# -- an autoregressive model, and what images cost by the chain rule ------------------------------


@dataclass
class Autoregressive:
    """p(x) as a product of conditionals, in tables: counts of the images seen, and one more.

    Args:
        order: the pixels in the order in which they are hidden; they are predicted from its end.
        images: [n, 4], what the tables are counted on.
    """

    order: tuple[int, ...]
    images: np.ndarray

    def conditional(self, pixel, known):
        """[3], the law of a pixel, given the values of others, {pixel: value}."""
        fitting = self.images
        for other, value in known.items():
            fitting = fitting[fitting[:, other] == value]
        counts = np.bincount(fitting[:, pixel], minlength=LEVELS)
        return (counts + 1) / (counts.sum() + LEVELS)

    def bits(self, image):
        """-log2 p(x), pixel by pixel in the order of prediction: [4]."""
        known, paid = {}, []
        for pixel in reversed(self.order):
            paid.append(-math.log2(self.conditional(pixel, known)[image[pixel]]))
            known[pixel] = image[pixel]
        return np.array(paid)


# -- Markov chains over finitely many states -------------------------------------------------------


@dataclass
class Chain:
    """A forward process and its model, over S states.

    Args:
        states: [S, 4], the values of each state's pixels.
        forward: T matrices [S, S], q(x_t | x_{t-1}).
        reverse: T matrices [S, S], p(x_{t-1} | x_t), in the same order.
        prior: [S], p(x_T).
    """

    states: np.ndarray
    forward: list[np.ndarray]
    reverse: list[np.ndarray]
    prior: np.ndarray

    def law(self, *images):
        """[S], how often each state is among images, [n, 4]: q(x_0), and of one image all on it."""
        same = (self.states == np.array(images)[:, None]).all(axis=2)
        return same.mean(axis=0)

    def marginals(self, law):
        """T + 1 vectors [S], q(x_t) for t = 0..T where q(x_0) is `law`."""
        return list(itertools.accumulate(self.forward, np.matmul, initial=law))

    def model_bits(self):
        """[S], -log2 p(x_0): the sum over all paths, which nobody can compute in general."""
        law = self.prior
        for step in reversed(self.reverse):
            law = law @ step
        with np.errstate(divide="ignore"):
            return -np.log2(law)


def expected_log2(weights, above, below):
    """Sum of weights * log2(above / below), over all that has any weight."""
    weights, above, below = np.broadcast_arrays(weights, above, below)
    some = weights > 0
    with np.errstate(divide="ignore"):  # what the model holds for impossible costs infinitely much
        return float(weights[some] @ (np.log2(above[some]) - np.log2(below[some])))


def steps_back(chain, law):
    """For t = 1..T: q(x_{t-1}, x_t), q(x_{t-1} | x_t) and p(x_{t-1} | x_t), each [S, S] with a
    column for each x_t, where q(x_0) is `law`."""
    at = chain.marginals(law)
    for t, (forward, reverse) in enumerate(zip(chain.forward, chain.reverse, strict=True), 1):
        both = at[t - 1][:, None] * forward
        yield both, np.divide(both, at[t], out=np.zeros_like(both), where=both > 0), reverse.T


def eq5(chain, image):
    """The bound of one image in bits, Eq. 5: [L_0, L_1, ..., L_{T-1}, L_T]."""
    x_0 = chain.law(image)
    terms = [expected_log2(both, q, p) for both, q, p in steps_back(chain, x_0)]
    # q(x_0 | x_1, x_0) is 1, so that the first of them is -log2 p(x_0 | x_1).
    x_last = chain.marginals(x_0)[-1]
    return np.array([*terms, expected_log2(x_last, x_last, chain.prior)])


def mean_eq5(chain, law):
    """Eq. 5 over a law of images, [S]."""
    return sum(law[i] * eq5(chain, chain.states[i]) for i in np.flatnonzero(law))


def eq16(chain, law):
    """The same by Eq. 16: [KL of x_0, ..., KL of x_{T-1}, KL of x_T, H(x_0)].

    Its q(x_{t-1} | x_t), q(x_T) and H(x_0) are those of all images together, which is why it cannot
    be estimated where they cannot be summed over.
    """
    terms = [expected_log2(both, q, p) for both, q, p in steps_back(chain, law)]
    x_last = chain.marginals(law)[-1]
    entropy = expected_log2(law, 1.0, law)
    return np.array([*terms, expected_log2(x_last, x_last, chain.prior), entropy])


def masking(model):
    """The chain whose step t hides pixel order[t-1], and whose reverse predicts it.

    Args:
        model: an `Autoregressive`.
    """
    states = np.array(list(itertools.product(range(LEVELS + 1), repeat=PIXELS)))
    number = {tuple(state): i for i, state in enumerate(states.tolist())}
    chain = Chain(states, [], [], np.zeros(len(states)))
    chain.prior[number[(HIDDEN,) * PIXELS]] = 1.0  # all mass on the blank image
    for t, pixel in enumerate(model.order):
        forward, reverse = np.zeros((2, len(states), len(states)))
        for i, state in enumerate(states.tolist()):
            hidden = tuple(HIDDEN if j == pixel else value for j, value in enumerate(state))
            forward[i, number[hidden]] = 1.0
            if state[pixel] != HIDDEN:
                continue
            # Copy what can be seen, and predict one pixel.
            known = {j: state[j] for j in model.order[t + 1 :] if state[j] != HIDDEN}
            for value, p in enumerate(model.conditional(pixel, known)):
                seen = tuple(value if j == pixel else other for j, other in enumerate(state))
                reverse[i, number[seen]] = p
        chain.forward.append(forward)
        chain.reverse.append(reverse)
    return chain


def replacing(images, steps, kept=1e-3):
    """The chain that now and then replaces a pixel with a random one: noise, not masks.

    Its reverse is the best one that predicts each pixel by itself, as a network with a Gaussian (or
    any other) law for each pixel does.

    Args:
        images: [n, 4], whose law the reverse is the best for.
        steps: T.
        kept: the share of pixels that no step has touched at T.
    """
    states = np.array(list(itertools.product(range(LEVELS), repeat=PIXELS)))
    keep = kept ** (1 / steps)
    one = keep * np.eye(LEVELS) + (1 - keep) / LEVELS
    forward = one
    for _ in range(PIXELS - 1):
        forward = np.kron(forward, one)
    chain = Chain(states, [forward] * steps, [], np.full(len(states), 1 / len(states)))
    for before in chain.marginals(chain.law(*images))[:-1]:
        both = before[:, None] * forward
        posterior = (both / both.sum(axis=0)).T  # q(x_{t-1} | x_t), from x_t to x_{t-1}
        reverse = np.ones_like(posterior)
        for values in states.T:
            same = values[:, None] == values  # sum over all x_{t-1} with this pixel's value
            reverse *= posterior @ same
        chain.reverse.append(reverse)
    return chain


def main():
    """Print both bounds, term by term, for chains that mask and for chains that replace."""
    training, held_out = small_digits(), small_digits("test")
    print(f"{len(held_out)} held-out digits of 2x2 pixels, tables of {len(training)} others; bits")
    for order in ((0, 1, 2, 3), (2, 0, 3, 1)):
        model = Autoregressive(order, training)
        chain = masking(model)
        law = chain.law(*held_out)
        likelihood = np.array([model.bits(x).sum() for x in held_out])
        bound, rewritten = np.array([eq5(chain, x) for x in held_out]), eq16(chain, law)
        print(f"\nhiding pixels {order}: {likelihood.mean():.10f} by the chain rule")
        print(f"    Eq. 5  {bound.sum(axis=1).mean():.10f} =", *bound.mean(axis=0).round(4))
        print(f"    Eq. 16 {rewritten.sum():.10f} =", *rewritten.round(4))
        print(f"    of any image {np.abs(bound.sum(axis=1) - likelihood).max():.0e} apart at most")
    print("\nreplacing pixels, the best model of each: steps, Eq. 5, Eq. 16, -log2 p(x_0), H(x_0)")
    for steps in (1, 2, 4, 8, 16, 32, 64):
        chain = replacing(training, steps)
        law = chain.law(*training)
        rewritten = eq16(chain, law)
        known = law @ chain.model_bits(), rewritten[-1]
        found = mean_eq5(chain, law).sum(), rewritten.sum(), *known
        print(f"    {steps:2}", *(f"{number:.10f}" for number in found))


if __name__ == "__main__":
    main()
