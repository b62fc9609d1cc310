"""Documents that may land as they came: every key declared and plain, so that the boundary has nothing to do.

A document's *skeleton* is its text with a mark in the place of every value after a colon: `~` for a scalar, `@` for a
null where an object or array is declared, `#` for an array of texts where one of scalars is. Documents of one skeleton
have the same keys in the same places. There are few, and each is judged once, in Python, against the pinned schema.
What is judged clean lands verbatim: numbers keep their spelling (`1e2`, `12.50`), keys their order. Everything else,
whatever the doubt, is rebuilt key by key by the boundary. Staging reads both alike: an absent key is null.

Why a skeleton cannot hide a key: the pattern takes a text from its opening quote to its closing one, so only a quote
taken for an opening one could make it swallow structure. A quote after a colon is a closing one only at the end of a
text that ends in a colon, and is then followed by one of `,:]}`; documents with such a place have no skeleton. A mark
set inside a key leaves that key its colon, and no declared key has one.

What was judged clean is known from then on: a pattern of JSON with a scalar in the place of each mark finds the next
document of the same skeleton, in one pass, and says of it that it is JSON as well. It finds only documents that have
that skeleton, none that have an uncertain one: how a document lands must not depend on what came before it, or one
that is read again looks changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from ingestion.boundary import NO_REASON, Boundary
from ingestion.schema import FORBIDDEN_KEYS, PLAIN_CLASSES, Node, Table

MAX_BYTES = 65_536
"""Longer documents are rebuilt: one that is all structure would be its own skeleton."""

_STRING = r'"(?:[^"\\]|\\.)*"'
_STAND_INS = {"~": "0", "@": "null", "#": "[0]"}
"""Mark → JSON that the judge reads in its place."""
_UNCERTAIN = r':\s*"\s*[\],:}]|\[\s*[^\]{\s]'
"""A quote that may be a closing one, and arrays of scalars, which would give every document a skeleton of its own."""


def may_land_sql() -> str:
    """Over `doc` and `problem`: whether a document is looked at at all."""
    return f"problem is null and strlen(doc) <= {MAX_BYTES}"


def skeleton_sql(table: Table) -> str:
    """Over the columns `doc` (valid JSON text) and `problem`; null where there is no certain skeleton."""
    doc = "doc"
    if containers := "|".join(sorted(_names(table.document, lambda node: node.leaf is None))):
        doc = f"""regexp_replace({doc}, '("(?:{containers})"\\s*:)\\s*null', '\\1@', 'g')"""
    if arrays := "|".join(sorted(_names(table.document, _is_array_of_scalars))):
        texts = rf"\[\s*(?:{_STRING}(?:\s*,\s*{_STRING})*)?\s*\]"
        doc = f"""regexp_replace({doc}, '("(?:{arrays})"\\s*:)\\s*{texts}', '\\1#', 'g')"""
    return f"""
        case when {may_land_sql()} and not regexp_matches({doc}, '{_UNCERTAIN}')
            then regexp_replace({doc}, ':\\s*(?:{_STRING}|[-+.eE0-9]+|true|false|null)', ':~', 'g')
        end
    """


MAX_PATTERN = 32_768
"""Characters of a pattern. From 45,000 on RE2 turns slow (six times): its states do not fit into its memory."""
_ESCAPE = (
    r'\\(?:["\\/bfnrt]|u(?:[0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}'
    r"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
)
_JSON_STRING = rf'"(?:[^"\\\x00-\x1f]|{_ESCAPE})*"'
_AS_BRACKET = rf"{_ESCAPE}|\[ *[\]{{]"
_FIRST = rf'[^"\\\x00-\x1f\[: \],}}]|{_AS_BRACKET}'
_NEXT = rf'[^"\\\x00-\x1f\[: ]|{_AS_BRACKET}'
_CERTAIN_STRING = rf'" *(?:(?:{_FIRST})(?: |{_NEXT}|:[ :]*(?:{_NEXT}))*)?"'
"""A text in which nothing is :data:`_UNCERTAIN`: it begins with none of `],:}`, ends in no colon, and in it a bracket
is closed at once or followed by a brace."""
_SPACE = r"[ \t\n\r]*"
_PATTERNS = {
    "~": rf"{_SPACE}(?:{_CERTAIN_STRING}|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|true|false|null)",
    "@": rf"{_SPACE}null",
    "#": rf"{_SPACE}\[(?:{_SPACE}{_JSON_STRING}(?:{_SPACE},{_SPACE}{_JSON_STRING})*)?{_SPACE}\]",
}
"""Mark → what may stand in its place, strictly JSON; what else is JSON (an exponent) is judged by its skeleton."""

_KEY_AND_MARK = re.compile(rf"({_STRING}\s*:)([{''.join(_STAND_INS)}])")


def is_clean(table: Table, skeleton: str) -> bool:
    """Whether documents of this skeleton hold declared, plain values in declared places and nothing else."""
    try:
        text = _KEY_AND_MARK.sub(lambda found: found[1] + _STAND_INS[found[2]], skeleton)
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict) or not _is_declared(table.document, document):
        return False
    # a skeleton tells neither null from a value nor how large a number is
    leaves = [node.leaf for node in table.document if node.leaf is not None]
    return not any(leaf.required or leaf.minimum is not None for leaf in leaves)


_Trie: TypeAlias = dict[tuple[str, str], "_Trie"]
"""(text, mark after it) → what may follow."""


def pattern_of(clean: Iterable[str]) -> str | None:
    """RE2 that fully matches JSON texts of these clean skeletons, of as many as have room; None for none.

    What begins alike stands in it once: RE2 would follow every alternative at the same time.
    """
    found = None
    trie: _Trie = {}
    for skeleton in clean:
        *parts, end = _KEY_AND_MARK.split(skeleton)
        steps = [(text + key, mark) for text, key, mark in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]
        branch = trie
        for step in (*steps, (end, "")):
            branch = branch.setdefault(step, {})
        pattern = _alternatives(trie)
        if len(pattern) > MAX_PATTERN:
            break
        found = pattern
    return found


def _alternatives(trie: _Trie) -> str:
    """Every way through the trie. A skeleton ends where its last text does, and no text that ends one goes on."""
    return "|".join(
        re.escape(text) + (f"{_PATTERNS[mark]}(?:{_alternatives(after)})" if mark else "")
        for (text, mark), after in trie.items()
    )


def verbatim_boundary(table: Table, general: Boundary) -> Boundary:
    """The boundary of clean documents: position columns as ever, the document as it came."""
    return Boundary(
        landed=tuple((name, "doc::json" if name == "document" else sql) for name, sql in general.landed),
        reason=NO_REASON,
        unknown="0",
        payload="null::json",
        vault=(),
        subject=general.subject,
    )


def _is_declared(fields: tuple[Node, ...], found: dict[str, Any]) -> bool:
    declared = {node.name: node for node in fields}
    return all(key in declared and _fits(declared[key], value) for key, value in found.items())


def _fits(node: Node, found: Any) -> bool:
    if node.leaf is not None and node.leaf.data_class not in PLAIN_CLASSES:
        return False
    if found is None:
        return True
    if node.fields:
        return _is_declared(node.fields, found) if isinstance(found, dict) else False
    if node.items is not None:
        return isinstance(found, list) and all(_fits(node.items, item) for item in found)
    if node.map_key is not None:
        return isinstance(found, dict) and all(
            re.fullmatch(node.map_key, key, re.ASCII) is not None
            and key.lower() not in FORBIDDEN_KEYS
            and not isinstance(value, dict | list)
            for key, value in found.items()
        )
    return not isinstance(found, dict | list)


def _names(fields: Iterable[Node], wanted: Callable[[Node], bool]) -> Iterator[str]:
    """Of the declared keys, wherever they stand, those that are wanted. All are words: a pattern needs no escapes."""
    for node in fields:
        if wanted(node) and node.name.isidentifier():
            yield node.name
        yield from _names((*node.fields, *([node.items] if node.items else [])), wanted)


def _is_array_of_scalars(node: Node) -> bool:
    return node.items is not None and node.items.leaf is not None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
