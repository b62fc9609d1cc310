"""Daemons: started apart from us, recognised for certain, stopped without fail."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from warehouse.servers import process

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


def start(tmp_path: Path, program: str = SLEEP) -> psutil.Process:
    """A Python daemon which has this folder among its arguments, past its start-up."""
    log = tmp_path / "log"
    daemon = process.spawn([sys.executable, "-c", program, str(tmp_path)], log)
    deadline = time.monotonic() + 20
    while "ready" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[psutil.Process]:
    started = start(tmp_path)
    yield started
    process.stop([started], signal.SIGKILL, 5)


def test_a_daemon_has_its_own_session_and_nothing_of_ours_open(daemon: psutil.Process) -> None:
    assert os.getsid(daemon.pid) == daemon.pid
    assert daemon.cwd() == "/"
    assert {file.path for file in daemon.open_files()} <= {str(Path(daemon.cmdline()[-1]) / "log")}


def test_it_inherits_no_secret_and_no_foreign_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBT_ENV_SECRET_WAREHOUSE_KEY", "k3y")
    monkeypatch.setenv("PGPORT", "1")
    started = start(tmp_path)
    inherited = started.environ()
    process.stop([started], signal.SIGKILL, 5)
    assert {"DBT_ENV_SECRET_WAREHOUSE_KEY", "PGPORT"} & inherited.keys() == set()
    assert (inherited["LC_ALL"], inherited["TZ"]) == ("C", "UTC")


def test_a_process_is_recognised_by_number_and_birth(daemon: psutil.Process) -> None:
    born = daemon.create_time()
    assert process.recorded(daemon.pid, born) == daemon
    assert process.recorded(daemon.pid, born - 60) is None  # the number was given to another process
    assert process.recorded(None, born) is None


def test_a_dead_process_is_not_recognised(daemon: psutil.Process) -> None:
    born = daemon.create_time()
    process.stop([daemon], signal.SIGTERM, 5)
    assert not process.alive(daemon)
    assert process.recorded(daemon.pid, born) is None


def test_a_process_is_found_by_its_folder_and_only_if_it_is_that_program(
    daemon: psutil.Process, tmp_path: Path
) -> None:
    assert process.find(daemon.name(), tmp_path) == [daemon]
    assert process.find("postgres", tmp_path) == []
    assert process.find(daemon.name(), tmp_path / "elsewhere") == []


def test_one_that_does_not_listen_to_the_signal_is_killed(tmp_path: Path) -> None:
    deaf = start(tmp_path, DEAF)
    process.stop([deaf], signal.SIGTERM, 0.3)
    assert not process.alive(deaf)


def test_stopping_what_is_gone_does_nothing(daemon: psutil.Process) -> None:
    for _ in range(2):
        process.stop([daemon], signal.SIGTERM, 5)
    assert not process.alive(daemon)


def test_a_port_that_is_taken_is_not_free_and_its_holder_is_known(daemon: psutil.Process) -> None:
    with socket.socket() as server:
        server.bind((process.HOST, 0))
        server.listen()
        port = server.getsockname()[1]
        assert not process.is_free(port)
        assert process.listens(psutil.Process(), port)
        assert not process.listens(daemon, port)
    assert process.is_free(port)


def test_a_full_log_is_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(2**24)
    process.stop([start(tmp_path)], signal.SIGKILL, 5)
    assert log.stat().st_size < 100
    assert (tmp_path / "log.previous").stat().st_size == 2**24


def test_the_size_of_a_folder_counts_all_files(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "deep" / "er" / "b").write_bytes(b"345")
    assert process.size_of(tmp_path) == 5
    assert process.size_of(tmp_path / "nothing") == 0
