"""The boundary of documents whose structure is known: the same result as the general one, without parsing JSON.

A shape lists every value of a document: its path and its kind. Whether a key is declared, forbidden or of another
structure than was pinned is then decided once per shape, in Python, and what is left for the rows are expressions
over columns. A shape that needs more than that (an undeclared or forbidden key, people in an array, a structure
where a scalar was declared, a missing required key) has no boundary here: its documents take the general one.

What lands is byte for byte what the general boundary makes of the same document; tests compare the two.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, TypeAlias

from ingestion.boundary import NO_REASON, Boundary, VaultRule, below_minimum, leaf_parts
from ingestion.schema import FORBIDDEN_KEYS, PLAIN_CLASSES, TOKEN_CLASSES, Leaf, Node, Table
from warehouse.privacy.tokens import token_sql

Kind = Literal["text", "id", "double", "integer", "decimal", "boolean", "date", "null", "object", "array"]
"""`object` and `array` are empty ones: others are seen by what they hold."""
Path: TypeAlias = tuple[str | int, ...]
"""Keys from the document inwards; a number is a place in an array."""
Shape: TypeAlias = tuple[tuple[Path, Kind], ...]
"""Every value of a document, in its order. Column `c<n>` of a relation of that shape holds the n-th.

A date is there twice: as a moment, and as the text that it lands as, in :func:`date_text_column`.
"""

_TEXT_IDS = frozenset({"text", "id", "integer"})


def date_text_column(column: str) -> str:
    """Where the text of a date is, of which `column` holds the moment."""
    return f"{column}_text"


class _NeedsGeneral(Exception):
    """This shape needs the general boundary."""


class _Value:
    """One scalar: its column and kind."""

    def __init__(self, column: str, kind: Kind) -> None:
        self.column = column
        self.kind = kind

    @property
    def json(self) -> list[str]:
        """As pieces of JSON text (see `_text`)."""
        match self.kind:
            case "null":
                return [_literal("null")]
            case "id" | "date" | "decimal":  # nothing in them needs escaping
                return [_literal('"'), self.text, _literal('"')]
            case _:
                return [f"to_json({self.column})::varchar"]

    @property
    def text(self) -> str:
        """As JSON would print it, without quotes."""
        match self.kind:
            case "null":
                return "null::varchar"
            case "date":
                return date_text_column(self.column)
            case "double":
                return f"to_json({self.column})::varchar"
            case _:
                return f"{self.column}::varchar"


class _Object(dict[str, "_Tree"]):
    """Key → value, in document order."""


class _Array(list["_Tree"]):
    """Items."""


_Tree: TypeAlias = "_Value | _Object | _Array"


@lru_cache(maxsize=4096)
def compile_shape(table: Table, shape: Shape) -> Boundary | None:
    """The boundary of documents of one shape, over columns `c0`, `c1`, …; None when they need the general one.

    The relation needs no position columns: `_id` and `cursor_at` are taken from the document.
    """
    try:
        tree = _tree(shape)
        identifier = tree.pop("_id", None)
        if not isinstance(identifier, _Value) or identifier.kind not in _TEXT_IDS:
            return None
        cursor = _at(tree, table.cursor.split(".")) if table.cursor else None
        subject = _at(tree, table.subject.split(".")) if table.subject else None
        if isinstance(subject, _Object | _Array):
            return None
        if any(_is_missing(tree.get(node.name)) for node in table.document if node.leaf and node.leaf.required):
            return None
        document = _text(_object(table.document, tree)) + "::json"
        vault = tuple(_vault(table.document, tree, "$"))
        reasons = _below_minima(table.document, tree)
    except _NeedsGeneral:
        return None
    cursor_at = "null"
    if isinstance(cursor, _Value) and cursor.kind == "date":
        cursor_at = cursor.column
    elif isinstance(cursor, _Value) and cursor.kind == "text":
        cursor_at = cursor.text
    return Boundary(
        landed=(
            ("_id", identifier.text),
            ("cursor_at", f"try_cast({cursor_at} as timestamp with time zone)"),
            ("document", document),
        ),
        reason=f"coalesce({', '.join(reasons)})" if reasons else NO_REASON,
        unknown="0",
        payload=f"json_object('document', {token_sql('quarantine', 'document::varchar')})" if reasons else "null::json",
        payload_reads_landed=bool(reasons),
        vault=vault,
        subject=subject.text if isinstance(subject, _Value) else "null::varchar",
    )


def cursor_column(table: Table, shape: Shape) -> tuple[str, Kind] | None:
    """The column that holds the table's cursor, and its kind; None when the shape has none that is a date or a text."""
    path = tuple(table.cursor.split(".")) if table.cursor else ()
    for number, (found, kind) in enumerate(shape):
        if found == path and kind in {"date", "text"}:
            return f"c{number}", kind
    return None


def _tree(shape: Shape) -> _Object:
    root = _Object()
    for number, (path, kind) in enumerate(shape):
        leaf: _Tree
        match kind:
            case "object":
                leaf = _Object()
            case "array":
                leaf = _Array()
            case _:
                leaf = _Value(f"c{number}", kind)
        _put(root, path, leaf)
    return root


