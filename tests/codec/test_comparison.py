"""The codec beside its bound and other formats: what is told adds up."""

import json

import pytest

from ddpm.data.images import psnr
from ddpm.evaluation.codec import measure_codec
from ddpm.evaluation.codec_comparison import compare_codec
from ddpm.figures.codec_plots import comparison_pictures


@pytest.fixture(scope="module")
def comparison(model, held_out):
    return compare_codec(model, held_out[:8], steps=6, fractions=(0.3, 1.0), single=2)


def test_images_that_no_byte_has_reached_count_as_grey(model, held_out, monkeypatch):
    monkeypatch.setattr("ddpm.codec.parts.PART", 16)  # four digits
    figures = measure_codec(model, held_out[:8], steps=3, fractions=(0.1, 0.9, 1.0), single=1)
    first, later, whole = figures.prefixes
    assert [len(prefix.images) for prefix in figures.prefixes] == [8, 8, 8]
    assert all(bool((image == 8).all()) for image in first.images[4:])
    assert not any(bool((image == 8).all()) for image in later.images)
    assert first.mse > later.mse > whole.mse == 0


def test_the_parts_of_the_archive_add_up_to_it(comparison):
    rows = dict(comparison.size_rows())
    parts = [float(value) for name, value in rows.items() if name.startswith("- ")]
    assert sum(parts) == pytest.approx(float(rows["this codec, one archive"]), abs=2e-3)
    assert float(rows["bound, 20 optimal steps"]) > 0


def test_a_format_is_compared_within_the_bytes_of_the_prefix(comparison):
    for prefix, row in zip(comparison.figures.prefixes, comparison.prefix_rows(), strict=True):
        for name, cell in zip(comparison.prefix_head()[4:], row[4:], strict=True):
            fitting = [m for size, m in comparison.lossy[name] if size <= prefix.bytes]
            assert cell == (f"{psnr(min(fitting)):.2f}" if fitting else "")
    assert comparison.prefix_rows()[-1][3] == "exact"


def test_the_document_is_json_and_the_pictures_are_there(comparison):
    document = json.loads(json.dumps(comparison.document()))
    assert document["archive_bytes"] == comparison.figures.archive
    assert 8 * document["archive_bytes"] / document["values"] == document["bits_per_dim"]
    pictures = comparison_pictures(comparison)
    assert set(pictures) == {"codec", "prefixes"}
    assert min(pictures["prefixes"].size) > 8
