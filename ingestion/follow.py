"""`ingest --follow`: micro-batches from the sources that tell what is new, until told to stop.

Each batch is a load like any other: sealed in the lake, its position (resume token, offsets, place in the write-ahead
log) committed with it. The writer's lock is held for a batch and free between batches, so a refresh runs in between;
while another holds it, following waits. SIGINT and SIGTERM end it after the batch in hand. Killed outright, it goes on
from the last batch.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

import duckdb

from ingestion.destinations.choice import open_destination
from ingestion.run import AnyReader, IngestReport, Part, SourceReport, ingest
from ingestion.schema import SourceName, tables
from ingestion.sources import mongodb, oltp
from ingestion.sources.stream import StreamReader, Topics
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import AlreadyRunning, ConfigurationError
from warehouse.core.locks import writer_lock
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import Settings

FOLLOWED: tuple[SourceName, ...] = ("mongodb", "stream")
"""Followed when none is named. PostgreSQL too can be: its owner has to allow a publication and a slot first."""
INTERVAL_SECONDS = 2.0
"""How long to wait when nothing is new, and at most how long to gather changes for one batch."""
STATE = "_changes"
"""Beside the tables in the state of a source: {"token": place in its log}, committed with the load."""
BATCH_MESSAGES = 50_000
"""Messages per partition and batch."""
TOKEN_SECONDS = 300.0
"""A resume token moves on without changes, too: it is committed this often, or an idle log would outgrow it."""
_LOCK_SECONDS = 0.5

T = TypeVar("T")


@dataclass
class FollowReport:
    """What was followed."""

    batches: int = 0
    landed: dict[str, int] = field(default_factory=dict)
    """Source → new versions, deletions included."""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"batches": self.batches, "landed_rows": self.landed}


class _Feed(Protocol):
    """One source that is followed. A context manager."""

    source: SourceName

    def __enter__(self) -> _Feed: ...

    def __exit__(self, *exception: object) -> None: ...

    def gather(self) -> bool:
        """Whether there is something to land; takes no lock and holds nothing back."""
        ...

    def land(self) -> SourceReport:
        """Land it. The caller holds the writer's lock."""
        ...


class _Runs:
    """What every feed needs to land a batch."""

    def __init__(self, settings: Settings, endpoints: Endpoints, new_run_id: Callable[[], str]) -> None:
        self.settings = settings
        self.endpoints = endpoints
        self._new_run_id = new_run_id

    def ingest(self, source: SourceName, part: Part, *, full: bool = False) -> SourceReport:
        report: IngestReport = ingest(
            self.settings, self.endpoints, run_id=self._new_run_id(), sources=(source,), full=full, part=part
        )
        return report.sources[0]

    def state(self, source: SourceName) -> dict[str, Any]:
        with (
            open_warehouse(self.settings) as connection,
            open_destination(connection, self.settings) as destination,
        ):
            return destination.read_state(source)

    def token(self, source: SourceName, *, full: bool) -> Any:
        """Where the last load left the log of a source; None before the first, and when all is to be compared."""
        return None if full else self.state(source).get(STATE, {}).get("token")


class _Batch(Protocol):
    """What has changed, and the place in the source's log that comes after it."""

    @property
    def token(self) -> Any: ...

    @property
    def origins(self) -> set[str]:
        """The tables or collections that something changed in."""
        ...

    def __len__(self) -> int: ...


class _Log(Protocol):
    """An open log of changes. A context manager."""

    @property
    def token(self) -> Any:
        """The place from which it is read."""
        ...

    def __enter__(self) -> _Log: ...

    def __exit__(self, *exception: object) -> None: ...


B = TypeVar("B", bound=_Batch)


class _ChangesFeed(Generic[B]):
    """A source whose log tells which rows have changed: they are read anew, and their place is committed with them."""

    def __init__(
        self,
        runs: _Runs,
        source: SourceName,
        token: Any,
        log: _Log,
        gather: Callable[[], B],
        reader: Callable[[duckdb.DuckDBPyConnection, B], AnyReader],
        committed: Callable[[Any, SourceReport], None] = lambda token, report: None,
        *,
        full: bool,
    ) -> None:
        """Follow `source` from `token` on.

        Args:
            token: where the last load left it; None: everything lands first.
            gather: takes what has changed from the log.
            reader: reads the rows of a batch.
            committed: is told the token of each load.
        """
        self.source = source
        self._runs = runs
        self._tables = tables(source)
        self._token = token
        self._log = log
        self._gathered = gather
        self._reader = reader
        self._committed = committed
        self._full = full
        self._batch: B | None = None
        self._committed_at = time.monotonic()

    def __enter__(self) -> _ChangesFeed[B]:
        self._log.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._log.__exit__(*exception)

    def gather(self) -> bool:
        if self._token is None:
            return True  # the first load: everything, from after the moment at which the log was opened
        if not self._batch:
            self._batch = self._gathered()
        aged = time.monotonic() - self._committed_at > TOKEN_SECONDS
        return bool(self._batch) or (aged and self._batch.token != self._token)

    def land(self) -> SourceReport:
        batch = self._batch
        if batch is None:
            token = self._log.token
            report = self._runs.ingest(self.source, Part(state=_token_state(token)), full=self._full)
        else:
            token = batch.token
            part = Part(
                reader=lambda connection: self._reader(connection, batch),
                tables=frozenset(name for name, table in self._tables.items() if table.origin in batch.origins),
                state=_token_state(token),
            )
            report = self._runs.ingest(self.source, part)
        # only now: what failed to land is gathered no second time, it stays in hand
        self._token, self._batch, self._committed_at = token, None, time.monotonic()
        self._committed(token, report)
        return report


