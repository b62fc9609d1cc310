"""The spellings in which a value may lie in a file: what to look for, and what to look into."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa

MEMBER_LIMIT = 1 << 30
"""A member that unpacks to more bytes than this is not opened, but named."""
MAX_DEPTH = 4

_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX_RUN = re.compile(rb"(?:[0-9a-fA-F]{2}){12,}")
_JSON_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})")
_URL_ESCAPE = re.compile(rb"%[0-9a-fA-F]{2}")
_WIDE = re.compile(rb"(?:[\x20-\x7e]\x00){8,}|(?:\x00[\x20-\x7e]){8,}")


class Unopened(Exception):
    """A packed member that cannot be read: damaged, too large, packed too often."""


def spellings(value: str) -> dict[str, tuple[bytes, ...]]:
    """Encoding → the byte strings, in lower case where case does not count, whose presence means the value is there."""
    plain = value.encode()
    found = {
        "plain": (plain,),
        "upper": (value.upper().encode(), value.lower().encode()),
        "base64": tuple(_base64_cores(plain)),
        "hex": (plain.hex().encode(), plain.hex().upper().encode()),
        "url": (quote(value, safe="").encode(), quote(value, safe="").lower().encode()),
        "utf-16": (
            value.encode("utf-16-le"),
            value.encode("utf-16-be"),
            *_base64_cores(value.encode("utf-16-le")),
        ),
        "json": (json.dumps(value)[1:-1].encode(), json.dumps(value).replace("/", "\\/")[1:-1].encode()),
    }
    seen: set[bytes] = set()
    result: dict[str, tuple[bytes, ...]] = {}
    for encoding, forms in found.items():
        new = tuple(form for form in dict.fromkeys(forms) if len(form) >= 4 and form not in seen)
        seen.update(new)
        if new:
            result[encoding] = new
    return result


def _base64_cores(plain: bytes) -> Iterator[bytes]:
    """What base64 makes of the value wherever it stands in a longer text: three alignments, both alphabets."""
    for shift in range(3):
        packed = base64.b64encode(b"\0" * shift + plain)
        start = (0, 2, 3)[shift]
        end = len(packed) - (0, 3, 2)[(shift + len(plain)) % 3]
        core = packed[start:end]
        yield core
        yield core.replace(b"+", b"-").replace(b"/", b"_")


def views(content: bytes) -> Iterator[tuple[str, bytes]]:
    """(encoding, bytes) for every other reading of a content in which a pattern may show."""
    if wide := b"\n".join(match.group(0).replace(b"\0", b"") for match in _WIDE.finditer(content)):
        yield "utf-16", wide
    if _URL_ESCAPE.search(content):
        yield "url", unquote_to_bytes(content)
    if b"\\u" in content:
        yield "json", _JSON_ESCAPE.sub(lambda match: chr(int(match[1], 16)).encode("utf-8", "replace"), content)
    unhexed: list[bytes] = []
    decoded: list[bytes] = []
    unpacked: list[bytes] = []
    for match in _HEX_RUN.finditer(content):
        unhexed.append(binascii.unhexlify(match.group(0)))
    for match in _BASE64_RUN.finditer(content):
        text = match.group(0).rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        text = text[: len(text) - (len(text) % 4 == 1)]
        decoded.append(base64.b64decode(text + b"=" * (-len(text) % 4)))
    for packed in (*unhexed, *decoded):
        with suppress(Unopened):  # a run that only begins like an archive is none
            unpacked += [inner for _, inner in members(packed)]
    if unpacked:
        yield "packed text", b"\n".join(unpacked)
    if unhexed:
        yield "hex", b"\n".join(unhexed)
    if decoded:
        yield "base64", b"\n".join(decoded)


def members(content: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """(how it was packed, bytes) for what a content holds packed: gzip, zstd, zip, one inside the other.

    Raises:
        Unopened: a member is damaged, unpacks to more than MEMBER_LIMIT, or lies deeper than MAX_DEPTH.
    """
    kind = _packing(content)
    if kind is None:
        return
    if depth >= MAX_DEPTH:
        raise Unopened("packed too often")
    try:
        unpacked = list(_unpack(kind, content))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowException, RuntimeError, ValueError) as error:
        raise Unopened(f"{kind}: {type(error).__name__}") from None
    for inner in unpacked:
        yield kind, inner
        for deeper, bytes_ in members(inner, depth + 1):
            yield f"{kind}/{deeper}", bytes_


def _packing(content: bytes) -> str | None:
    if content.startswith(b"\x1f\x8b"):
        return "gzip"
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    if content.startswith(b"PK\x03\x04"):
        return "zip"
    return None


def _unpack(kind: str, content: bytes) -> Iterator[bytes]:
    if kind == "gzip":
        with gzip.open(io.BytesIO(content)) as packed:
            yield _limited(packed.read(MEMBER_LIMIT + 1))
    elif kind == "zstd":
        with pa.input_stream(pa.BufferReader(content), compression="zstd") as stream:
            yield _limited(stream.read(MEMBER_LIMIT + 1))
    else:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.infolist():
                with archive.open(name) as packed:
                    yield _limited(packed.read(MEMBER_LIMIT + 1))


def _limited(content: bytes) -> bytes:
    if len(content) > MEMBER_LIMIT:
        raise ValueError("larger than MEMBER_LIMIT")
    return content
