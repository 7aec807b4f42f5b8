"""The exact last stage: pixels come back, from the same bytes everywhere, for a true price."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stages import KNOTS, random_case, random_stage, sizes_of

from ddpm.codec import mixture
from ddpm.codec.integer_network import CEILING, FRACTION, IntegerNetwork, Layer
from ddpm.codec.last_stage import PREFIX, LastStage
from ddpm.codec.range_coder import TOTAL
from ddpm.codec.snapping import MARGIN, UNIT, Grid
from ddpm.codec.windows import Layout, features, timestep_features
from ddpm.errors import DdpmError

SIZES = [(1, 1), (1, 7), (5, 3), (8, 8), (3, 9)]


def same(images, others):
    """Whether two lists of images are equal."""
    return all(torch.equal(a, b) for a, b in zip(images, others, strict=True))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("sizes", [[(1, 1)], [(1, 7)], [(5, 3)], [(9, 8)], SIZES])
def test_images_come_back(channels, levels, sizes):
    stage = random_stage(channels, levels, seed=channels)
    images, xstart = random_case(sizes, channels, levels)
    code = stage.encode(images, xstart, 7)
    found, known = stage.decode(code, sizes, xstart, 7, complete=True)
    assert same(found, images)
    assert all(mask.all() for mask in known)
    ideal = stage.bits(images, xstart, 7).sum() / 8
    assert ideal - 1 <= len(code) <= 1.001 * ideal + 4


def integer_shares(stage, images, centres, timestep):
    """{(image, y, x, c): (lower, upper end)}, by nothing but Python's own integers."""
    network, tables = stage.network, mixture.tables(stage.levels)
    sig, exp = tables.sigmoid.tolist(), tables.exponential.tolist()
    scales, values = tables.inverse.tolist(), tables.values.tolist()
    edges = tables.edges.tolist()
    times = timestep_features(timestep, network.knots)[0].tolist()
    clamp = lambda v, low, high: min(max(v, low), high)  # noqa: E731
    K, C = network.components, network.channels
    layers = [
        (layer.weight.tolist(), layer.bias.tolist(), layer.bits)
        for layer in (network.skip, *network.layers)
    ]

    def product(x, layer):
        weight, bias, _ = layer
        return [
            b + sum(v * row[j] for v, row in zip(x, weight, strict=True))
            for j, b in enumerate(bias)
        ]

    def shift(v, bits):
        return v >> bits if bits >= 0 else v << -bits

    def sigmoid(a):
        if abs(a) >= len(sig):
            return 2**30 if a > 0 else 0
        return sig[a] if a >= 0 else 2**30 - sig[-a]

    found = {}
    for n, (image, centre) in enumerate(zip(images, centres, strict=True)):
        level, centre = image.tolist(), centre.tolist()
        height, width = len(level[0]), len(level[0][0])

        def at(plane, y, x, height=height, width=width):
            return plane[y][x] if 0 <= y < height and 0 <= x < width else None

        for y in range(height):
            for x in range(width):
                around, exists, past = [], [], []
                for dy in range(-3, 4):
                    for dx in range(-3, 4):
                        for c in range(C):
                            own, other = centre[c][y][x], at(centre[c], y + dy, x + dx)
                            value = 0 if other is None else other - own
                            value = own - 1020 if dy == dx == 0 else value
                            around.append(clamp(value, -4095, 4095))
                            if dy < 0 or (dy == 0 and dx < 0):
                                r = 0 if other is None else values[level[c][y + dy][x + dx]] - other
                                past.append(clamp(r, -4095, 4095))
                        exists.append(0 if at(centre[0], y + dy, x + dx) is None else 128)
                inputs = around + exists + times + past
                skipped = [
                    clamp(shift(v, layers[0][2] + 7 - 12), -(2**17), 2**17)
                    for v in product(inputs, layers[0])
                ]
                h, before = inputs, 7
                for layer in layers[1:-1]:
                    h = [shift(v, before + layer[2] - 12) for v in product(h, layer)]
                    h, before = [clamp(v, 0, 256 << 12) for v in h], 12
                out, bits = product(h, layers[-1]), layers[-1][2] + 12
                logits = [clamp(shift(v, bits - 8), -(2**20), 2**20) for v in out[:K]]
                weights = [max(logits) - v for v in logits]
                weights = [exp[v] if v < len(exp) else 0 for v in weights]
                residuals, row = [], K * (1 + 2 * C)
                for c in range(C):
                    means, inverse = [], []
                    for k in range(K):
                        v = clamp(shift(out[K * (1 + c) + k], bits - 12), -(2**17), 2**17)
                        v += skipped[c]
                        for b in range(c):
                            slope = shift(out[row + K * b + k], bits - 12)
                            v += clamp(slope, -(2**15), 2**15) * residuals[b] * 32 >> 12
                        means.append(clamp(v, -(2**17), 2**17) + centre[c][y][x] * 32)
                        s = clamp(shift(out[K * (1 + C + c) + k], bits - 6), -224, 400) + 224
                        inverse.append(scales[s])
                    row += K * c

                    def below(p, k, means=means, inverse=inverse):
                        if p in (0, stage.levels):
                            return 2**30 if p else 0
                        return sigmoid((edges[p - 1] - means[k]) * inverse[k] + 2**19 >> 20)

                    def cumulative(p, weights=weights, below=below):
                        m = sum(w * below(p, k) for k, w in enumerate(weights)) // sum(weights)
                        return p + (m * (TOTAL - stage.levels) >> 30)

                    p = level[c][y][x]
                    found[n, y, x, c] = cumulative(p), cumulative(p + 1)
                    residuals.append(values[p] - centre[c][y][x])
                    weights = [
                        w * (below(p + 1, k) - below(p, k) + 1) for k, w in enumerate(weights)
                    ]
                    while max(weights) >= 2**28:
                        weights = [w >> 1 for w in weights]
    return found


