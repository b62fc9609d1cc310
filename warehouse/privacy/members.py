"""What in a model's row points at a person, and the row without them: for an erasure, and for who is restricted."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

IDENTIFYING = (
    "customer_id", "customer_key", "customer_version_key", "entity_id", "subject_id", "source_id", "canonical_id",
    "device_id", "device_key", "payment_method_id", "payment_method_key", "session_id",
)  # fmt: skip
"""Columns that may point at a person."""
_OF_THE_PERSON = frozenset(IDENTIFYING[:7])
_PERSONAL = re.compile(r"(_token|_network|_degree|^email_domain|_prefix)$")
"""Columns that hold what is left of a personal value."""


def points_at_person(column: str) -> bool:
    """Whether a column of this name may point at a person, or hold what is left of a value of theirs."""
    return column in IDENTIFYING or _PERSONAL.search(column) is not None


def without_person(columns: Collection[str], is_theirs: Callable[[str], str], member: str) -> dict[str, str]:
    """Column → SQL in its place, where that is another: a row keeps its amounts and points at `member` instead.

    Args:
        columns: of the table.
        is_theirs: gives SQL, perhaps null: whether a column points at the person or at something of theirs.
        member: key of the member that stands for nobody.
    """
    pointing = [name for name in IDENTIFYING if name in columns]
    person = " or ".join(is_theirs(name) for name in pointing if name in _OF_THE_PERSON) or "false"
    shown = {
        name: f"if(\"{name}\" not in ('-1', '-2') and (coalesce({person}, false) or {is_theirs(name)}), "
        f"'{member}', \"{name}\")"
        for name in pointing
    }
    if not pointing:
        return shown
    return shown | {
        name: f'if(coalesce({person}, false), null, "{name}")' for name in columns if _PERSONAL.search(name)
    }
