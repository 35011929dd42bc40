"""S3 through the MinIO SDK, with what the SDK lacks: conditional writes, bounded reads, errors that say what to do.

| to …                         | call                                  | when another writer was first |
|------------------------------|---------------------------------------|-------------------------------|
| file bytes under their digest | `put`, `put_file`                     | (same bytes)                  |
| create a name once            | `put_if_absent(key, data)`            | returns False                 |
| move a pointer                | `replace_if_match(key, data, etag)`   | raises ConflictError          |

The SDK's `put_object` sends no conditional headers (passing them as metadata silently overwrites), so conditional writes
go through a presigned PUT that carries `If-None-Match` or `If-Match`.

SeaweedFS guards a condition by a lock that it polls and that lapses after five seconds: of twenty writers at once two won, after
seconds each. So the writers of an embedded server, which are all on its machine, take turns by a file lock (`turns`); another
endpoint's conditional writes are its own business.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import certifi
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error

from models.errors import ConfigError, ConflictError, StoreError

MAX_DOCUMENT_BYTES = 16 * 2**20
MAX_BLOB_BYTES = 4 * 2**30

_CHUNK = 1 << 20
_REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidTokenId", "ExpiredToken"}
_MISSING = {"NoSuchKey", "NoSuchObject", "ResourceNotFound"}
_PROBE_KEY = "probes/conditional-write"
_CONDITIONAL_ATTEMPTS = 5


@dataclass(frozen=True)
class ObjectInfo:
    """What the store says of an object without reading it."""

    key: str
    size: int  # bytes
    etag: str


@dataclass(frozen=True)
class StoredObject:
    """An object's bytes and the tag that a conditional replacement needs."""

    data: bytes
    etag: str