def _postgres_feed(runs: _Runs, uri: str, *, full: bool) -> _Feed:
    token = runs.token("oltp", full=full)
    changes = oltp.Changes(runs.settings, uri, list(tables("oltp").values()), token)

    def committed(token: str, report: SourceReport) -> None:
        changes.confirm(token)
        if alert := changes.health().alert():
            report.alerts.append(alert)

    return _ChangesFeed(
        runs,
        "oltp",
        token,
        changes,
        changes.gather,
        lambda connection, batch: oltp.ChangedReader(connection, runs.settings, uri, batch),
        committed,
        full=full,
    )


def _mongo_feed(runs: _Runs, uri: str, *, full: bool) -> _Feed:
    token = runs.token("mongodb", full=full)
    changes = mongodb.Changes(uri, list(tables("mongodb").values()), token)
    return _ChangesFeed(
        runs,
        "mongodb",
        token,
        changes,
        lambda: changes.gather(INTERVAL_SECONDS),
        lambda connection, batch: mongodb.ChangedReader(connection, runs.settings, uri, batch),
        full=full,
    )


class _StreamFeed:
    source: SourceName = "stream"

    def __init__(self, runs: _Runs, bootstrap: str, *, full: bool) -> None:
        self._runs = runs
        self._bootstrap = bootstrap
        self._full = full
        self._state: dict[str, Any] = {} if full else runs.state("stream")

    def __enter__(self) -> _StreamFeed:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is held between batches: topics and partitions may come."""

    def gather(self) -> bool:
        pinned = tables("stream")
        with Topics(self._runs.settings, self._bootstrap) as topics:
            topics.check_shape(list(pinned.values()))
            return any(topics.unread(table, self._state.get(name, {})) for name, table in pinned.items())

    def land(self) -> SourceReport:
        settings = self._runs.settings
        part = Part(reader=lambda found: StreamReader(found, settings, self._bootstrap, limit=BATCH_MESSAGES))
        report = self._runs.ingest("stream", part, full=self._full)
        self._full = False
        self._state = self._runs.state("stream")
        return report


def follow(
    settings: Settings,
    endpoints: Endpoints,
    *,
    new_run_id: Callable[[], str],
    sources: Sequence[SourceName] = FOLLOWED,
    full: bool = False,
    max_batches: int | None = None,
    stop: threading.Event | None = None,
    progress: Progress = silent,
) -> FollowReport:
    """Land micro-batches until `stop` is set, a signal says so, or `max_batches` were landed.

    Args:
        new_run_id: names each batch.
        full: begin with a comparison of every document and with the beginning of every topic.

    Raises:
        ConfigurationError: a source cannot be followed, or has no address.
        LoadIncomplete: changes or messages are lost (a log or a topic rolled over).
        WarehouseError: of a batch that failed; the batches before it have landed.
    """
    report = FollowReport()
    stop = stop or threading.Event()
    runs = _Runs(settings, endpoints, new_run_id)
    with _stopped_by_signals(stop), ExitStack() as stack:
        feeds = _under_lock(settings, stop, progress, lambda: [_feed(runs, source, full=full) for source in sources])
        for feed in feeds or ():
            stack.enter_context(feed)
        while feeds and not stop.is_set():
            landed = 0
            for feed in feeds:
                if report.batches == max_batches or stop.is_set():
                    return report
                if feed.gather() and (done := _under_lock(settings, stop, progress, feed.land)) is not None:
                    _count(report, done, progress)
                    landed += 1
            if not landed:
                stop.wait(INTERVAL_SECONDS)
    return report


def _feed(runs: _Runs, source: SourceName, *, full: bool) -> _Feed:
    endpoints = runs.endpoints
    addresses = {"oltp": endpoints.postgres_uri, "mongodb": endpoints.mongodb_uri, "stream": endpoints.kafka_bootstrap}
    if source not in addresses:
        raise ConfigurationError(
            f"{source} cannot be followed: nothing tells that a file has come",
            todo=f"run `warehouse ingest {source}` as often as you need, and follow {', '.join(addresses)}",
        )
    address = addresses[source]
    if address is None:
        raise ConfigurationError(
            f"there is no address for the source {source}", todo="set its *_URI, or `warehouse sources up`"
        )
    feeds: dict[str, Callable[..., _Feed]] = {"oltp": _postgres_feed, "mongodb": _mongo_feed, "stream": _StreamFeed}
    return feeds[source](runs, address, full=full)


def _under_lock(settings: Settings, stop: threading.Event, progress: Progress, work: Callable[[], T]) -> T | None:
    """Do `work` while nobody else writes; wait for whoever does. None when told to stop before it could begin."""
    told = False
    while not stop.is_set():
        try:
            with writer_lock(settings, "ingest --follow"):
                return work()
        except AlreadyRunning as error:
            if not told:
                progress(f"waiting: {error.what}")
                told = True
            stop.wait(_LOCK_SECONDS)
    return None


def _count(report: FollowReport, done: SourceReport, progress: Progress) -> None:
    new, deleted, quarantined = (done.total(name) for name in ("landed_rows", "deleted_rows", "quarantined_rows"))
    report.batches += 1
    report.landed[done.source] = report.landed.get(done.source, 0) + new + deleted
    progress(
        f"{done.source}: batch {report.batches}: {new:,} new, {deleted:,} deleted, {quarantined:,} quarantined, "
        f"{done.seconds:.1f} s"
    )
    for alert in done.alerts:
        progress(f"{done.source}: {alert}")


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`; what handled them before comes back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def tell(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _token_state(token: Any) -> dict[str, Any]:
    return {STATE: {"token": token}} if token else {}
