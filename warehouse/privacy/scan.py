"""The proof: searches everything produced, every byte and every column, for what must not be there.

Card numbers and e-mail addresses are searched for as patterns, canaries and the values of one subject as themselves, in
the spellings of :mod:`warehouse.privacy.encodings`. A finding says what was found, where, how it was spelled and how
often; a value is never kept, printed or logged. What was searched and what could not be opened is part of the answer.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from warehouse.core.progress import Progress, silent
from warehouse.privacy.encodings import Unopened, members, views
from warehouse.privacy.matcher import Found, Matcher, Needle
from warehouse.privacy.scanner import find_cards, holds_card

SHORTEST_NEEDLE = 6
"""A shorter value stands everywhere by chance."""
_BATCH = 5_000
_ROWS = 100_000
_LARGE, _SELDOM = 20_000, 8
"""Rows of a table from which on its repeated values are looked at once, and how often one has to stand there."""
_UNIQUE = re.compile(r"Approx Unique: (\d+)")
_AHEAD = 32
"""So many batches of values wait for the automaton, at most."""
_SIDE_BY_SIDE = 2
"""So many tables of a database are searched at once."""
_NO_NEEDLES = ("BOOLEAN", "DATE", "TIME", "INTERVAL", "DECIMAL", "DOUBLE", "FLOAT")
"""Types whose values are no text, and no number of anybody: an amount may happen to read like a latitude."""

_ADDRESS = re.compile(rb"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}")
_ADDRESS_IN_BINARY = re.compile(
    rb"[A-Za-z0-9._%+-]{3,64}@(?:[A-Za-z0-9-]{2,63}\.){1,8}(?:com|net|org|edu|gov|info|biz|io|example|eu|de|fr|uk|us|jp|br)\b"
)
_CIPHERTEXT = (b"PARE",)
_DUCKDB_MAGIC = slice(8, 12)
_CARD_SQL = "[0-9]([ .-]?[0-9]){12}"
_CHAIN_SQL = f"[0-9A-Fa-f-]{{0,36}}{_CARD_SQL.removesuffix('{12}')}{{12,}}[0-9A-Fa-f-]{{0,36}}"
"""Digits with what stands around them, by which a digest or a UUID is known."""
_ENCODED_SQL = (
    "3[0-9](?:(?:2[0de])?3[0-9]){12}"  # digits in hexadecimal
    "|(?:[MNO][DTjz][AEIMQUYcgk][wxyz0-5]){3}"  # digits in base64
    "|%40|%3[0-9]|[\\\\]u00[2-7][0-9a-f]"  # an @ or a digit in a URL, ASCII escaped in JSON
    "|H4sI|1f8b08|UEsDB|504b0304|KLUv|28b52ffd"  # something packed, in base64 or hexadecimal
)


@dataclass(frozen=True)
class Finding:
    """What was found, where and how it was spelled; never the value."""

    channel: str
    place: str
    what: str
    encoding: str
    count: int

    def __str__(self) -> str:
        return f"{self.what} in {self.channel}: {self.place} ({self.encoding}, {self.count})"


@dataclass
class ScanReport:
    """What was searched, what was found, what stayed shut.

    Attributes:
        files: channel → files read; bytes: channel → bytes read, unpacked members included.
        columns: channel → columns read through SQL; rows: channel → rows.
        known: matches that stand just so in the project's own files or in dbt's own page: not of any source.
        needles: how many values were searched for beside the patterns; too_short: how many could not be.
        unopened: what could not be read, and why.
        left_out: what is not searched, and why.
    """

    files: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    known: int = 0
    needles: int = 0
    too_short: int = 0
    unopened: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Nothing found, nothing shut, something searched."""
        return not self.findings and not self.unopened and bool(self.files)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "searched": {
                name: {
                    "files": self.files[name],
                    "bytes": self.bytes[name],
                    "columns": self.columns[name],
                    "rows": self.rows[name],
                }
                for name in sorted({*self.files, *self.columns})
            },
            "values_searched_for": self.needles,
            "values_too_short": self.too_short,
            "findings": [vars(item) for item in self.findings],
            "known_matches": self.known,
            "unopened": self.unopened,
            "left_out": self.left_out,
            "clean": self.clean,
        }


