"""Object storage: the one place that talks to S3.

An :class:`ObjectPath` answers like the part of `pathlib.Path` that the lake and the drops need. DuckDB reads objects
itself, through httpfs and a secret that lives in the connection. It writes through :class:`EncryptedWrites`, because
httpfs can demand a KMS key but not the store's own encryption (AES256), which every store has.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import duckdb
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from warehouse.core.errors import ConfigurationError, SourceUnavailable, WarehouseError
from warehouse.core.settings import Settings

ENCRYPTION = "AES256"
"""Demanded with every write and looked for afterwards."""
WRITE_PROTOCOL = "s3encrypted"
_PART_BYTES = 16 * 2**20
_READ_BYTES = 8 * 2**20
_MARK = "rekeyed"
_NOT_A_WORD = re.compile(r"[^A-Za-z0-9]")


@dataclass(frozen=True)
class ObjectFacts:
    """What the store says of an object; size in bytes."""

    st_size: int
    etag: str
    encryption: str | None


@dataclass(frozen=True, order=True)
class ObjectPath:
    """An object, or the folder that objects share a prefix of. Compared by bucket and key."""

    bucket: str
    key: str
    client: Any = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.bucket, f"{self.key}/{name}" if self.key else name, self.client)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rsplit("/", 1)[-1]

    @property
    def parent(self) -> ObjectPath:
        """The folder."""
        return ObjectPath(self.bucket, self.key.rpartition("/")[0], self.client)

    def stat(self) -> ObjectFacts:
        """Size, version and encryption. Raises SourceUnavailable when there is no such object."""
        with explained(self.bucket):
            head = self.client.head_object(Bucket=self.bucket, Key=self.key)
        return ObjectFacts(head["ContentLength"], head["ETag"], head.get("ServerSideEncryption"))

    def is_file(self) -> bool:
        """Whether the object exists."""
        return any(path.key == self.key for path in self._below(self.key))

    def files(self) -> list[ObjectPath]:
        """Every object below this folder, in the order of their keys."""
        return list(self._below(self.key + "/" if self.key else ""))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole object as text."""
        with explained(self.bucket):
            body = self.client.get_object(Bucket=self.bucket, Key=self.key)["Body"].read()
        return cast(bytes, body).decode(encoding)

    def open_read(self) -> io.BufferedIOBase:
        """A seekable file of this version of the object: a read fails when it is replaced meanwhile."""
        facts = self.stat()
        return cast(io.BufferedIOBase, _ReadFile(self, facts))

    def write(self, data: bytes) -> None:
        """Put the object whole, encrypted by the store.

        Raises:
            ConfigurationError: the store did not encrypt it; it is deleted again.
        """
        with explained(self.bucket):
            self.client.put_object(Bucket=self.bucket, Key=self.key, Body=data, ServerSideEncryption=ENCRYPTION)
        self.check_encrypted()

    def check_encrypted(self) -> None:
        """Raise ConfigurationError, and delete the object, when the store did not encrypt it as demanded."""
        if self.stat().encryption != ENCRYPTION:
            self.unlink()
            raise ConfigurationError(
                f"the object store did not encrypt what was written to bucket {self.bucket} ({ENCRYPTION})",
                kept="everything landed before; the unencrypted object was deleted",
                todo="allow server-side encryption on the bucket, or name another LAKE_URI",
            )

    def unlink(self, missing_ok: bool = True) -> None:
        """Delete the object; S3 does not tell whether there was one."""
        with explained(self.bucket):
            self.client.delete_object(Bucket=self.bucket, Key=self.key)

    def copy_to(self, target: ObjectPath) -> None:
        """Copy within the store, encrypted."""
        with explained(self.bucket):
            self.client.copy_object(
                Bucket=target.bucket,
                Key=target.key,
                CopySource={"Bucket": self.bucket, "Key": self.key},
                ServerSideEncryption=ENCRYPTION,
            )

    def rewrite(self, mark: str) -> bool:
        """Have the store write the object anew where it lies, under a data key of now; content and name stay.

        Atomic, as every write of the store. `mark` is kept with the object: False when that was done already.

        Raises:
            ConfigurationError: the store did not encrypt it; the object stays.
        """
        with explained(self.bucket):
            head = self.client.head_object(Bucket=self.bucket, Key=self.key)
            if head["Metadata"].get(_MARK) == mark and head.get("ServerSideEncryption") == ENCRYPTION:
                return False
            written = self.client.copy_object(
                Bucket=self.bucket,
                Key=self.key,
                CopySource={"Bucket": self.bucket, "Key": self.key},
                CopySourceIfMatch=head["ETag"],
                MetadataDirective="REPLACE",
                Metadata={_MARK: mark},
                ServerSideEncryption=ENCRYPTION,
            )
        if written.get("ServerSideEncryption") != ENCRYPTION:
            raise ConfigurationError(
                f"the object store did not encrypt what was written anew in bucket {self.bucket} ({ENCRYPTION})",
                kept="every object, with what it holds",
                todo="allow server-side encryption on the bucket, then run this again",
            )
        return True

    def _below(self, prefix: str) -> Iterator[ObjectPath]:
        with explained(self.bucket):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for found in page.get("Contents", ()):
                    yield ObjectPath(self.bucket, found["Key"], self.client)


class _ReadFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """Ranges of one version of an object."""

    def __init__(self, path: ObjectPath, facts: ObjectFacts) -> None:
        self._object = path
        self._etag = facts.etag
        super().__init__(None, path.key, mode="rb", block_size=_READ_BYTES, cache_type="readahead", size=facts.st_size)

    def _fetch_range(self, start: int, end: int) -> bytes:
        with explained(self._object.bucket):
            found = self._object.client.get_object(
                Bucket=self._object.bucket, Key=self._object.key, Range=f"bytes={start}-{end - 1}", IfMatch=self._etag
            )
            return cast(bytes, found["Body"].read())