def placed(stage, array, images):
    """{(image, y, x, c): number} of [pixels, c] in the order of the code."""
    layout, found, places = Layout(sizes_of(images)), {}, []
    for n, (height, width) in enumerate(layout.sizes):
        places += [(n, y, x) for y in range(height) for x in range(width)]
    for row, pixel in zip(array.tolist(), layout.order.tolist(), strict=True):
        found |= {(*places[pixel], c): value for c, value in enumerate(row)}
    return found


@pytest.mark.parametrize(("channels", "levels"), [(1, 17), (3, 256), (4, 5), (2, 2)])
def test_what_is_computed_in_float64_is_what_integers_give(channels, levels):
    stage = random_stage(channels, levels, size=0.5, seed=levels)
    images, xstart = random_case([(4, 5), (1, 2)], channels, levels)
    values = np.concatenate([x.double().numpy().reshape(-1) for x in xstart])
    snapped = stage.grid.rounded(values, stage.grid.choose(values)[0])
    centres = np.split(snapped, [images[0].numel()])
    centres = [part.reshape(image.shape) for part, image in zip(centres, images, strict=True)]
    for timestep in (0, 2, 3, 7, 30):
        low, high, _, _ = stage.shares(images, xstart, timestep, MARGIN)
        low, high = placed(stage, low, images), placed(stage, high, images)
        wanted = integer_shares(stage, images, centres, timestep)
        assert {place: (low[place], high[place]) for place in low} == wanted


def test_every_part_of_the_network_matters():
    stage = random_stage()
    images, xstart = random_case([(7, 7)])
    codes = {stage.encode(images, xstart, t) for t in (0, 2, 3, 4, 5, 9)}
    assert len(codes) == 5  # 0 counts as 2
    tensors = stage.tensors()
    for name, tensor in tensors.items():
        if name.endswith(("weight", "bias")):
            more = 2 if name.endswith("weight") else 2**20
            other = LastStage.from_tensors({**tensors, name: tensor + more})
            assert other.encode(images, xstart, 5) != stage.encode(images, xstart, 5), name
            assert other.digest() != stage.digest()


def joint(stage, parameters, centre, levels):
    """The probability of a pixel's levels by the real formula, from parameters in integers."""
    k, c = stage.network.components, stage.network.channels
    logits, means, scales, slopes = np.split(
        parameters.astype(float), [k, k + k * c, k + 2 * k * c]
    )
    weights = np.exp((logits - logits.max()) / mixture.LOGIT)
    scales = np.exp(scales.reshape(c, k) / mixture.LOG_SCALE + mixture.SMALLEST)
    means, width = means.reshape(c, k) / mixture.MEAN, 255 / (stage.levels - 1)
    residual, row, found = levels * width - centre / UNIT, 0, weights / weights.sum()
    for i in range(c):
        slope = slopes.reshape(-1, k)[row : row + i] / 2**mixture.SLOPE_BITS
        row += i
        mean = means[i] + (slope * residual[:i, None]).sum(0)
        edges = residual[i] + width * np.array([[-0.5], [0.5]])
        below, above = 1 / (1 + np.exp(-((edges - mean) / scales[i]).clip(-500, 500)))
        below = 0 if levels[i] == 0 else below
        above = 1 if levels[i] == stage.levels - 1 else above
        found = found * (above - below)
    return found.sum()