@dataclass(frozen=True)
class _Searched:
    """A relation: how many columns and rows it has, and what was found in which column, how spelled, how often."""

    columns: int
    rows: int
    by_column: Mapping[str, Mapping[tuple[str, str], int]]


class Scan:
    """One search: give it folders, databases and relations; read `report`."""

    def __init__(
        self,
        needles: Iterable[Needle],
        *,
        baseline: Iterable[Path] = (),
        patterns: bool = True,
        progress: Progress = silent,
    ) -> None:
        """Prepare the spellings.

        Args:
            needles: values to search for beside the patterns.
            baseline: files that hold no source data (the project's own, a tool's own page); a pattern that matches
                the same text there is counted as known. It never excuses a needle, nor a column.
            patterns: search for card numbers and e-mail addresses, too.
            progress: told what is being searched.
        """
        self.report = ScanReport()
        self._progress = progress
        given = list(needles)
        kept = [needle for needle in given if len(needle.value) >= SHORTEST_NEEDLE]
        self.report.needles, self.report.too_short = len(kept), len(given) - len(kept)
        self._matcher, self._patterns = Matcher(kept), patterns
        self._known: set[bytes] = set()
        for path in baseline:
            if path.is_file():
                content = path.read_bytes()
                self._known.update(digest for _, digest in _patterns(content, binary=False))
                # what a script of theirs happens to read as when decoded, it reads as wherever it is copied to
                for encoding, view in views(content):
                    self._known.update(digest for _, digest in _patterns(view, binary=encoding != "utf-16"))

    def folder(self, channel: str, root: Path, *, skip: Callable[[Path], str | None] = lambda _: None) -> None:
        """Every byte of every file below a folder (or of one file). `skip` says why a path is left out."""
        self._progress(channel)
        if root.is_file():
            self._file(channel, root, root.name)
            return
        for path in sorted(root.rglob("*")) if root.is_dir() else ():
            if path.is_symlink() or not path.is_file():
                continue
            if (why := skip(path)) is not None:
                self.report.left_out[str(path.relative_to(root).parts[0])] = why
                continue
            self._file(channel, path, str(path.relative_to(root)))

    def _file(self, channel: str, path: Path, place: str) -> None:
        try:
            if not self._patterns and _is_sealed(path):
                self._sealed_file(channel, path, place)
            else:
                self.content(channel, place, path.read_bytes())
        except OSError as error:
            self.report.unopened[f"{channel}: {place}"] = type(error).__name__
            return
        self.report.files[channel] += 1
        self.content(channel, f"the name of {place}", place.encode(errors="surrogateescape"))

    def _sealed_file(self, channel: str, path: Path, place: str) -> None:
        """An encrypted file, perhaps larger than memory: nothing is packed in it, and it has no other reading."""
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            self.report.bytes[channel] += len(content)
            with memoryview(content) as view:
                self._add(channel, place, self._matcher.in_bytes(view))

    def content(self, channel: str, place: str, content: bytes) -> None:
        """One content, what it holds packed, and its other readings."""
        self._one(channel, place, content, "")
        try:
            for packing, member in members(content):
                self._one(channel, place, member, packing)
        except Unopened as error:
            self.report.unopened[f"{channel}: {place}"] = str(error)

    def _one(self, channel: str, place: str, content: bytes, packing: str) -> None:
        self.report.bytes[channel] += len(content)
        found: Counter[tuple[str, str]] = Counter()
        prefix = f"{packing}, " if packing else ""
        for (what, encoding), count in self._matcher.in_bytes(content).items():
            found[what, prefix + encoding] += count
        if not self._patterns:
            self._add(channel, place, found)
            return
        sealed = _sealed(content)
        binary = sealed or b"\0" in content[:4096]
        self._count(content, binary, prefix + "plain", found)
        if not sealed:
            for encoding, view in views(content):
                self._count(view, encoding != "utf-16", prefix + encoding, found)
                for (what, _), count in self._matcher.in_bytes(view, only="plain").items():
                    found[what, prefix + encoding] += count
        self._add(channel, place, found)

    def _count(
        self,
        content: bytes,
        binary: bool,
        encoding: str,
        found: Counter[tuple[str, str]],
        *,
        is_data: bool = False,
        only: str | None = None,
    ) -> None:
        for what, digest in _patterns(content, binary=binary):
            if only not in {None, what}:
                continue
            if digest in self._known and not is_data:
                self.report.known += 1
            else:
                found[what, encoding] += 1

    def _add(self, channel: str, place: str, found: Mapping[tuple[str, str], int]) -> None:
        # a file name may itself be what was found
        shown = place if not _holds_any(place, self._matcher) else "a name that is itself a finding"
        self.report.findings += [
            Finding(channel, shown, what, encoding, count) for (what, encoding), count in sorted(found.items())
        ]

    def database(self, channel: str, connection: duckdb.DuckDBPyConnection, catalog: str) -> None:
        """Every column of every table of an attached database; a view holds nothing of its own."""
        self._progress(channel)
        tables = connection.execute(
            "select schema_name, table_name from duckdb_tables() where database_name = $name order by all",
            {"name": catalog},
        ).fetchall()
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:  # DuckDB hands a table's rows over on one thread
            searched = pool.map(
                lambda name: self._searched(connection.cursor(), f'"{catalog}"."{name[0]}"."{name[1]}"'), tables
            )
            for (schema, table), found in zip(tables, searched, strict=True):
                self._tell(channel, f"{schema}.{table}", found)

    def relation(self, channel: str, connection: duckdb.DuckDBPyConnection, place: str, relation: str) -> None:
        """Every column of a relation, every row: in SQL what cannot be harmless, here whether it is."""
        self._tell(channel, place, self._searched(connection, relation))

    def _searched(self, connection: duckdb.DuckDBPyConnection, relation: str) -> _Searched | str:
        """What is in a relation, or why it could not be searched. Changes nothing: tables are searched side by side."""
        by_column: dict[str, Counter[tuple[str, str]]] = {}
        try:
            described = connection.execute(f"describe select * from {relation}").fetchall()
            columns = [str(row[0]) for row in described]
            counted = connection.execute(f"select count(*) from {relation}").fetchone()
            self._needles_in(connection, relation, [(str(row[0]), str(row[1])) for row in described], by_column)
            if self._patterns:
                self._patterns_in(connection, relation, columns, by_column)
        except duckdb.Error as error:
            return type(error).__name__
        return _Searched(len(columns), int(counted[0]) if counted else 0, by_column)

    def _tell(self, channel: str, place: str, searched: _Searched | str) -> None:
        if isinstance(searched, str):
            self.report.unopened[f"{channel}: {place}"] = searched
            return
        self.report.columns[channel] += searched.columns
        self.report.rows[channel] += searched.rows
        for name, found in searched.by_column.items():
            self._add(channel, f"{place}.{name}", found)

    def _needles_in(
        self,
        connection: duckdb.DuckDBPyConnection,
        relation: str,
        columns: list[tuple[str, str]],
        by_column: dict[str, Counter[tuple[str, str]]],
    ) -> None:
        """Every value of every column that can hold one, as text, through the automaton."""
        searched = [name for name, kind in columns if not kind.startswith(_NO_NEEDLES)]
        if not self._matcher or not searched:
            return
        # a value that stands in many rows is looked at once, where that takes less than looking at each
        often = _repeated(connection, relation, searched)
        queries = [([name], f"select {_quoted(name)}::varchar from (select distinct {_quoted(name)} from {relation})")
                   for name in often]  # fmt: skip
        if rest := [name for name in searched if name not in often]:
            queries.append((rest, f"select {', '.join(f'{_quoted(name)}::varchar' for name in rest)} from {relation}"))
        with ThreadPoolExecutor() as pool:
            due: deque[tuple[str, Future[Found]]] = deque()
            for names, sql in queries:
                for batch in connection.execute(sql).to_arrow_reader(_ROWS):
                    for name, column in zip(names, batch.columns, strict=True):
                        due.append((name, pool.submit(self._matcher.in_column, column)))
                    while len(due) > _AHEAD:
                        _take(due, by_column)
            while due:
                _take(due, by_column)

    def _patterns_in(
        self,
        connection: duckdb.DuckDBPyConnection,
        relation: str,
        columns: list[str],
        by_column: dict[str, Counter[tuple[str, str]]],
    ) -> None:
        texts = ['"{}"::varchar'.format(name.replace('"', '""')) for name in columns]
        row_text = f"concat_ws(chr(31), {', '.join(texts)})"
        conditions = ["contains(t, '@')", f"regexp_matches(t, '{_ENCODED_SQL}')"]
        suspicious = connection.execute(
            f"select {', '.join(texts)} from (select *, {row_text} as t from {relation}) "
            f"where {' or '.join(conditions)}"
        )
        while rows := suspicious.fetchmany(_BATCH):
            for row in rows:
                for name, value in zip(columns, row, strict=True):
                    if value is not None:
                        self._value(value.encode("utf-8", "surrogatepass"), by_column.setdefault(name, Counter()))
        for name, text in zip(columns, texts, strict=True):
            chains = connection.execute(
                f"select distinct unnest(regexp_extract_all({text}, '{_CHAIN_SQL}')) from {relation} "
                f"where regexp_matches({text}, '{_CARD_SQL}')"
            )
            suspected: set[str] = set()
            while found_chains := chains.fetchmany(_BATCH):
                suspected.update(chain for (chain,) in found_chains if holds_card(chain))
            # what stood around a chain may have been taken for that of the chain before it: the value itself decides
            values: set[str] = set()
            for chain in suspected:
                held = connection.execute(
                    f"select distinct {text} from {relation} where contains({text}, $chain)", {"chain": chain}
                )
                values.update(value for (value,) in held.fetchall())
            for value in values:
                content = value.encode("utf-8", "surrogatepass")
                found = by_column.setdefault(name, Counter())
                self._count(content, False, "plain", found, is_data=True, only="card number")

    def _value(self, value: bytes, found: Counter[tuple[str, str]]) -> None:
        self._count(value, False, "plain", found, is_data=True, only="e-mail address")
        for encoding, view in views(value):
            self._count(view, True, encoding, found, is_data=True)
            for (what, _), count in self._matcher.in_bytes(view, only="plain").items():
                found[what, encoding] += count


