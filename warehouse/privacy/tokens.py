"""Pseudonyms: HMAC-SHA256 under a versioned key, domain-separated, canonicalised first; null stays null.

    v1:  HMAC(key 1, "domain|value")
    v2:  HMAC(key 2, "rekey|v1:…")      and so on: each rotation of the key wraps the tokens of the version before

So a token can be moved to a new key without its value, which for card numbers and undeclared keys is kept nowhere, and
what was joined stays joined. Whoever knows the old keys but not the newest can compute no token of today's.

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
from collections.abc import Sequence
from typing import TypeAlias

import duckdb

from warehouse.core.keys import TOKEN_KEY, file_key, newest_version
from warehouse.core.settings import Settings

TokenKey: TypeAlias = bytes | tuple[bytes, ...]
"""One key, or those of all versions, the oldest first."""

_BLOCK = 64

_SPACE = " \t\n\r\f\v"
_UPPER = string.ascii_uppercase
_LOWER = string.ascii_lowercase
_TO_LOWER = str.maketrans(_UPPER, _LOWER)
_TO_UPPER = str.maketrans(_LOWER, _UPPER)

# Trimming, folding and spaces are ASCII only: engines disagree on the rest, and a token must be the same on all.
# Most values are ASCII with nothing to trim, and are spared what goes character by character: trim, translate, NFC.
_CANONICAL_SQL = {
    "email": f"case when is_tidy(m) then lower(m) else folded(trim(m, '{_SPACE}')) end",
    "phone": "regexp_replace(m, '[^0-9+]', '', 'g')",
    "pan": "regexp_replace(m, '[^0-9]', '', 'g')",
    "ip": f"split_part(case when is_tidy(m) then lower(m) else folded(trim(m, '{_SPACE}')) end, '/', 1)",
    "postal_code": f"""regexp_replace(
        case when is_ascii(m) then upper(m) else translate(m, '{_LOWER}', '{_UPPER}') end, '[{_SPACE}-]', '', 'g'
    )""",
    "name": f"""case
        when is_tidy(m) and not regexp_matches(m, '[{_SPACE.strip(" ")}]|  ') then lower(m)
        else folded(regexp_replace(trim(nfc(m), '{_SPACE}'), '[{_SPACE}]+', ' ', 'g'))
    end""",
}
_CANONICAL_TEXT_SQL = f"case when is_tidy(m) then m else trim(nfc(m), '{_SPACE}') end"
"""Of every other domain."""

# a CASE per pad, which is decided once, and none around the token: inside one, DuckDB computes again what it has
_PAD_MACRO = """create or replace temp macro token_pad(name) as (
    case
        when getvariable(name) is null then error('the token key is not set on this connection')::blob
        else getvariable(name)::blob
    end
)"""

_MACROS: tuple[str, ...] = (
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
    "create or replace temp macro canonical(domain, m) as (case domain "
    + " ".join(f"when '{domain}' then {sql}" for domain, sql in _CANONICAL_SQL.items())
    + f" else {_CANONICAL_TEXT_SQL} end)",
    _PAD_MACRO,
)


def token_key(settings: Settings) -> TokenKey:
    """The pseudonym key of every version, 32 bytes each.

    Raises:
        ConfigurationError: one is missing, short or readable by others, or a rotation was interrupted.
    """
    return tuple(
        base64.b64decode(file_key(settings, f"{TOKEN_KEY}_v{version}"))
        for version in range(1, newest_version(settings, TOKEN_KEY) + 1)
    )


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


def pseudonym(key: TokenKey, domain: str, value: str | None) -> str | None:
    """One value's token, `v1:` and 64 hex digits: the reference that the SQL is tested against."""
    if value is None:
        return None
    first, *later = _versions(key)
    token = f"v1:{_hmac(first, f'{domain}|{canonical(domain, value)}')}"
    for version, newer in enumerate(later, start=2):
        token = f"v{version}:{_hmac(newer, f'rekey|{token}')}"
    return token


def install(connection: duckdb.DuckDBPyConnection, key: TokenKey) -> None:
    """Define `pseudonymise(domain, value)` on this connection, and what :func:`token_sql` names; give it its key."""
    for macro in _MACROS:
        connection.execute(macro)
    _define_token(connection, key, "pseudonymise(domain, m)", "domain", "canonical(domain, m)")
    _define_token(connection, key, "pseudonymise_text(domain, m)", "domain", _CANONICAL_TEXT_SQL)
    for domain, sql in _CANONICAL_SQL.items():
        _define_token(connection, key, f"pseudonymise_{domain}(m)", f"'{domain}'", sql)


def token_sql(domain: str, value: str) -> str:
    """SQL of the token of `value` (SQL of a text), as `pseudonymise` gives it: for statements with many of them.

    DuckDB plans every branch of `pseudonymise` for every use of it, which takes longer than a thousand tokens do.
    """
    if domain in _CANONICAL_SQL:
        return f"pseudonymise_{domain}({value})"
    return f"pseudonymise_text('{domain}', {value})"


def _define_token(
    connection: duckdb.DuckDBPyConnection, key: TokenKey, signature: str, domain: str, canonical_value: str
) -> None:
    versions = _versions(key)
    token = _hmac_sql(connection, 1, versions[0], f"encode({domain} || '|') || encode({canonical_value})")
    for version, newer in enumerate(versions[1:], start=2):
        token = _hmac_sql(connection, version, newer, f"encode('rekey|' || {token})")
    connection.execute(f"create or replace temp macro {signature} as ({token})")


def install_rekeyed(connection: duckdb.DuckDBPyConnection, key: TokenKey) -> None:
    """Define `rekeyed(text)`: the text with every token of the version before the newest as one of the newest.

    Any other text comes back as it is, a token of the newest version too: to do it twice is to do it once.
    """
    versions = _versions(key)
    version = len(versions)
    old = f"v{version - 1}:"
    connection.execute(_PAD_MACRO)
    token = _hmac_sql(connection, version, versions[-1], f"encode('rekey|{old}' || left(part, 64))")
    connection.execute(f"""
        create or replace temp macro rekeyed(t) as (
            case
                when not contains(t, '{old}') then t
                else array_to_string(
                    list_transform(string_split(t, '{old}'), lambda part, place: case
                        when place = 1 then part
                        when regexp_matches(part, '^[0-9a-f]{{64}}([^0-9a-f]|$)') then {token} || substr(part, 65)
                        else '{old}' || part
                    end), ''
                )
            end
        )
    """)


def _versions(key: TokenKey) -> Sequence[bytes]:
    return (key,) if isinstance(key, bytes) else key


def _hmac(key: bytes, message: str) -> str:
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def _hmac_sql(connection: duckdb.DuckDBPyConnection, version: int, key: bytes, message: str) -> str:
    """SQL of the token of `message` (SQL of bytes) under the key of a version, which this connection then knows."""
    block = key.ljust(_BLOCK, b"\0") if len(key) <= _BLOCK else hashlib.sha256(key).digest().ljust(_BLOCK, b"\0")
    names = {"inner": 0x36, "outer": 0x5C}
    if version > 1:
        names = {f"{name}_v{version}": pad for name, pad in names.items()}
    for name, pad in names.items():
        bytes_ = bytes(byte ^ pad for byte in block).hex()
        connection.execute(f"set variable token_{name} = unhex($pad)", {"pad": bytes_})
    inner, outer = (f"token_pad('token_{name}')" for name in names)
    return f"'v{version}:' || sha256({outer} || unhex(sha256({inner} || {message})))"