def _put(root: _Object, path: Path, leaf: _Tree) -> None:
    here: _Tree = root
    for depth, step in enumerate(path):
        last = depth + 1 == len(path)
        child: _Tree = leaf if last else (_Array() if isinstance(path[depth + 1], int) else _Object())
        if isinstance(here, _Object) and isinstance(step, str):
            if last and step in here:
                raise _NeedsGeneral  # the same key twice
            here = here.setdefault(step, child)
        elif isinstance(here, _Array) and isinstance(step, int):
            if step == len(here):
                here.append(child)
            elif last or step != len(here) - 1:
                raise _NeedsGeneral  # places that do not count up
            here = here[step]
        else:
            raise _NeedsGeneral


def _at(tree: _Object, path: list[str]) -> _Tree | None:
    here: _Tree | None = tree
    for step in path:
        here = here.get(step) if isinstance(here, _Object) else None
    return here


def _is_missing(found: _Tree | None) -> bool:
    return found is None or (isinstance(found, _Value) and found.kind == "null")


def _below_minima(fields: tuple[Node, ...], tree: _Object) -> list[str]:
    """A reason for each value that may not be negative, say: null where it is not.

    The general boundary's own comparison casts a text to a wide decimal, which takes longer than all that is made of
    the document: only what can be below is compared so.
    """
    return [
        f"case when {_may_be_below(found, node.leaf.minimum)} then case {below_minimum(node.leaf, found.text)} end end"
        for node in fields
        if node.leaf is not None and node.leaf.minimum is not None
        if isinstance(found := tree.get(node.name), _Value) and found.kind != "null"
    ]


def _may_be_below(value: _Value, minimum: int) -> str:
    if value.kind in {"double", "integer", "decimal"}:
        return f"{value.column} < {minimum}"
    if value.kind == "text" and minimum <= 0:
        return f"contains({value.column}, '-')"
    return "true"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _text(pieces: list[str]) -> str:
    """One SQL text from pieces, neighbouring literals joined. No piece is ever null."""
    joined: list[str] = []
    for piece in pieces:
        if joined and piece.startswith("'") and joined[-1].startswith("'"):
            joined[-1] = joined[-1][:-1] + piece[1:]
        else:
            joined.append(piece)
    return f"concat({', '.join(joined)})"


def _braced(pairs: list[tuple[str, list[str]]]) -> list[str]:
    pieces = [_literal("{")]
    for number, (name, value) in enumerate(pairs):
        pieces += [_literal(("," if number else "") + f'"{name}":'), *value]
    return [*pieces, _literal("}")]


def _object(fields: tuple[Node, ...], tree: _Object) -> list[str]:
    """JSON text of an object after treatment, in pieces: parsing nested JSON again at each level would cost most."""
    if not tree.keys() <= {node.name for node in fields}:
        raise _NeedsGeneral
    pairs = [pair for node in fields for pair in _node(node, tree.get(node.name))]
    return _braced([*pairs, ("_unknown", [_literal("null")])])


def _node(node: Node, found: _Tree | None) -> list[tuple[str, list[str]]]:
    leaf = node.leaf
    if leaf is not None and leaf.data_class not in PLAIN_CLASSES:
        return _classified(leaf, found)
    if _is_missing(found):
        return [(node.name, [_literal("null")])]
    if node.fields and isinstance(found, _Object):
        return [(node.name, _object(node.fields, found))]
    if node.items is not None and isinstance(found, _Array):
        if _is_classified(node.items):
            raise _NeedsGeneral  # their values go to the vault as one text
        return [(node.name, _array(node.items, found))]
    if node.map_key is not None and isinstance(found, _Object):
        return [(node.name, _map(node.map_key, found))]
    if leaf is not None and node.map_key is None and isinstance(found, _Value):
        return [(node.name, found.json)]
    raise _NeedsGeneral


def _array(items: Node, found: _Array) -> list[str]:
    pieces = [_literal("[")]
    for number, item in enumerate(found):
        ((_, value),) = _node(items, item)
        pieces += [*([_literal(",")] if number else []), *value]
    return [*pieces, _literal("]")]


def _classified(leaf: Leaf, found: _Tree | None) -> list[tuple[str, list[str]]]:
    if not (found is None or isinstance(found, _Value)):
        raise _NeedsGeneral
    if found is None or found.kind == "null":
        return [(name, [_literal("null")]) for name, _ in leaf_parts(leaf, "null::varchar")]
    return [(name, [f"coalesce(to_json({sql})::varchar, 'null')"]) for name, sql in leaf_parts(leaf, found.text)]


def _map(key_pattern: str, found: _Object) -> list[str]:
    pairs: list[tuple[str, list[str]]] = []
    for key, value in found.items():
        is_declared = re.fullmatch(key_pattern, key, re.ASCII) and key.lower() not in FORBIDDEN_KEYS
        if not is_declared or not isinstance(value, _Value):
            raise _NeedsGeneral
        pairs.append((key, value.json))
    return _braced(pairs)


def _is_classified(node: Node) -> bool:
    if node.leaf is not None:
        return node.leaf.data_class not in PLAIN_CLASSES
    return any(_is_classified(child) for child in (*node.fields, *((node.items,) if node.items else ())))


def _vault(fields: tuple[Node, ...], tree: _Object, path: str) -> list[VaultRule]:
    rules: list[VaultRule] = []
    for node in fields:
        found = tree.get(node.name)
        here = f"{path}.{node.name}"
        if node.fields and isinstance(found, _Object):
            rules.extend(_vault(node.fields, found, here))
        elif node.leaf is not None and node.leaf.data_class in TOKEN_CLASSES and isinstance(found, _Value):
            rules.append(VaultRule(here, token_sql(node.leaf.domain, found.text), found.text))
    return rules
