"""Whole files: exact to the last bit, useful from the first byte, refused when they do not fit."""

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm.codec import decompress_beginnings
from ddpm.codec.header import MODEL_BITS, Header, Part, parse
from ddpm.codec.route import Route
from ddpm.codec.transmission import Spent, Walk
from ddpm.diffusion.schedule import schedule_from_betas
from ddpm.errors import DdpmError
from ddpm.evaluation.codec import measure_codec
from ddpm.loading import load
from helpers import measured_model, tiny_images, tiny_model


def fingerprint(model):
    """That a file of this model carries."""
    return model.for_codec().fingerprint


def all_equal(a, b):
    """The same images in the same order."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
def test_an_archive_gives_its_images_back_and_says_where_its_bits_went(model, held_out):
    spent = Spent()
    data = model.compress(list(held_out), spent=spent)
    result = model.decompress(data)
    assert result.exact
    assert all_equal(result.images, list(held_out))
    header, payload, _ = parse(data)
    assert result.steps == len(spent.path) + 1
    assert result.numbers == list(range(40))
    assert header.count == 40
    assert header.length == len(payload)
    bits = sum(spent.path) + sum(spent.side) + spent.pixels
    assert 0 <= 8 * len(payload) - bits < 8
    assert 0.9 < sum(spent.delivered) / sum(spent.kl) < 1.1
    assert sum(spent.path) < 1.25 * sum(spent.kl)


@pytest.mark.parametrize("steps", [2, 3, 12])
def test_any_number_of_steps_is_exact(model, held_out, steps):
    data = model.compress(list(held_out[:3]), steps=steps)
    assert all_equal(model.decompress(data).images, list(held_out[:3]))


@pytest.mark.parametrize("reconstruct", ["mean", "sample", "average"])
@pytest.mark.parametrize("steps", [2, 5])
def test_beginnings_decoded_in_one_walk_are_those_decoded_each(model, held_out, steps, reconstruct):
    file = parse(model.compress(list(held_out[:3]), steps=steps))
    whole = len(file.payload)
    lengths = [0, 0, 1, *range(5, whole, whole // 12), whole - 1, whole]
    decoded = decompress_beginnings(model.for_codec(), file, lengths, reconstruct=reconstruct)
    for length, part in zip(lengths, decoded, strict=True):
        alone = model.decompress(
            file._replace(payload=file.payload[:length]), reconstruct=reconstruct
        )
        assert (part.steps, part.exact) == (alone.steps, alone.exact)
        assert all_equal(part.images, alone.images)
    assert [part.exact for part in decoded] == [False] * (len(lengths) - 1) + [True]
    assert len({part.steps for part in decoded}) == steps + 1


@pytest.mark.parametrize("lengths", [[3, 2], [-1], [0, 10**6]])
def test_beginnings_that_are_none_are_refused(model, held_out, lengths):
    file = parse(model.compress([held_out[0]]))
    with pytest.raises(DdpmError, match="must rise from 0"):
        decompress_beginnings(model.for_codec(), file, lengths)


@pytest.mark.slow
def test_every_cut_of_a_single_file_decodes(model, held_out):
    for image in held_out[:3]:
        data = model.compress([image])
        start = len(data) - len(parse(data)[1])
        assert start in (7, 8)
        errors = []
        for size in range(start, len(data)):
            result = model.decompress(data[:size])
            assert not result.exact
            errors.append(float((result.images[0].float() - image.float()).square().mean()))
        assert errors[-1] < errors[0]
        for size in range(start):
            with pytest.raises(DdpmError):
                model.decompress(data[:size])


@pytest.mark.slow
def test_an_archive_gets_better_with_every_tenth_of_it(model, held_out):
    data = model.compress(list(held_out), steps=10)
    errors = []
    for part in range(1, 11):
        images = torch.stack(model.decompress(data[: len(data) * part // 10]).images)
        errors.append(float((images.float() - held_out.float()).square().mean()))
    assert errors[-1] == 0
    assert all(later <= 1.05 * earlier for earlier, later in itertools.pairwise(errors))
    assert errors[4] < 0.5 * errors[0]


def test_a_part_can_be_completed_with_likely_detail(model, held_out):
    data = model.compress(list(held_out), steps=10)
    part = data[: len(data) // 8]
    mean, sample = model.decompress(part), model.decompress(part, reconstruct="sample")
    assert mean.steps == sample.steps < 10
    assert not all_equal(mean.images, sample.images)

    def error(images):
        return float((torch.stack(images).float() - held_out.float()).square().mean())

    assert error(mean.images) < error(sample.images)
    whole = model.decompress(data, reconstruct="sample")
    assert whole.exact


def test_exact_pixels_stay_and_the_others_are_completed(model, held_out):
    file = parse(model.compress(list(held_out), steps=5))
    whole = len(file.payload)
    lengths = [whole * part // 20 for part in range(20)]
    shown = {
        kind: decompress_beginnings(model.for_codec(), file, lengths, reconstruct=kind)
        for kind in ("mean", "sample", "average")
    }
    inside = [i for i, part in enumerate(shown["mean"]) if part.steps == 4]
    assert len(inside) > 3
    wrong = {
        kind: [int((torch.stack(parts[i].images) != held_out).sum()) for i in inside]
        for kind, parts in shown.items()
    }
    for i in inside[1:]:
        first = [parts[i].images[0][0, 0, 0] for parts in shown.values()]
        assert first == [held_out[0, 0, 0, 0]] * 3  # the first wave of the last stage
        different = [torch.stack(parts[i].images) for parts in shown.values()]
        assert not torch.equal(different[0], different[1])
        assert not torch.equal(different[1], different[2])
    for counts in wrong.values():
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] < 0.2 * counts[0]


def test_images_of_all_sizes_in_one_file(model):
    sizes = [(8, 8), (1, 1), (3, 17), (20, 5)]
    images = [torch.randint(0, 17, (1, *size), dtype=torch.uint8) for size in sizes]
    data = model.compress(images, steps=3)
    assert all_equal(model.decompress(data).images, images)
    assert parse(data)[0].sizes == tuple(sizes)
    part = model.decompress(data[: len(data) - 40])
    assert not part.exact
    assert [tuple(image.shape[1:]) for image in part.images] == sizes


def test_colour_images_through_a_colour_model():
    model = measured_model(8, channels=3)
    images = list(colours(5, 1).images)
    assert all_equal(model.decompress(model.compress(images)).images, images)
    with pytest.raises(DdpmError, match="images of 3 channels"):
        model.compress([images[0][:1]])


def colours(n, seed):
    """Random colour images."""
    return tiny_images(n, channels=3, seed=seed)


@pytest.mark.slow
def test_another_process_with_other_threads_decodes(model, run, held_out, tmp_path):
    data = model.compress(list(held_out))
    (tmp_path / "file").write_bytes(data)
    program = (
        "import sys, torch; torch.set_num_threads(1); from ddpm import load;"
        "result = load(sys.argv[1]).decompress(open(sys.argv[2], 'rb').read());"
        "torch.save((result.exact, torch.stack(result.images)), sys.argv[3])"
    )
    arguments = [str(run), str(tmp_path / "file"), str(tmp_path / "images")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    exact, images = torch.load(tmp_path / "images")
    assert exact
    assert torch.equal(images, held_out)


def test_a_machine_that_never_repeats_itself_still_writes_a_file_that_decodes(
    model, held_out, monkeypatch
):
    real, calls = Walk.predict, []

    def unsteady(self, x, index):
        calls.append(index)
        return real(self, x + 1e-2 * len(calls), index)

    monkeypatch.setattr(Walk, "predict", unsteady)
    data = model.compress(list(held_out[:4]))
    assert parse(data).header.stored
    result = model.decompress(data)
    assert result.exact
    assert all_equal(result.images, list(held_out[:4]))
    part = model.decompress(data[: len(data) // 2])
    assert not part.exact
    assert 0 < len(part.images) < 4


@pytest.mark.slow
def test_a_damaged_payload_is_told_and_not_shown_as_exact(model, held_out):
    data = bytearray(model.compress(list(held_out[:2])))
    told = []
    for place in range(16, len(data)):
        damaged = data.copy()
        damaged[place] ^= 1
        try:
            assert all_equal(model.decompress(bytes(damaged)).images, list(held_out[:2]))
        except DdpmError as error:
            told.append(str(error))
    assert all("damaged" in sentence for sentence in told)
    assert len(told) > 0.9 * (len(data) - 16)


def test_the_file_names_the_model_it_needs(model, held_out):
    data = model.compress([held_out[0]])
    measured = {"denoising_error": model.denoising_error, "coding": model.coding}
    other = replace(tiny_model(seed=5), **measured)
    assert fingerprint(model) != fingerprint(other)
    needed = f"{fingerprint(model) % 4096:03x}"
    with pytest.raises(DdpmError, match=f"needs the model with fingerprint {needed}"):
        other.decompress(data)


def changed_weight(model):
    next(iter(model.network.parameters())).data.view(-1)[0] += 1e-6
    return model


def with_tables(model, pixels=1.0, frequencies=1.0, colours=1.0):
    """The model with its denoising errors, in either coordinates, times something."""
    error = model.denoising_error
    spectral = replace(
        error.spectral,
        xstart_mse=error.spectral.xstart_mse * np.float32(frequencies),
        colours=error.spectral.colours * np.float32(colours),
    )
    error = replace(error, xstart_mse=error.xstart_mse * np.float32(pixels), spectral=spectral)
    return replace(model, denoising_error=error)


def changed_error(model):
    return with_tables(model, 1.001, 1.001)


def changed_kind(model):
    return replace(model, coding=replace(model.coding, spectral=not model.coding.spectral))


def changed_route(model):
    route = model.coding.route
    prices = (route.prices[0] + 1, *route.prices[1:])
    return replace(model, coding=replace(model.coding, route=replace(route, prices=prices)))


def changed_stage(model):
    stage = model.coding.last_stage
    stage.network.layers[0].weight.view(-1)[0] ^= 1
    return model


def changed_betas(model):
    schedule = schedule_from_betas(model.diffusion.schedule.betas * 1.001)
    return replace(model, diffusion=replace(model.diffusion, schedule=schedule))


@pytest.mark.parametrize(
    "change",
    [
        changed_weight,
        changed_error,
        changed_kind,
        changed_route,
        changed_stage,
        changed_betas,
        lambda model: replace(model, format=replace(model.format, levels=16)),
        lambda model: replace(model, diffusion=replace(model.diffusion, clip_sample=False)),
    ],
)
def test_the_fingerprint_is_of_everything_the_decoder_uses(run, model, change):
    assert fingerprint(load(run)) == fingerprint(model)
    assert fingerprint(change(load(run))) != fingerprint(model)


def test_the_fingerprint_is_of_nothing_that_the_decoder_does_not_use(run):
    for spectral in (False, True):
        model = load(run)
        model = replace(model, coding=replace(model.coding, spectral=spectral))
        other = {"pixels": 2.0} if spectral else {"frequencies": 2.0, "colours": -1.0}
        for same in (
            with_tables(model),
            with_tables(model, **other),
            replace(model, precision="bf16"),
            replace(model, coding=replace(model.coding, margin=1.0, ends={5: 1.0})),
        ):
            assert fingerprint(same) == fingerprint(model)
    assert fingerprint(with_tables(model, colours=-1.0)) != fingerprint(model)


BAD = {
    "no images": ([], {}, "no images"),
    "levels": (
        [torch.full((1, 8, 8), 17, dtype=torch.uint8)],
        {},
        r"0\.\.16, but .* have 17",
    ),
    "no pixels": ([torch.zeros(1, 0, 8, dtype=torch.uint8)], {}, "without pixels"),
    "steps": ([torch.zeros(1, 8, 8, dtype=torch.uint8)], {"steps": 21}, r"2\.\.\d+, got 21"),
    "negative": ([torch.zeros(1, 8, 8, dtype=torch.uint8)], {"steps": -1}, r"2\.\.\d+, got -1"),
    "last": (
        [torch.zeros(1, 8, 8, dtype=torch.uint8)],
        {"last_timestep": 19},
        "was trained, got 19",
    ),
    "a name too few": ([torch.zeros(1, 8, 8, dtype=torch.uint8)], {"names": []}, "1 images and 0"),
    "a bad name": (
        [torch.zeros(1, 8, 8, dtype=torch.uint8)],
        {"names": ["../x"]},
        "leads out of the folder",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_compressed_is_refused(model, name):
    images, options, words = BAD[name]
    with pytest.raises(DdpmError, match=words):
        model.compress(images, **options)


def forged(model, **changes):
    """A file of nothing whose header is sound and says this."""
    said = {"count": 1, "sizes": None, "names": None, "route": model.coding.route, "stored": False}
    low = fingerprint(model) % (1 << MODEL_BITS)
    return Header(low, **said | {"parts": (Part(0, 0),)} | changes).pack()


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 1 << 22},
        {"sizes": ((1 << 34, 1 << 34),)},
        {"sizes": (((1 << 28) + 1, 1),)},
        {"sizes": ((1, 1 << 30),), "stored": True},
        {"count": 2, "sizes": ((8, 8), (0, 8))},
        {"route": Route((18, 5), (100,))},
        {"route": Route((20, 5), (100,))},
        {"parts": ()},
        {"parts": (Part(0, 0),) * 2},
        {"count": 1025},
    ],
)
def test_a_header_cannot_ask_for_more_than_a_file_may_hold(model, changes):
    with pytest.raises(DdpmError, match="damaged"):
        model.decompress(forged(model, **changes))


def test_progress_ends_at_its_own_total(model, held_out):
    done = []
    data = model.compress(
        list(held_out[:3]), steps=4, progress=lambda n, total, label: done.append((n, total))
    )
    assert [n for n, _ in done][:: len(done) - 1] == [0, 24]
    assert {total for _, total in done} == {24}
    done.clear()
    model.decompress(data, progress=lambda n, total, label: done.append((n, total)))
    assert [n for n, _ in done][:: len(done) - 1] == [0, 12]
    assert {total for _, total in done} == {12}


@pytest.mark.slow
def test_the_figures_of_the_codec_add_up(model, held_out):
    figures = measure_codec(model, held_out[:6], steps=4, single=2, fractions=(0.5, 1.0))
    assert sum(figures.split().values()) == pytest.approx(8 * figures.archive / (6 * 64))
    assert figures.archive == len(model.compress(list(held_out[:6]), steps=4))
    assert figures.single == [len(model.compress([image])) for image in held_out[:2]]
    assert 0 < figures.network < figures.decode
    assert figures.prefixes[-1].mse == 0
    levels = 255 / 16
    expected = np.mean(
        [
            np.square((a.float() - b.float()).numpy() * levels).mean()
            for a, b in zip(figures.prefixes[0].images, held_out[:6], strict=True)
        ]
    )
    assert figures.prefixes[0].mse == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 64 digits, so that a few more make two."""
    monkeypatch.setattr("ddpm.codec.parts.PART", 64)


