"""One document of BSON as the row it lands as, live or from a file: its id, its cursor, its text, or what is wrong."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any, TypeAlias

import bson
import orjson
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS

Row: TypeAlias = tuple[str | None, str | None, str | None, str | None]
"""`_id`, `cursor_at`, `doc`, `problem`."""

_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, tzinfo=UTC, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_LENIENT = _CODEC.with_options(unicode_decode_error_handler="replace")


def document_row(raw: bytes, cursor: tuple[str, ...]) -> tuple[Row, object]:
    """The row of one document, and the value at the path `cursor`. A problem never quotes a value."""
    try:
        document = bson.decode(raw, codec_options=_CODEC)
    except (bson.errors.InvalidBSON, ValueError):
        return (_position(raw), None, None, "undecodable document"), None
    value: Any = document
    for step in cursor:
        value = value.get(step) if isinstance(value, dict) else None
    cursor_at = _json_value(value) if isinstance(value, datetime) else (value if isinstance(value, str) else None)
    try:
        text = orjson.dumps(_exact(document), default=_json_value, option=orjson.OPT_UTC_Z).decode()
    except (TypeError, ValueError):
        return (str(document.get("_id")), cursor_at, None, "a value has no JSON form"), value
    return (str(document.get("_id")), cursor_at, text, None), value


def _position(raw: bytes) -> str | None:
    """The `_id` of a document that cannot be decoded as a whole."""
    try:
        return str(bson.decode(raw, codec_options=_LENIENT).get("_id"))
    except (bson.errors.InvalidBSON, ValueError):
        return None


def _exact(value: Any) -> Any:
    """Floats that JSON has no number for keep their name: a silent null would be a lost value."""
    if isinstance(value, dict):
        return {key: _exact(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_exact(child) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _json_value(value: Any) -> Any:
    """What orjson has no form for. Binary, regular expressions and the like become extended JSON: an object, where
    the pinned schema has a scalar or nothing, so that the boundary lets only a token of it through.
    """
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, DatetimeMS):
        return f"{int(value)}ms"
    if isinstance(value, bson.ObjectId | bson.Decimal128 | bson.Int64):
        return str(value)
    return json.loads(json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS))
