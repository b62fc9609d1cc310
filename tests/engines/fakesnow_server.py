"""A fakesnow server on loopback: Snowflake's protocol over a DuckDB in memory, for what it can and cannot show."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PASSPHRASE = "planted-passphrase-77c2"


def missing() -> str | None:
    """Why there is no server here; None when there is one."""
    if importlib.util.find_spec("fakesnow") is None:
        return "fakesnow is not installed: pip install 'fakesnow[server]'"
    return None


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start an empty server; gives its address, and ends it afterwards. Its stage lies below `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "fakesnow.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("serve_fakesnow.py")), str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder), "HOME": str(folder)},
        )
    try:
        _await(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def _await(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("fakesnow did not start; its log is fakesnow.log in the test's folder")


def write_private_key(path: Path) -> None:
    """A fresh key pair's private half, encrypted under PASSPHRASE."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSPHRASE.encode()),
        )
    )