class ObjectStore:
    """One bucket of one endpoint. Threads may share it; processes make their own.

    `turns` is a folder of lock files: conditional writers of one key that name the same folder go one after the other.
    """

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        *,
        bucket: str,
        secure: bool = True,
        region: str = "us-east-1",
        turns: Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._turns = turns
        self.bucket = bucket
        self._conditional_checked = False
        self._http = urllib3.PoolManager(
            maxsize=16,
            timeout=urllib3.Timeout(connect=5.0, read=60.0),
            retries=urllib3.Retry(total=3, backoff_factor=0.1, status_forcelist=(500, 502, 503, 504)),
            cert_reqs="CERT_REQUIRED",
            ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
        )
        try:
            self._minio = Minio(
                endpoint,
                access_key=access_key,
                secret_key=secret_key,
                secure=secure,
                region=region,
                http_client=self._http,
            )
        except ValueError as err:
            raise ConfigError(f"store endpoint {endpoint!r} is not host:port ({err})") from None

    def ensure_bucket(self) -> None:
        """Make the bucket unless it is there.

        Raises:
            StoreError: the endpoint is out of reach, or refuses the key or the bucket.
        """
        with self._errors("make bucket", self.bucket):
            try:
                if not self._minio.bucket_exists(self.bucket):
                    self._minio.make_bucket(self.bucket)
            except S3Error as err:
                if err.code != "BucketAlreadyOwnedByYou":  # another process made it just now
                    raise

    def stat(self, key: str) -> ObjectInfo | None:
        """Size and tag of an object, None where there is none.

        Raises:
            StoreError: out of reach or refused.
        """
        with self._errors("look up", key):
            try:
                found = self._minio.stat_object(self.bucket, key)
            except S3Error as err:
                if err.code in _MISSING:
                    return None
                raise
            return ObjectInfo(key, int(found.size or 0), _plain(found.etag))

    def find(self, key: str, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> StoredObject | None:
        """An object's bytes and tag, None where there is none.

        Raises:
            StoreError: out of reach, refused, or larger than `max_bytes`.
        """
        buffer = io.BytesIO()
        etag = self._read(key, buffer, max_bytes)
        return None if etag is None else StoredObject(buffer.getvalue(), etag)

    def get(self, key: str, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
        """An object's bytes.

        Raises:
            StoreError: no such object, out of reach, refused, or larger than `max_bytes`.
        """
        found = self.find(key, max_bytes=max_bytes)
        if found is None:
            raise StoreError(f"no object {key} in bucket {self.bucket} at {self.endpoint}")
        return found.data

    def download(self, key: str, path: Path, *, max_bytes: int = MAX_BLOB_BYTES) -> None:
        """Stream an object into a file, replaced at once or left as it was.

        Raises:
            StoreError: no such object, out of reach, refused, or larger than `max_bytes`.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                etag = self._read(key, file, max_bytes)
            if etag is None:
                raise StoreError(f"no object {key} in bucket {self.bucket} at {self.endpoint}")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in the store's order.

        Raises:
            StoreError: out of reach or refused.
        """
        with self._errors("list", prefix):
            for item in self._minio.list_objects(self.bucket, prefix=prefix, recursive=True):
                if not item.is_dir:
                    yield ObjectInfo(str(item.object_name), int(item.size or 0), _plain(item.etag))

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whatever was there.

        Raises:
            StoreError: out of reach or refused.
        """
        with self._errors("write", key):
            self._minio.put_object(self.bucket, key, io.BytesIO(data), len(data))

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file; the object appears complete or not at all.

        Raises:
            StoreError: out of reach or refused.
        """
        with self._errors("write", key):
            self._minio.fput_object(self.bucket, key, str(path))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object; of several writers exactly one gets True, and nothing is ever overwritten.

        Raises:
            StoreError: out of reach or refused.
        """
        return self._conditional_put(key, data, {"If-None-Match": "*"}) is not None

    def replace_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Replace an object that still has this tag; returns the new tag.

        Never use it to create: some servers accept If-Match on a missing key.

        Raises:
            ConflictError: another writer replaced it since.
            StoreError: out of reach or refused.
        """
        new = self._conditional_put(key, data, {"If-Match": f'"{etag}"'})
        if new is None:
            raise ConflictError(f"{key} was changed by another writer since it was read; read it again")
        return new

    def require_conditional_writes(self) -> None:
        """Prove once per client that the endpoint honours `If-None-Match`: publishing rests on it.

        Raises:
            StoreError: it overwrites in spite of the header.
        """
        if self._conditional_checked:
            return
        self.put_if_absent(_PROBE_KEY, b"cryfed")
        if self.put_if_absent(_PROBE_KEY, b"cryfed"):
            raise StoreError(
                f"the store at {self.endpoint} ignores conditional writes (If-None-Match), so two releases could "
                "overwrite each other; use MinIO, SeaweedFS, Garage, S3 or the embedded server"
            )
        self._conditional_checked = True

    def _read(self, key: str, sink: io.BytesIO | io.BufferedWriter, max_bytes: int) -> str | None:
        with self._errors("read", key):
            try:
                response = self._minio.get_object(self.bucket, key)
            except S3Error as err:
                if err.code in _MISSING:
                    return None
                raise
            try:
                read = 0
                for chunk in response.stream(_CHUNK):
                    read += len(chunk)
                    if read > max_bytes:
                        raise StoreError(f"object {key} is larger than the {max_bytes} bytes allowed for it")
                    sink.write(chunk)
                return _plain(response.headers.get("ETag"))
            finally:
                response.close()
                response.release_conn()

    def _conditional_put(self, key: str, data: bytes, condition: dict[str, str]) -> str | None:
        """The new object's tag, or None where the condition did not hold."""
        # a writer that dies after the headers must not leave an empty object, as SeaweedFS 4.48 makes one without the digest
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        headers = {**condition, "Content-MD5": digest}
        with self._turn(key), self._errors("write", key):
            for _ in range(_CONDITIONAL_ATTEMPTS):
                url = self._minio.presigned_put_object(self.bucket, key, expires=timedelta(minutes=5))
                # a lost answer must not be retried: our own first attempt would then look like another writer
                retries = urllib3.Retry(total=3, read=0, status=0, other=0, backoff_factor=0.1)
                answer = self._http.request("PUT", url, body=data, headers=headers, retries=retries)
                if answer.status == 200:
                    return _plain(answer.headers.get("ETag"))
                if answer.status == 412:
                    return None
                if answer.status != 409:  # S3's "a conflicting write is in flight, try again"
                    raise StoreError(_refusal(self.endpoint, "write", key, answer.status, answer.data))
            raise ConflictError(f"{key} is being written by others; try again")

    @contextlib.contextmanager
    def _turn(self, key: str) -> Iterator[None]:
        """Wait for the other conditional writers of this key; the lock falls with its holder, however that one ends."""
        if self._turns is None:
            yield
            return
        name = hashlib.sha256(f"{self.bucket}/{key}".encode()).hexdigest()[
            :2
        ]  # at most 256 files for any number of keys
        try:
            self._turns.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = (self._turns / name).open("a")
        except OSError as err:
            raise StoreError(
                f"cannot write {key}: no lock can be taken in {self._turns} ({err.strerror}); make it writable"
            ) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)  # its holder's request ends by the client's own timeouts
            yield

    @contextlib.contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except S3Error as err:
            code = str(err.code)
            raise StoreError(_explain(self.endpoint, verb, key, code, str(err.message))) from None
        except InvalidResponseError as err:
            raise StoreError(
                f"cannot {verb} {key}: {self.endpoint} does not speak S3 ({str(err)[:200]}); check store.endpoint"
            ) from None
        except (urllib3.exceptions.HTTPError, MinioException) as err:
            cause = str(getattr(err, "reason", None) or err)
            raise StoreError(
                f"cannot {verb} {key}: the store at {self.endpoint} is out of reach ({cause[:200]}); check "
                "store.endpoint and store.secure, or leave the endpoint empty to use the embedded server"
            ) from None


def _plain(etag: str | None) -> str:
    return (etag or "").strip('"')


def _explain(endpoint: str, verb: str, key: str, code: str, message: str) -> str:
    if code in _REFUSED:
        return (
            f"cannot {verb} {key}: the store at {endpoint} refused the key ({code}); check store.access_key and "
            "store.secret_key (CRYFED_STORE__ACCESS_KEY, CRYFED_STORE__SECRET_KEY) and the key's rights"
        )
    if code == "NoSuchBucket":
        return f"cannot {verb} {key}: the bucket is gone from {endpoint}; open the store again to make it"
    return f"cannot {verb} {key} at {endpoint}: {code}: {message}"


def _refusal(endpoint: str, verb: str, key: str, status: int, body: bytes) -> str:
    text = body[:2000].decode(errors="replace")
    code = text.split("<Code>", 1)[1].split("</Code>", 1)[0] if "<Code>" in text else f"HTTP {status}"
    return _explain(endpoint, verb, key, "AccessDenied" if status == 403 else code, text[:200])