class _WriteFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A multipart upload under demanded encryption; it becomes an object only when it is complete."""

    def __init__(self, system: EncryptedWrites, path: str, mode: str) -> None:
        self._bucket, _, self._key = path.partition("/")
        self._client = system.client
        self._parts: list[dict[str, Any]] = []
        super().__init__(system, path, mode=mode, block_size=_PART_BYTES)

    def _initiate_upload(self) -> None:
        self._target = {"Bucket": self._bucket, "Key": self._key}
        started = self._client.create_multipart_upload(**self._target, ServerSideEncryption=ENCRYPTION)
        self._target["UploadId"] = started["UploadId"]

    def _upload_chunk(self, final: bool = False) -> bool:
        number = len(self._parts) + 1
        try:
            sent = self._client.upload_part(**self._target, PartNumber=number, Body=self.buffer.getvalue())
            self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            if final:
                self._client.complete_multipart_upload(**self._target, MultipartUpload={"Parts": self._parts})
        except Exception:
            with suppress(Exception):
                self._client.abort_multipart_upload(**self._target)
            raise
        return True


class EncryptedWrites(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """What DuckDB writes to as `s3encrypted://bucket/key`; it writes and does nothing else."""

    protocol = WRITE_PROTOCOL
    cachable = False

    def __init__(self, client: Any) -> None:
        super().__init__()
        self.client = client

    def _open(self, path: str, mode: str = "rb", **_: Any) -> _WriteFile:
        return _WriteFile(self, path, mode)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Nothing exists here: DuckDB asks before it writes, and a load's folder is its own."""
        raise FileNotFoundError(path)


def object_folder(settings: Settings, uri: str, name: str) -> ObjectPath:
    """The folder that the setting `name` (LAKE_URI, DROPS_URI) names with `uri`.

    Raises:
        ConfigurationError: it names no bucket, or the credentials are not set.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(f"{name} is not the address of a bucket", todo=f"{name}=s3://bucket/prefix")
    return ObjectPath(parts.netloc, parts.path.strip("/"), _client(settings))


def know_bucket(connection: duckdb.DuckDBPyConnection, settings: Settings, folder: ObjectPath) -> None:
    """Let this connection read `folder`'s bucket (httpfs) and write to it (encrypted).

    The secret is the connection's own: it is in no file, and no other connection sees it.
    """
    key_id, secret, token = _credentials(settings)
    options = {
        "key_id": key_id,
        "secret": secret,
        "region": settings.aws_region,
        **({"session_token": token} if token else {}),
    }
    plain = ""
    if settings.lake_endpoint:
        endpoint = urlsplit(settings.lake_endpoint)
        options |= {"endpoint": endpoint.netloc, "url_style": "path"}
        plain = ", use_ssl false" if endpoint.scheme == "http" else ""
    listed = ", ".join(f"{name} '{_quoted(value)}'" for name, value in options.items())
    try:
        connection.execute(
            f"create or replace temporary secret objects_{_NOT_A_WORD.sub('_', folder.bucket)} "
            f"(type s3, scope 's3://{_quoted(folder.bucket)}', {listed}{plain})"
        )
    except duckdb.Error as error:
        raise ConfigurationError(f"the S3 settings are not usable ({type(error).__name__})") from None
    if WRITE_PROTOCOL not in connection.list_filesystems():
        connection.register_filesystem(EncryptedWrites(folder.client))


@contextmanager
def explained(bucket: str) -> Iterator[None]:
    """Turn the client's errors into ours, which name the bucket and the store's code, never a key."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _store_error(bucket, str(error.response.get("Error", {}).get("Code", "unknown"))) from None
    except BotoCoreError as error:
        raise _store_error(bucket, type(error).__name__) from None


def _store_error(bucket: str, code: str) -> WarehouseError:
    kept = "everything landed before"
    if code == "NoSuchBucket":
        return ConfigurationError(f"there is no bucket {bucket}", kept=kept, todo="create it, or correct the address")
    if code in {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"}:
        return ConfigurationError(
            f"the object store refused the credentials for bucket {bucket} ({code})",
            kept=kept,
            todo="correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what they may do",
        )
    return SourceUnavailable(
        f"the object store failed on bucket {bucket} ({code})", kept=kept, todo="run this again when it answers"
    )


def _client(settings: Settings) -> Any:
    import boto3
    from botocore.config import Config

    key_id, secret, token = _credentials(settings)
    return boto3.client(
        "s3",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        aws_session_token=token,
        region_name=settings.aws_region,
        endpoint_url=settings.lake_endpoint,
        config=Config(
            retries={"max_attempts": 4, "mode": "standard"},
            connect_timeout=10,
            s3={"addressing_style": "path" if settings.lake_endpoint else "auto"},
        ),
    )


def _credentials(settings: Settings) -> tuple[str, str, str | None]:
    if not settings.aws_access_key_id or settings.aws_secret_access_key is None:
        raise ConfigurationError(
            "an s3:// address is set without credentials",
            todo="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_REGION, AWS_SESSION_TOKEN where needed)",
        )
    token = settings.aws_session_token
    return (
        settings.aws_access_key_id,
        settings.aws_secret_access_key.get_secret_value(),
        token.get_secret_value() if token else None,
    )


def _quoted(value: str) -> str:
    return value.replace("'", "''")
