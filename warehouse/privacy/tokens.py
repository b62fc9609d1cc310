"""Pseudonyms: HMAC-SHA256 under a versioned key, domain-separated, canonicalised first; null stays null.

`install` brings the same function into SQL, so that a million values cost one query and never enter Python.
The key reaches SQL as two 64-byte blocks in connection variables (RFC 2104: inner and outer pad), which no other
connection sees, which no query text contains, and without which the macro raises.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import string
import unicodedata

import duckdb

from warehouse.core.keys import file_key
from warehouse.core.settings import Settings

VERSION = "v1"
_BLOCK = 64

_SPACE = " \t\n\r\f\v"
_UPPER = string.ascii_uppercase
_LOWER = string.ascii_lowercase
_TO_LOWER = str.maketrans(_UPPER, _LOWER)
_TO_UPPER = str.maketrans(_LOWER, _UPPER)

# Trimming, folding and spaces are ASCII only: engines disagree on the rest, and a token must be the same on all.
# Most values are ASCII with nothing to trim, and are spared what goes character by character: trim, translate, NFC.
_CANONICAL_SQL = f"""
    case domain
        when 'email' then case when is_tidy(m) then lower(m) else folded(trim(m, '{_SPACE}')) end
        when 'phone' then regexp_replace(m, '[^0-9+]', '', 'g')
        when 'pan' then regexp_replace(m, '[^0-9]', '', 'g')
        when 'ip' then split_part(case when is_tidy(m) then lower(m) else folded(trim(m, '{_SPACE}')) end, '/', 1)
        when 'postal_code' then regexp_replace(
            case when is_ascii(m) then upper(m) else translate(m, '{_LOWER}', '{_UPPER}') end, '[{_SPACE}-]', '', 'g'
        )
        when 'name' then case
            when is_tidy(m) and not regexp_matches(m, '[{_SPACE.strip(" ")}]|  ') then lower(m)
            else folded(regexp_replace(trim(nfc(m), '{_SPACE}'), '[{_SPACE}]+', ' ', 'g'))
        end
        else case when is_tidy(m) then m else trim(nfc(m), '{_SPACE}') end
    end
"""

_MACROS = (
    # nfc_normalize forgets what follows a NUL, so that two values would share one token
    """create or replace temp macro nfc(m) as (
        case
            when contains(m, chr(0))
                then array_to_string(list_transform(string_split(m, chr(0)), lambda part: nfc_normalize(part)), chr(0))
            else nfc_normalize(m)
        end
    )""",
    "create or replace temp macro is_ascii(m) as (strlen(m) = length(m))",
    "create or replace temp macro is_tidy(m) as (is_ascii(m) and left(m, 1) > ' ' and right(m, 1) > ' ')",
    f"create or replace temp macro folded(m) as (translate(m, '{_UPPER}', '{_LOWER}'))",
    f"create or replace temp macro canonical(domain, m) as ({_CANONICAL_SQL})",
    # a CASE per pad, which is decided once, and none around the token: inside one, DuckDB computes again what it has
    """create or replace temp macro token_pad(name) as (
        case
            when getvariable(name) is null then error('the token key is not set on this connection')::blob
            else getvariable(name)::blob
        end
    )""",
    f"""create or replace temp macro pseudonymise(domain, m) as (
        '{VERSION}:' || sha256(
            token_pad('token_outer')
            || unhex(sha256(token_pad('token_inner') || encode(domain || '|') || encode(canonical(domain, m))))
        )
    )""",
)


def token_key(settings: Settings) -> bytes:
    """The pseudonym key, 32 bytes. Raises ConfigurationError when missing or short."""
    return base64.b64decode(file_key(settings, "token_v1"))


def canonical(domain: str, value: str) -> str:
    """The form in which two spellings of one value are equal; the same rules as in SQL."""
    match domain:
        case "email":
            return value.strip(_SPACE).translate(_TO_LOWER)
        case "phone":
            return re.sub(r"[^0-9+]", "", value)
        case "pan":
            return re.sub(r"[^0-9]", "", value)
        case "ip":
            return value.strip(_SPACE).split("/")[0].translate(_TO_LOWER)
        case "postal_code":
            return re.sub(f"[{_SPACE}-]", "", value).translate(_TO_UPPER)
        case "name":
            folded = re.sub(f"[{_SPACE}]+", " ", unicodedata.normalize("NFC", value).strip(_SPACE))
            return folded.translate(_TO_LOWER)
        case _:
            return unicodedata.normalize("NFC", value).strip(_SPACE)


def pseudonym(key: bytes, domain: str, value: str | None) -> str | None:
    """One value's token, `v1:` and 64 hex digits: the reference that the SQL is tested against."""
    if value is None:
        return None
    message = f"{domain}|{canonical(domain, value)}".encode()
    return f"{VERSION}:{hmac.new(key, message, hashlib.sha256).hexdigest()}"


def install(connection: duckdb.DuckDBPyConnection, key: bytes) -> None:
    """Define `pseudonymise(domain, value)` on this connection and give it its key."""
    block = key.ljust(_BLOCK, b"\0") if len(key) <= _BLOCK else hashlib.sha256(key).digest().ljust(_BLOCK, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in block).hex() for pad in (0x36, 0x5C))
    connection.execute("set variable token_inner = unhex($pad)", {"pad": inner})
    connection.execute("set variable token_outer = unhex($pad)", {"pad": outer})
    for macro in _MACROS:
        connection.execute(macro)