def many(n, seed=0):
    """Images of the model's size and a long one."""
    random = torch.Generator().manual_seed(seed)
    images = [
        torch.randint(0, 17, (1, 8, 8), generator=random, dtype=torch.uint8) for _ in range(n)
    ]
    return [*images, torch.randint(0, 17, (1, 300, 8), generator=random, dtype=torch.uint8)]


@pytest.mark.slow
def test_one_image_of_many_parts_is_read_without_the_others(model, small_parts):
    images = many(70)
    data = model.compress(images, steps=2)
    file = parse(data)
    assert len(file.header.parts) == 2
    walked = []
    for number in (0, 63, 64, 70):
        one = model.decompress(
            file, only=[number], progress=lambda done, total, label: walked.append(total)
        )
        assert one.exact
        assert one.numbers == [number]
        assert torch.equal(one.images[0], images[number])
    assert list(dict.fromkeys(walked)) == [2 * 64, 2 * (6 + 38)]


@pytest.mark.slow
def test_a_beginning_shows_every_image_of_the_parts_that_it_reaches(model, small_parts):
    images = many(70)
    file = parse(model.compress(images, steps=2))
    first = file.header.parts[0].length
    for length, count in ((0, 64), (first - 1, 64), (first, 64), (first + 1, 71)):
        part = model.decompress(file._replace(payload=file.payload[:length]))
        assert part.numbers == list(range(count))
        assert not part.exact
    exact = model.decompress(file._replace(payload=file.payload[: first + 1])).images[:64]
    assert all_equal(exact, images[:64])


@pytest.mark.slow
def test_damage_in_one_part_leaves_the_others(model, small_parts):
    images = many(70)
    file = parse(model.compress(images, steps=2))
    place = file.header.parts[0].length - 20
    payload = bytearray(file.payload)
    payload[place] ^= 1
    damaged = file._replace(payload=bytes(payload))
    with pytest.raises(DdpmError, match="images 0 to 63 of the file"):
        model.decompress(damaged)
    assert torch.equal(model.decompress(damaged, only=[70]).images[0], images[70])


def test_names_come_back(model, held_out):
    names = ["a.png", "b/ä.jpg"]
    data = model.compress(list(held_out[:2]), names=names)
    assert parse(data).header.names == tuple(names)
    assert model.decompress(data).exact
