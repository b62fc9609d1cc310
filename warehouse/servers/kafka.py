"""A Kafka broker from the package noida-db: loopback, no accounts.

It works in memory and writes everything to one file about a second after a change, and again when it is
stopped with SIGTERM. After SIGKILL the events of the last moments are gone, and their offsets are given out
anew. Good for trying and testing; KAFKA_BOOTSTRAP is for more.
"""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from warehouse.core.errors import SourceUnavailable
from warehouse.core.kafka import client_config
from warehouse.core.settings import Settings
from warehouse.servers import process
from warehouse.servers.base import EmbeddedServer
from warehouse.servers.state import ServerState

_SECONDS = 5.0


class Kafka(EmbeddedServer):
    """The company's event stream, empty until the simulation fills it."""

    name = "kafka"
    title = "Kafka"
    variable = "KAFKA_BOOTSTRAP"
    requirement = "noida-db"
    program = "noida-db"
    stop_seconds = 600.0  # it writes everything once more: 5 s for 300,000 events
    unwell_seconds = 60.0  # and may be busy with just that

    def check(self) -> None:
        """See the base class."""
        self.check_program([self._binary(), "version"])

    def prepare(self, state: ServerState) -> None:
        """See the base class."""
        self.data.mkdir(mode=0o700, exist_ok=True)

    def start(self, state: ServerState) -> psutil.Process:
        """See the base class."""
        command = [
            # not the console script, which would be killed in its stead
            *(self._binary(), "start"),
            *("--data-dir", str(self.data)),
            *("--host", process.HOST),
            *("--only", "kafka"),
            *("--kafka-port", str(state.port)),
        ]
        return process.spawn(command, self.log)

    def answers(self, state: ServerState) -> bool:
        """See the base class."""
        try:
            socket.create_connection((process.HOST, state.port), timeout=2).close()
            _list_topics({"bootstrap.servers": self.reader_address(state)}, seconds=2)
        except (OSError, KafkaException):
            return False
        return True

    def provision(self, state: ServerState) -> None:
        """Nothing: topics are made by those who write to them."""

    def version(self, state: ServerState) -> str:
        """See the base class; the protocol tells no version, so it is the package's."""
        try:
            _list_topics({"bootstrap.servers": self.reader_address(state)}, seconds=_SECONDS)
        except KafkaException as error:
            raise _silent(error) from None
        return process.run([self._binary(), "version"]).stdout.strip()

    def reader_address(self, state: ServerState) -> str:
        """See the base class."""
        return f"{process.HOST}:{state.port}"

    def _binary(self) -> str:
        package = importlib.util.find_spec("noida_db")
        for folder in (package.submodule_search_locations or ()) if package is not None else ():
            binary = Path(folder) / "noida-db"
            if binary.is_file():
                return str(binary)
        raise self.missing("the package noida-db is not installed")


def probe(settings: Settings) -> str:
    """The number of brokers at KAFKA_BOOTSTRAP, in words; SourceUnavailable when none answers."""
    config = client_config(settings, settings.kafka_bootstrap or "")
    try:
        brokers = _list_topics(config, seconds=_SECONDS)
    except KafkaException as error:
        raise _silent(error) from None
    return f"{brokers} broker" + ("s" if brokers != 1 else "")


def _list_topics(config: dict[str, str | int | bool], seconds: float) -> int:
    # log_level 0: librdkafka would tell the terminal of every attempt
    client = AdminClient({**config, "log_level": 0})
    return len(client.list_topics(timeout=seconds).brokers)


def _silent(error: KafkaException) -> SourceUnavailable:
    return SourceUnavailable(
        f"Kafka does not answer ({error.args[0].name()})",
        todo="check the broker, and KAFKA_BOOTSTRAP if it is yours",
    )
