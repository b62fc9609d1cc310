"""Many spellings searched for in one pass over the bytes: an Aho-Corasick automaton of all needles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from ahocorasick_rs import BytesAhoCorasick, Implementation

from warehouse.privacy.encodings import spellings

_MOST_DFA_BYTES = 500_000
"""Of all spellings together. Up to here a DFA fits in some hundred MB, and is four times as fast as the NFA."""
SLICE = 16 * 2**20
"""A longer content is searched in slices of so many bytes, on every processor: the automaton needs no Python."""


@dataclass(frozen=True)
class Needle:
    """A value to search for. `whole`: only where no letter or digit touches it."""

    what: str
    value: str
    whole: bool = False


Found = Counter[tuple[str, str]]
"""(what, encoding) → how often."""


class Matcher:
    """Finds needles in any of their spellings, in bytes and in columns of text."""

    def __init__(self, needles: Iterable[Needle]) -> None:
        """Build the automaton. The same bytes may spell two needles: each is found."""
        forms: dict[bytes, list[tuple[Needle, str]]] = {}
        for needle in needles:
            for encoding, spelled in spellings(needle.value).items():
                for form in spelled:
                    forms.setdefault(form, []).append((needle, encoding))
        self._forms = list(forms)
        self._meaning = [forms[form] for form in self._forms]
        self._longest = max(map(len, self._forms), default=0)
        small = sum(map(len, self._forms)) <= _MOST_DFA_BYTES
        kind = Implementation.DFA if small else None
        self._automaton = BytesAhoCorasick(self._forms, implementation=kind) if self._forms else None

    def __bool__(self) -> bool:
        """Whether there is anything to search for."""
        return self._automaton is not None

    def in_bytes(self, content: bytes | memoryview, *, only: str | None = None) -> Found:
        """What stands in a content; `only` in this encoding."""
        found: Found = Counter()
        if self._automaton is None:
            return found
        view = memoryview(content)
        starts = range(0, max(len(view), 1), SLICE)
        if len(starts) == 1:
            return self._in_slice(view, 0, only)
        with ThreadPoolExecutor() as pool:
            for one in pool.map(lambda start: self._in_slice(view, start, only), starts):
                found.update(one)
        return found

    def _in_slice(self, content: memoryview, first: int, only: str | None) -> Found:
        """Matches that begin in the slice from `first` on; they may end in the next one."""
        assert self._automaton is not None  # noqa: S101 - asked before
        found: Found = Counter()
        part = content[first : first + SLICE + self._longest]
        for form, start, end in self._automaton.find_matches_as_indexes(part, overlapping=True):
            if start < SLICE:
                self._add(found, form, content, first + start, first + end, (0, len(content)), only)
        return found

    def in_column(self, column: pa.Array) -> Found:
        """What stands in an Arrow column of text; a match never spans two values."""
        found: Found = Counter()
        if self._automaton is None or not len(column):
            return found
        wide = column.cast(pa.large_string())
        _, offsets_buffer, data = wide.buffers()
        if data is None:
            return found
        offsets = np.frombuffer(offsets_buffer, np.int64, len(wide) + 1, wide.offset * 8)
        content = memoryview(data).cast("B")
        for form, start, end in self._automaton.find_matches_as_indexes(content, overlapping=True):
            row = int(np.searchsorted(offsets, start, side="right")) - 1
            if row >= len(wide) or end > offsets[row + 1] or start < offsets[0]:
                continue
            self._add(found, form, content, start, end, (int(offsets[row]), int(offsets[row + 1])), None)
        return found

    def _add(
        self,
        found: Found,
        form: int,
        content: bytes | memoryview,
        start: int,
        end: int,
        bounds: Sequence[int],
        only: str | None,
    ) -> None:
        around = bytes(content[max(bounds[0], start - 1) : start]) + bytes(content[end : min(bounds[1], end + 1)])
        alone = not any(chr(byte).isalnum() for byte in around if byte < 128)
        for needle, encoding in self._meaning[form]:
            if only not in {None, encoding}:
                continue
            if alone or not (needle.whole and encoding in {"plain", "upper"}):
                found[needle.what, encoding] += 1
