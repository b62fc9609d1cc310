"""A TLS server on loopback that says whether a client went on after its handshake: enough to see a refusal."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""What libpq sends before it speaks TLS."""


@dataclass
class Seen:
    """What the server saw."""

    port: int
    trusted: int = 0
    """Clients that sent something after the handshake: they trusted the certificate."""
    tried: int = 0
    done: threading.Event = field(default_factory=threading.Event)


def authority(folder: Path, name: str) -> tuple[Path, x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate authority; its certificate as a PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path, certificate, key


def server_files(
    folder: Path, host: str, issuer: tuple[Path, x509.Certificate, ec.EllipticCurvePrivateKey]
) -> tuple[Path, Path]:
    """Certificate and key of a server of that name (or address), signed by `issuer`."""
    _, signer, signing = issuer
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    names: list[x509.GeneralName] = [x509.DNSName(host)]
    with suppress(ValueError):
        names = [x509.IPAddress(ipaddress.ip_address(host))]
    certificate = (
        _builder(name, signer.subject, key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signing, hashes.SHA256())
    )
    cert_path, key_path = folder / f"{host}.crt", folder / f"{host}.key"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_path, key_path


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )


@contextmanager
def tls_server(certificate: Path, key: Path, *, postgres: bool = False) -> Iterator[Seen]:
    """Serve on 127.0.0.1 until the context ends. `postgres`: the client asks for TLS first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    seen, stop = Seen(listener.getsockname()[1]), threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=_talk, args=(context, connection, seen, postgres), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(5)
        listener.close()


def _talk(context: ssl.SSLContext, connection: socket.socket, seen: Seen, postgres: bool) -> None:
    with connection, suppress(OSError):
        connection.settimeout(5)
        seen.tried += 1
        if postgres:
            if connection.recv(8) != _SSL_REQUEST:
                return
            connection.sendall(b"S")
        with context.wrap_socket(connection, server_side=True) as secure:
            if secure.recv(1):
                seen.trusted += 1
                seen.done.set()