@pytest.mark.parametrize(("channels", "levels"), [(1, 17), (3, 256), (3, 2), (4, 50)])
def test_the_frequencies_are_those_of_a_mixture_of_logistics(channels, levels):
    stage = random_stage(channels, levels, components=5)
    random, n, k = np.random.default_rng(levels), 400, 5
    parameters = np.concatenate(
        [
            random.integers(-500, 500, (n, k)),
            random.integers(-20 * 256, 20 * 256, (n, k * channels)),
            random.integers(200, 400, (n, k * channels)),
            random.integers(-4096, 4096, (n, k * channels * (channels - 1) // 2)),
        ],
        axis=1,
    )
    centres = random.integers(0, 255 * UNIT, (n, channels))
    near = (centres / UNIT + random.normal(0, 10, centres.shape)).clip(0, 255)
    pixels = np.rint(near * (levels - 1) / 255).astype(np.int64)
    low, high = np.empty((2, n, channels), dtype=np.int64)
    mixture.shares(parameters, centres, pixels, k, *mixture.tables(levels).all, low, high)
    coded = np.log2((high - low) / TOTAL).sum(axis=1)
    rows = zip(parameters, centres, pixels, strict=True)
    ideal = np.log2([joint(stage, *row) for row in rows])
    likely = (high - low > 1000).all(axis=1)
    assert likely.mean() > 0.8
    assert np.abs(coded - ideal)[likely].max() < 0.25
    assert abs((coded - ideal)[likely].mean()) < 0.01


@given(seed=st.integers(0, 10**6), levels=st.sampled_from([2, 3, 17, 255, 256]))
@settings(max_examples=60, deadline=None)
def test_every_level_has_a_frequency_whatever_the_parameters(seed, levels):
    random, tables = np.random.default_rng(seed), mixture.tables(levels)
    k = int(random.integers(1, 17))
    weights = random.integers(0, 2 ** random.integers(1, 29), k)
    weights[random.integers(k)] += 1
    far = 2 ** random.integers(1, 18)
    means = random.integers(-far, far + 1, k) + random.integers(-200, 2100) * 32
    inverse = tables.inverse[random.integers(0, len(tables.inverse), k)]
    if random.integers(2):
        inverse[:] = tables.inverse[random.choice([0, -1])]
    found = [
        mixture.cumulative(p, weights, means, inverse, tables.edges, tables.sigmoid)
        for p in range(levels + 1)
    ]
    assert found[0] == 0
    assert found[-1] == TOTAL
    assert (np.diff(found) >= 1).all()


@pytest.mark.parametrize("extreme", [-32767, 32767])
def test_the_most_extreme_weights_still_decode(extreme):
    stage = random_stage()
    tensors = stage.tensors()
    for name, tensor in tensors.items():
        if name.endswith("weight"):
            tensors[name] = torch.full_like(tensor, extreme)
    stage = LastStage.from_tensors(tensors)
    images, xstart = random_case([(5, 6)], error=60)
    code = stage.encode(images, xstart, 5)
    assert same(stage.decode(code, [(5, 6)], xstart, 5, True)[0], images)
    assert len(code) <= 3 * images[0].numel() + 8  # no level can cost more than 24 bits


def test_no_table_has_an_entry_that_another_exp_would_round_otherwise():
    for table in mixture.real_tables():
        distance = np.abs(table - np.floor(table) - 0.5)
        assert (distance > 32 * np.spacing(table)).all()  # exp errs by less than one
    for levels in (2, 17, 255, 256):
        tables = mixture.tables(levels)
        assert (np.diff(tables.values) > 0).all()
        assert (np.diff(tables.edges) > 0).all()
        assert tables.values[-1] == 255 * UNIT
        middle = (tables.values[1:] + tables.values[:-1]) * mixture.MEAN / UNIT / 2
        assert np.abs(middle - tables.edges).max() <= mixture.MEAN / UNIT / 2
    assert (np.diff(tables.sigmoid) >= 0).all()
    assert tables.sigmoid[0] * 2 == mixture.ONE
    assert tables.sigmoid[-1] <= mixture.ONE


def test_changing_a_pixel_changes_no_distribution_before_it():
    stage = random_stage(size=0.5)
    images, xstart = random_case([(6, 9), (5, 4)])
    layout = Layout(sizes_of(images))
    low, high, _, _ = stage.shares(images, xstart, 5, MARGIN)
    place = np.empty(layout.pixels, dtype=np.int64)
    place[layout.order] = np.arange(layout.pixels)
    reached = 0
    for pixel in range(0, 54):
        for c in (0, 2):
            changed = [image.clone() for image in images]
            changed[0][c].view(-1)[pixel] ^= 128
            other, above, _, _ = stage.shares(changed, xstart, 5, MARGIN)
            differs = ((other != low) | (above != high)).reshape(-1)
            first = 3 * int(place[pixel]) + c
            assert differs[first]
            assert not differs[:first].any()
            later = np.flatnonzero(differs.reshape(-1, 3).any(1))
            rows = layout.order[later]
            assert (rows < 54).all()
            y, x = np.divmod(rows[rows != pixel], 9)
            near = (y - pixel // 9 <= 3) & (abs(x - pixel % 9) <= 3) & (y >= pixel // 9)
            assert near.all()
            reached += len(rows) > 1
    assert reached > 80


@pytest.mark.parametrize(("channels", "levels"), [(1, 17), (3, 256)])
def test_every_beginning_decodes_and_what_is_known_is_right(channels, levels):
    stage, sizes = random_stage(channels, levels), [(5, 4), (1, 3), (2, 6)]
    images, xstart = random_case(sizes, channels, levels)
    code, counts = stage.encode(images, xstart, 7), []
    for size in range(len(code) + 1):
        found, known = stage.decode(code[:size], sizes, xstart, 7, complete=False)
        for image, other, mask, x in zip(images, found, known, xstart, strict=True):
            assert torch.equal(image[mask], other[mask])
            guess = ((x.double().clamp(-1, 1) + 1) * (levels - 1) / 2).round().to(torch.uint8)
            assert torch.equal(other[~mask], guess[~mask])
        counts.append(sum(int(mask.sum()) for mask in known))
    total = sum(image.numel() for image in images)
    assert counts[0] == counts[1] == 0
    assert counts == sorted(counts)
    assert counts[-1] >= total - 8 * channels
    # In between as many are known as there are bits for.
    assert abs(counts[len(code) // 2] / total - 0.5) < 0.25


@given(code=st.binary(max_size=120), complete=st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_no_encoder_wrote_gives_some_pixels_or_one_sentence(code, complete):
    stage, sizes = random_stage(1, 17), [(5, 4), (1, 3)]
    _, xstart = random_case(sizes, 1, 17)
    try:
        found, _ = stage.decode(code, sizes, xstart, 7, complete)
    except DdpmError as error:
        assert "damaged" in str(error)  # noqa: PT017
    else:
        assert all(int(image.max()) < 17 for image in found)
        assert sizes_of(found) == sizes


def test_a_damaged_byte_gives_other_pixels():
    stage = random_stage()
    images, xstart = random_case([(8, 8)])
    code = bytearray(stage.encode(images, xstart, 7))
    code[len(code) // 2] ^= 16
    found, _ = stage.decode(bytes(code), [(8, 8)], xstart, 7, True)
    assert not same(found, images)
    assert found[0].shape == images[0].shape


def test_another_machines_x0_decodes_if_it_is_off_by_less_than_the_margin():
    stage, sizes = random_stage(), [(16, 16), (5, 5)]
    images, xstart = random_case(sizes)
    code, random = stage.encode(images, xstart, 5), np.random.default_rng(0)

    def off(by):
        drift = [torch.from_numpy(random.uniform(-by, by, x.shape) / 127.5) for x in xstart]
        near = [(x.double() + d).float() for x, d in zip(xstart, drift, strict=True)]
        return stage.decode(code, sizes, near, 5, True)[0]

    assert all(same(off(0.98 * MARGIN), images) for _ in range(5))
    assert not same(off(10 * MARGIN), images)


def test_the_company_of_other_images_changes_no_cost():
    stage = random_stage()
    images, xstart = random_case([(6, 5), (9, 9), (1, 4)])
    exact = replace(stage, grid=Grid(4, 1))  # every number has an offset of its own
    together = exact.bits(images, xstart, 5)
    alone = [exact.bits([i], [x], 5)[0] for i, x in zip(images, xstart, strict=True)]
    assert together == pytest.approx(alone, rel=0.02)
    parts = [exact.shares([i], [x], 5, MARGIN)[:2] for i, x in zip(images, xstart, strict=True)]
    alone = np.concatenate([(high - low).reshape(-1) for low, high in parts])
    low, high, _, _ = exact.shares(images, xstart, 5, MARGIN)
    assert np.array_equal(np.sort(alone), np.sort((high - low).reshape(-1)))


def test_any_chunks_and_threads_give_the_same_bytes(monkeypatch):
    stage = random_stage(width=40, depth=3)
    sizes = [(9, 13), (5, 20)]
    images, xstart = random_case(sizes)
    before, codes = torch.get_num_threads(), set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for chunk in (1, 7, 100, 4096):
            monkeypatch.setattr("ddpm.codec.last_stage.CHUNK", chunk)
            code = stage.encode(images, xstart, 5)
            codes.add(code)
            assert same(stage.decode(code, sizes, xstart, 5, True)[0], images)
    torch.set_num_threads(before)
    assert len(codes) == 1


SCRIPT = """
from stages import random_case, random_stage
stage = random_stage(width=64, depth=3)
images, xstart = random_case([(19, 23), (8, 40)])
code = stage.encode(images, xstart, 5)
import sys
known = bytes.fromhex(sys.argv[1])
found, _ = stage.decode(known, [(19, 23), (8, 40)], xstart, 5, True)
assert all((a == b).all() for a, b in zip(images, found))
print(code.hex())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "MKL_CBWR": "COMPATIBLE"},
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "OMP_NUM_THREADS": "1"},
    ],
)
def test_other_instructions_give_the_same_bytes(settings, tmp_path):
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    stage = random_stage(width=64, depth=3)
    code = stage.encode(*random_case([(19, 23), (8, 40)]), 5)
    environment = {**os.environ, **settings, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, code.hex()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == code.hex()


def test_tensors_are_all_that_it_is():
    stage = random_stage(2, 17)
    tensors = stage.tensors()
    assert all(name.startswith(PREFIX) for name in tensors)
    assert not any(tensor.is_floating_point() for tensor in tensors.values())
    other = LastStage.from_tensors({**tensors, "weights": torch.zeros(1)})
    images, xstart = random_case([(5, 5)], 2, 17)
    assert other.encode(images, xstart, 5) == stage.encode(images, xstart, 5)
    assert other.digest() == stage.digest()
    assert LastStage.from_tensors({"weights": torch.zeros(1)}) is None
    with pytest.raises(KeyError):
        LastStage.from_tensors({k: v for k, v in tensors.items() if not k.endswith("knots")})


def test_sums_that_float64_might_round_are_refused():
    stage = random_stage()
    network, last = stage.network, stage.network.layers[-1]
    hidden = CEILING << FRACTION
    used = int((last.weight.long().abs().sum(0) * hidden).max())
    for room, fine in ((2**53 - used - 1, True), (2**53, False), (-(2**63), False)):
        bias = torch.full_like(last.bias, room)
        layers = (*network.layers[:-1], Layer(last.weight, bias, last.bits))
        if fine:
            replace(network, layers=layers)
        else:
            with pytest.raises(DdpmError, match="float64"):
                replace(network, layers=layers)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 5},
        {"channels": 2},
        {"components": 17},
        {"components": 3},
        {"knots": np.array([2, 2, 9])},
        {"knots": np.array([2, 9])},
    ],
)
def test_parts_that_do_not_fit_are_refused(change):
    network = random_stage().network
    parts = {"channels": 3, "components": 4, "knots": KNOTS, **change}
    with pytest.raises(DdpmError):
        IntegerNetwork(**parts, skip=network.skip, layers=network.layers)


def test_images_and_predictions_that_do_not_fit_are_refused():
    stage = random_stage(1, 17)
    images, xstart = random_case([(5, 5)], 1, 17)
    for wrong in (images[0] + 100, images[0].repeat(3, 1, 1)):
        near = [xstart[0].repeat(len(wrong), 1, 1)]
        with pytest.raises(DdpmError, match="uint8 images of 1 channels"):
            stage.encode([wrong], near, 5)
    for wrong in ([], [xstart[0][:, :4]]):
        with pytest.raises(DdpmError, match="shape"):
            stage.encode(images, wrong, 5)
    with pytest.raises(DdpmError, match="finite"):
        stage.encode(images, [xstart[0] * float("nan")], 5)
    with pytest.raises(DdpmError):
        stage.encode([], [], 5)


def test_a_timestep_is_between_its_knots():
    assert timestep_features(3, KNOTS).tolist() == [[86, 42, 0]]
    for timestep, place in ((0, 0), (2, 0), (5, 1), (9, 2), (500, 2)):
        assert timestep_features(timestep, KNOTS)[0].nonzero()[0].tolist() == [place]
        assert timestep_features(timestep, KNOTS).sum() == 128
    assert features(3, 3) == 49 * 4 + 3 + 72