def _sealed(head: bytes) -> bool:
    """Whether these are the first bytes of an encrypted file."""
    return head[:4] in _CIPHERTEXT or head[_DUCKDB_MAGIC] == b"DUCK"


def _is_sealed(path: Path) -> bool:
    with path.open("rb") as file:
        return _sealed(file.read(_DUCKDB_MAGIC.stop))


def _repeated(connection: duckdb.DuckDBPyConnection, relation: str, columns: list[str]) -> set[str]:
    """The columns of a large table that hold few different values, by the statistics that DuckDB keeps of them."""
    told = ", ".join(f"stats({_quoted(name)})" for name in columns)
    counted = connection.execute(f"select count(*) from {relation}").fetchone()
    rows = int(counted[0]) if counted else 0
    if rows < _LARGE:
        return set()
    found = connection.execute(f"select {told} from {relation} limit 1").fetchone() or ()
    unique = {name: _UNIQUE.search(str(said)) for name, said in zip(columns, found, strict=False)}
    return {name for name, said in unique.items() if said and int(said[1]) * _SELDOM < rows}


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _take(due: deque[tuple[str, Future[Found]]], by_column: dict[str, Counter[tuple[str, str]]]) -> None:
    name, future = due.popleft()
    if found := future.result():
        by_column.setdefault(name, Counter()).update(found)


def _patterns(content: bytes, *, binary: bool) -> Iterator[tuple[str, bytes]]:
    """(what, digest of the match) for every card number and e-mail address."""
    for start, end in find_cards(content):
        yield "card number", hashlib.sha256(content[start:end]).digest()
    if b"@" in content:
        for match in (_ADDRESS_IN_BINARY if binary else _ADDRESS).finditer(content):
            yield "e-mail address", hashlib.sha256(match.group(0).lower()).digest()


def _holds_any(place: str, matcher: Matcher) -> bool:
    content = place.encode(errors="surrogateescape")
    return bool(matcher.in_bytes(content)) or next(_patterns(content, binary=False), None) is not None
