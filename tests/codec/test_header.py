"""The file's header and its bits: what is written is read, and damage is seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm.codec.bits import BitReader, BitWriter, EndOfData
from ddpm.codec.header import Header, parse, varint
from ddpm.errors import DdpmError

SMALL = Header(0x123456, 0xDEADBEEF, 5, 2, 1, None, 30)
FIELDS = st.tuples(
    st.integers(0, 2**24 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 255),
    st.integers(1, 64),
    st.just(2),
    st.none() | st.tuples(*[st.tuples(st.integers(1, 9999), st.integers(1, 9999))] * 2),
    st.integers(0, 2**30),
)


@given(fields=FIELDS, payload=st.binary(max_size=20))
def test_a_header_comes_back_with_what_follows_it(fields, payload):
    header = Header(*fields)
    found, rest = parse(header.pack() + payload)
    assert found == header
    assert rest == payload[: header.length]


def test_one_small_image_has_a_header_of_fifteen_bytes():
    assert len(SMALL.pack()) == 15


def test_every_cut_of_a_header_is_refused():
    data = SMALL.pack()
    for size in range(len(data)):
        with pytest.raises(DdpmError):
            parse(data[:size])


def test_every_flipped_bit_of_a_header_is_seen():
    data = SMALL.pack() + bytes(30)
    for bit in range(8 * len(SMALL.pack())):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DdpmError):
            parse(bytes(damaged))


def test_what_is_wrong_with_a_header_is_named():
    data = bytearray(SMALL.pack())
    data[2] = 9
    with pytest.raises(DdpmError, match=r"format version 9.*reads version 1"):
        parse(bytes(data))
    with pytest.raises(DdpmError, match="not a file of"):
        parse(b"\x89PNG\r\n")
    with pytest.raises(DdpmError, match="not a file of"):
        parse(b"")
    with pytest.raises(DdpmError, match="cut off inside its header"):
        parse(SMALL.pack()[:8])


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
