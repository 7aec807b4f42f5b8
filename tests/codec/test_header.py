"""The file's header and its bits: what is written is read, and damage is seen."""

import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm.codec.bits import BitReader, BitWriter, EndOfData
from ddpm.codec.header import Header, Part, parse, varint
from ddpm.codec.route import Route
from ddpm.errors import DdpmError

SMALL = Header(0x123456, 1, None, None, None, False, (Part(1200, 0xABCDEF),))
LARGE = Header(
    0x123456,
    2,
    ((8, 8), (3, 400)),
    ("a.png", "b/ä.png"),
    Route((999, 400, 20), (900, 3000)),
    False,
    (Part(500, 0xABCDEF), Part(7, 0)),
)
SIZE = st.tuples(st.integers(1, 1 << 30), st.integers(1, 1 << 30))
PARTS = st.lists(st.tuples(st.integers(0, 2**34), st.integers(0, 2**24 - 1)), max_size=3)
FALLS = st.lists(st.tuples(st.integers(1, 99), st.integers(0, 2**20)), max_size=9)
NAME = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=9)


@given(
    model=st.integers(0, 2**28 - 1),
    sizes=st.none()
    | st.lists(SIZE, min_size=1, max_size=1)
    | st.lists(SIZE, min_size=3, max_size=3),
    names=st.none() | st.lists(NAME, min_size=3, max_size=3),
    falls=st.none() | FALLS,
    stored=st.booleans(),
    parts=PARTS,
    payload=st.binary(max_size=20),
)
def test_a_header_comes_back_with_what_follows_it(
    model, sizes, names, falls, stored, parts, payload
):
    route = falls if falls is None else Route.of_numbers([999, *itertools.chain(*falls)])
    header = Header(
        model,
        3,
        sizes and tuple(sizes),
        names and tuple(names),
        route,
        stored,
        tuple(Part(*part) for part in parts),
    )
    found, rest, _ = parse(header.pack() + payload)
    assert found == header
    assert rest == payload[: header.length]


@given(st.integers(0, 2**28 - 1), st.integers(0, 2**24 - 1), st.integers(0, 2**30))
def test_so_does_the_short_one_but_for_some_bits_of_the_fingerprint(model, check, length):
    header = Header(model, 1, None, None, None, False, (Part(length, check),))
    found, rest, _ = parse(header.pack() + bytes(3))
    assert found.parts == header.parts
    assert found.fits(model)
    assert not found.fits(model ^ 1 << 11)
    assert (found.model_bits, found.is_single) == (12, True)
    assert rest == bytes(min(3, length))


def test_one_small_image_has_a_header_of_eight_bytes():
    assert len(SMALL.pack()) == 8
    assert SMALL.pack() == bytes.fromhex("dd 62 45 ef cd ab b0 09")


def test_the_long_header_byte_by_byte():
    names = zlib.compress("a.png\0b/ä.png".encode(), 9)
    body = bytes.fromhex("dd 63 45 23 01")  # fingerprint 0x0123456
    body += bytes([1 + 2 + 8, 2])  # names, sizes, route; two images
    body += bytes([8, 8, 3]) + bytes.fromhex("90 03")
    body += bytes([3]) + bytes.fromhex("e7 07 d7 04 84 07 fc 02 b8 17")
    body += bytes([len(names)]) + names
    body += bytes([2]) + bytes.fromhex("ef cd ab f4 03 00 00 00 07")
    assert LARGE.pack() == body + (zlib.crc32(body) & 0xFFFF).to_bytes(2, "little")


def test_the_fingerprint_of_a_long_header_has_28_bits():
    assert LARGE.fits(0x123456)
    assert not LARGE.fits(0x123456 ^ 1 << 27)
    assert LARGE.fits(0x123456 | 1 << 28)


@pytest.mark.parametrize("header", [SMALL, LARGE])
def test_every_cut_of_a_header_is_refused(header):
    data = header.pack()
    for size in range(len(data)):
        with pytest.raises(DdpmError, match="cut off inside" if size else "not a file of"):
            parse(data[:size])


def test_every_flipped_bit_of_a_long_header_is_seen():
    data = LARGE.pack()
    for bit in range(8 * len(data)):
        damaged = bytearray(data + bytes(507))
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = parse(bytes(damaged)).header
        except DdpmError:
            continue
        assert bit == 8  # the other form, which has no check of its own but that of the pixels
        assert found.is_single


