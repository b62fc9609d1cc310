"""The three source systems: the user's own where a `*_URI` is set, else embedded servers.

Embedded servers are daemons. They outlive the command that started them and run until `down`; a later `up`
adopts those that answer and replaces those that do not. Data, log and record of each lie below
`WAREHOUSE_HOME/servers/<name>/` and are kept between runs.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from filelock import FileLock, Timeout

from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import AlreadyRunning, ConfigurationError, SourceUnavailable
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import Settings
from warehouse.servers import kafka, mongodb, postgres
from warehouse.servers.base import EmbeddedServer, ServerMissing
from warehouse.servers.process import size_of
from warehouse.servers.state import ServerState, load

__all__ = ["ServerMissing", "ServerStatus", "down", "resolve", "status", "up"]

OnMissing = Callable[[ServerMissing], None]

_LOCK_SECONDS = 900  # longer than the longest clean shutdown


@dataclass(frozen=True)
class ServerStatus:
    """One source system as it is now.

    Attributes:
        name: `postgres`, `mongodb` or `kafka`.
        kind: started by us, or an address of the user's.
        running: whether it passes its health check.
        detail: "healthy", or what is wrong with it.
        version: as the server says; None when it does not answer.
        port, pid: of an embedded server that has a process.
        data_bytes: what an embedded server occupies on disk.
    """

    name: str
    kind: Literal["embedded", "yours"]
    running: bool
    detail: str
    version: str | None = None
    port: int | None = None
    pid: int | None = None
    data_bytes: int | None = None


def up(settings: Settings, progress: Progress = silent, *, on_missing: OnMissing | None = None) -> Endpoints:
    """Start or adopt an embedded server for every address that is unset; return all addresses.

    Args:
        progress: told one line per server.
        on_missing: called, instead of raising, for a server that this machine cannot run; its address is
            then None, and its source can still be read from file drops.

    Raises:
        ServerMissing: this machine cannot run one of them, and there is no `on_missing`.
        SourceUnavailable: one does not start; it names its log.
        ConfigurationError: WAREHOUSE_HOME cannot be written.
        AlreadyRunning: another process has been starting or stopping them for minutes.
    """
    states: dict[str, ServerState] = {}
    servers = _embedded(settings)
    if servers:
        with _exclusive(settings, progress):
            for server in servers:
                try:
                    states[server.name] = server.up(_new_password, progress)
                except ServerMissing as error:
                    _report(error, on_missing)
    return _endpoints(settings, states)


def resolve(settings: Settings, *, on_missing: OnMissing | None = None) -> Endpoints:
    """The addresses, starting nothing.

    Args:
        on_missing: as for `up`.

    Raises:
        ServerMissing: this machine cannot run one of them, and there is no `on_missing`.
        SourceUnavailable: an embedded server is not running.
    """
    states: dict[str, ServerState] = {}
    for server in _embedded(settings):
        state = load(server.record)
        if state is not None and state.pid is not None and server.running(state) is not None:
            states[server.name] = state
            continue
        try:
            server.check()
        except ServerMissing as error:
            _report(error, on_missing)
            continue
        raise SourceUnavailable(
            f"the embedded {server.title} is not running",
            kept="its data are untouched",
            todo=f"run `warehouse sources up`, or set {server.variable} to a server of your own",
        )
    return _endpoints(settings, states)


def down(settings: Settings, progress: Progress = silent) -> list[str]:
    """Shut down cleanly every embedded server of this home, also one that an address has replaced since.

    Returns the names of those that were running. Again: nothing happens.
    """
    if not Home.of(settings).servers.exists():
        return []
    with _exclusive(settings, progress):
        return [server.name for server in _all(settings) if server.down(progress)]


def status(settings: Settings) -> list[ServerStatus]:
    """Every source system with its health, asked now; starts nothing; a failure is a row, not an error."""
    embedded = {server.name for server in _embedded(settings)}
    return [
        _status_of_embedded(server) if server.name in embedded else _status_of_yours(server, settings)
        for server in _all(settings)
    ]


def _all(settings: Settings) -> tuple[EmbeddedServer, ...]:
    folder = Home.of(settings).servers
    return tuple(kind(folder / kind.name) for kind in (postgres.Postgres, mongodb.MongoDB, kafka.Kafka))


def _embedded(settings: Settings) -> list[EmbeddedServer]:
    return [server for server in _all(settings) if _address_of_yours(server, settings) is None]


def _address_of_yours(server: EmbeddedServer, settings: Settings) -> str | None:
    address: str | None = getattr(settings, server.variable.lower())
    return address


def _endpoints(settings: Settings, states: dict[str, ServerState]) -> Endpoints:
    reader: dict[str, str | None] = {}
    admin: dict[str, str | None] = {}
    for server in _all(settings):
        state = states.get(server.name)
        yours = _address_of_yours(server, settings)
        reader[server.name] = yours if state is None else server.reader_address(state)
        admin[server.name] = None if state is None else server.admin_address(state)
    return Endpoints(
        postgres_uri=reader["postgres"],
        mongodb_uri=reader["mongodb"],
        kafka_bootstrap=reader["kafka"],
        postgres_admin_uri=admin["postgres"],
        mongodb_admin_uri=admin["mongodb"],
    )


def _status_of_embedded(server: EmbeddedServer) -> ServerStatus:
    found = ServerStatus(server.name, "embedded", running=False, detail="stopped", data_bytes=size_of(server.data))
    try:
        state = load(server.record) or ServerState()
        process = server.running(state)
        if process is None:
            server.check()
            return found
        found = replace(found, port=state.port, pid=process.pid)
        return replace(found, running=True, detail="healthy", version=server.version(state))
    except SourceUnavailable as error:
        return replace(found, detail=error.what)


def _status_of_yours(server: EmbeddedServer, settings: Settings) -> ServerStatus:
    try:
        if server.name == "postgres":
            version = postgres.probe(settings.postgres_uri or "")
        elif server.name == "mongodb":
            version = mongodb.probe(settings.mongodb_uri or "")
        else:
            version = kafka.probe(settings)
    except SourceUnavailable as error:
        return ServerStatus(server.name, "yours", running=False, detail=error.what)
    return ServerStatus(server.name, "yours", running=True, detail="healthy", version=version)


def _report(error: ServerMissing, on_missing: OnMissing | None) -> None:
    if on_missing is None:
        raise error
    on_missing(error)


def _new_password() -> str:
    return secrets.token_urlsafe(24)


@contextmanager
def _exclusive(settings: Settings, progress: Progress) -> Iterator[None]:
    """One process at a time starts or stops servers; the operating system frees the lock of one that dies."""
    folder = Home.of(settings).servers
    # PostgreSQL may run as another user (see Account), who must get through to its own folder but see nothing
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    except OSError as error:
        raise ConfigurationError(
            f"the folder of the embedded servers cannot be made: {error.strerror}",
            todo=f"make {folder} writable, or set WAREHOUSE_HOME to a folder that is",
        ) from None
    lock = FileLock(folder / "servers.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("waiting for another process that starts or stops the servers")
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout:
            raise AlreadyRunning(
                "another process is still starting or stopping the embedded servers",
                todo="wait for it to end, then run this again",
            ) from None
    try:
        yield
    finally:
        lock.release()
