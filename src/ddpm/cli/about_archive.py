"""What a file of `ddpm compress` says of itself, without the model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddpm.cli.outcome import tell
from ddpm.codec import parse
from ddpm.codec.header import GENERAL, MAGIC, SINGLE, File, Header
from ddpm.codec.names import FORBIDDEN

LISTED = 20  # names that are shown


def is_archive(path: Path) -> bool:
    """Whether a file begins as ours do, of any version; the ninth byte of a checkpoint is {."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(9)
    known = len(start) > 1 and start[1] & 15 in (0, SINGLE, GENERAL)
    return start[:1] == bytes([MAGIC]) and (known or start[8:] != b"{")


def about_archive(path: Path) -> None:
    """Print what it holds and what it needs.

    Raises:
        DdpmError: it is cut inside its header, damaged, or of the first format.
    """
    data = path.read_bytes()
    file = parse(data)
    header = file.header
    table = Table(title=escape(str(path)), show_header=False)
    table.add_row("format", "2, in its short form" if header.is_single else "2")
    tell(
        format=2,
        images=header.count,
        bytes=len(data),
        missing=header.length - len(file.payload),
        surplus=file.surplus,
        **dict(rows(file, len(data))[1:2]),
        steps=None if header.route is None else header.route.timesteps,
        names=header.names,
    )
    for key, value in rows(file, len(data)):
        table.add_row(key, escape(value))
    missing = header.length - len(file.payload)
    if file.surplus:
        table.add_row("after its end", f"{file.surplus:,} bytes that are no part of it")
    table.add_row("complete", "yes" if not missing else f"no, {missing:,} bytes are missing")
    Console().print(table)


def rows(file: File, size: int) -> list[tuple[str, str]]:
    """Names and values."""
    header, before = file.header, size - len(file.payload) - file.surplus
    digits = header.model_bits // 4
    found = [
        ("images", f"{header.count:,}"),
        ("sizes", sizes_of(header)),
        ("bytes", f"{size:,}, {before:,} of them the header"),
        ("parts", f"{len(header.parts):,}, decoded one by one"),
        ("needs the model", f"whose fingerprint ends in {header.model:0{digits}x}"),
    ]
    if header.stored:
        found.append(("how", "stored without the model"))
    elif header.route is None:
        found.append(("steps", "those that the model keeps for a single image"))
    else:
        steps = ", ".join(map(str, header.route.timesteps))
        found.append(("steps", f"{header.route.steps}, at t = {steps} (from 0)"))
    if header.names is not None:
        more = f", and {header.count - LISTED:,} more (--json tells all)" * (header.count > LISTED)
        # Anybody may have made the file, and a name might steer the terminal.
        shown = [repr(name) if FORBIDDEN.search(name) else name for name in header.names[:LISTED]]
        found.append(("names", ", ".join(shown) + more))
    return found


def sizes_of(header: Header) -> str:
    """The sizes of the images, the most common ones first."""
    if header.sizes is None:
        return "that of the model's images"
    if len(header.sizes) == 1:
        height, width = header.sizes[0]
        return f"{height}x{width}"
    common = Counter(header.sizes).most_common(5)
    words = ", ".join(f"{height}x{width} ({count:,})" for (height, width), count in common)
    return words + ", and others" * (len(set(header.sizes)) > len(common))