def test_a_file_of_the_first_format_names_the_release_that_reads_it():
    first = bytes.fromhex("dd5001") + bytes(20)
    for size in range(2, len(first)):
        with pytest.raises(DdpmError, match=r"first format, which ddpm 0\.1\.0 reads"):
            parse(first[:size])


def test_what_is_wrong_with_a_header_is_named():
    data = bytearray(SMALL.pack())
    data[1] = 0x64
    with pytest.raises(DdpmError, match="of a later version than this one, which reads version 2"):
        parse(bytes(data))
    for other in (b"\x89PNG\r\n", b""):
        with pytest.raises(DdpmError, match="not a file of"):
            parse(other)
    with pytest.raises(DdpmError, match="cut off inside its header"):
        parse(SMALL.pack()[:7])


def sealed(*numbers):
    """A long header of any numbers, with a right checksum."""
    body = bytes.fromhex("dd 63 45 23 01") + b"".join(varint(number) for number in numbers)
    return body + (zlib.crc32(body) & 0xFFFF).to_bytes(2, "little")


@pytest.mark.parametrize(
    "numbers",
    [
        (32, 1, 0),  # a flag that nobody knows
        (0, 0, 0),  # no images
        (0, (1 << 22) + 1, 0),  # too many
        (8, 1, 0, 0),  # a route of no steps
        (8, 1, 3, 5, 5, 1, 1, 1, 0),  # one that goes below 0
        (8, 1, 2, 5, 0, 1, 0),  # one that stands still
        (8, 1, 256, 999, *[1, 1] * 255, 0),  # too long
        (2, 3, 8, 8, 0),  # sizes for two of three
        (1, 1, 3, 1, 2, 3, 0),  # names that are no stream
    ],
)
def test_a_forged_header_is_refused(numbers):
    with pytest.raises(DdpmError, match=r"damaged|cut off"):
        parse(sealed(*numbers))


def test_a_forged_count_finds_no_room():
    for numbers in ((2, 1 << 22), (0, 1, 1 << 34), (8, 1, 1 << 34), (1, 1, 1 << 34)):
        with pytest.raises(DdpmError, match=r"cut off|damaged"):
            parse(sealed(*numbers))


def test_a_route_needs_falling_timesteps():
    assert Route.of_numbers(LARGE.route.numbers()) == LARGE.route
    assert (LARGE.route.steps, LARGE.route.last) == (3, 20)
    assert [LARGE.route.expected_bits(step, 5) for step in range(2)] == [281, 937]
    for timesteps, prices in (((5, 6), (1,)), ((6, 5), ()), ((), ()), ((5, -1), (1,))):
        with pytest.raises(DdpmError, match="falling timesteps"):
            Route(timesteps, prices)
    with pytest.raises(DdpmError, match="falling timesteps"):
        Route((6, 5), (-1,))


def test_a_number_takes_one_byte_for_every_seven_bits():
    assert varint(0) == b"\0"
    assert varint(127) == b"\x7f"
    assert varint(300) == b"\xac\x02"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2**20 - 1)), max_size=30))
def test_bits_come_back_and_take_the_room_they_say(pairs):
    widths = np.array([width for width, _ in pairs], dtype=np.int64)
    values = np.array([value & (1 << width) - 1 for width, value in pairs], dtype=np.int64)
    writer = BitWriter()
    writer.integers(values, widths)
    data = writer.bytes()
    assert len(data) == -(-int(widths.sum()) // 8)
    assert np.array_equal(BitReader(data).integers(widths), values)
    with pytest.raises(EndOfData):
        BitReader(data).integers(np.append(widths, 8))


@given(st.lists(st.integers(0, 2**20), max_size=30))
def test_gamma_codes_come_back_and_take_the_bits_they_say(values):
    writer = BitWriter()
    taken = sum(writer.gamma(value) for value in values)
    assert taken == sum(2 * (value + 1).bit_length() - 1 for value in values)
    reader = BitReader(writer.bytes())
    assert [reader.gamma() for _ in values] == values


def test_an_endless_gamma_code_is_damage_and_not_a_loop():
    with pytest.raises(DdpmError, match="damaged"):
        BitReader(bytes(1000)).gamma()


def test_the_reader_knows_where_it_is_also_after_the_end():
    writer = BitWriter()
    writer.integers(np.array([5]), np.array([3]))
    reader = BitReader(writer.bytes())
    assert reader.integers(np.array([3]))[0] == 5
    assert reader.position == 3
    with pytest.raises(EndOfData):
        reader.integers(np.array([6]))
    assert reader.position == 3
