"""The object storage of the pipeline root as tasks themselves reach it: S3 (minio://, s3://) and Google's (gs://).

Kubeflow's launcher carries artifacts between the storage and a task's folders, and lends its way to nobody. What a task
needs is set when the pipeline is compiled, from kubeflow.storage, as environment variables and a Secret.
"""

import hashlib
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from pyarrow import fs

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Storage

ENDPOINT = "STILLHOUSE_STORAGE_ENDPOINT"
REGION = "STILLHOUSE_STORAGE_REGION"
ACCESS_KEY = "STILLHOUSE_STORAGE_ACCESS_KEY"
SECRET_KEY = "STILLHOUSE_STORAGE_SECRET_KEY"
S3_SCHEMES = ("s3", "minio")
GOOGLE_SCHEME = "gs"
SECONDS_TO_CONNECT, SECONDS_TO_ANSWER = 10, 60
PIECE = 1 << 20  # bytes


class NotFoundError(Exception):
    """There is no such object."""


def environment_of(storage: Storage) -> dict[str, str]:
    """Returns the environment variables of a container that name the storage."""
    variables = {ENDPOINT: storage.endpoint, REGION: storage.region}
    return {name: value for name, value in variables.items() if value}


def secret_of(storage: Storage) -> tuple[str, dict[str, str]] | None:
    """Returns the name of the Secret, and its keys by the environment variables that get their values."""
    if storage.secret is None:
        return None
    return storage.secret, {ACCESS_KEY: storage.access_key, SECRET_KEY: storage.secret_key}


class ObjectStorage:
    """Objects by their URIs."""

    def __init__(self, uri: str, environment: Mapping[str, str] = os.environ):
        """Connects to the storage of a URI as the environment says.

        Raises:
          UserError: the scheme is unknown.
        """
        scheme = urlsplit(uri).scheme
        if scheme in S3_SCHEMES:
            endpoint = urlsplit(environment.get(ENDPOINT, ""))
            options = {
                "access_key": environment.get(ACCESS_KEY),
                "secret_key": environment.get(SECRET_KEY),
                "region": environment.get(REGION) or ("us-east-1" if endpoint.netloc else None),
                "endpoint_override": endpoint.netloc or None,
                "scheme": endpoint.scheme or "https",
                "connect_timeout": SECONDS_TO_CONNECT,
                "request_timeout": SECONDS_TO_ANSWER,
            }
            self._files = fs.S3FileSystem(**{name: value for name, value in options.items() if value is not None})
        elif scheme == GOOGLE_SCHEME:
            self._files = fs.GcsFileSystem()
        else:
            raise UserError(f"found {uri!r}; expected a URI that begins with minio://, s3:// or gs://")
        self._scheme = scheme
        self._endpoint = environment.get(ENDPOINT) or f"the servers of {scheme}://"

    def read(self, uri: str) -> bytes:
        """Returns the content of a small object.

        Raises:
          NotFoundError: there is none.
          UserError: the storage cannot be reached, or does not let us.
        """
        try:
            with self._files.open_input_stream(self._path(uri), compression=None) as stream:
                return stream.read()
        except OSError as error:
            raise self._explained(error, "read", uri) from error

    def write(self, uri: str, content: bytes) -> None:
        """Writes an object, which appears whole, in the place of an older one.

        Raises:
          UserError: as `read`.
        """
        try:
            with self._files.open_output_stream(self._path(uri), compression=None) as stream:
                stream.write(content)
        except OSError as error:
            raise self._explained(error, "write", uri) from error

    def download(self, uri: str, path: str) -> tuple[int, str]:
        """Writes an object into the file `path` and returns its size and SHA-256.

        Raises:
          NotFoundError, UserError: as `read`.
        """
        digest, size = hashlib.sha256(), 0
        try:
            stream = self._files.open_input_stream(self._path(uri), compression=None)
        except OSError as error:
            raise self._explained(error, "read", uri) from error
        with stream, open(path, "wb") as file:
            while True:
                try:
                    piece = stream.read(PIECE)
                except OSError as error:
                    raise self._explained(error, "read", uri) from error
                if not piece:
                    return size, digest.hexdigest()
                size += len(piece)
                digest.update(piece)
                file.write(piece)

    def _path(self, uri: str) -> str:
        scheme, _, path = uri.partition("://")
        if scheme != self._scheme:
            raise UserError(f"found {uri!r} in a storage of {self._scheme}:// URIs")
        return path

    def _explained(self, error: OSError, action: str, uri: str) -> Exception:
        if isinstance(error, FileNotFoundError) or "NO_SUCH_KEY" in str(error) or "HTTP status 404" in str(error):
            return NotFoundError(uri)
        lines = str(error).splitlines() or [type(error).__name__]
        return UserError(
            f"cannot {action} {uri} at {self._endpoint}: {lines[0]}; correct kubeflow.storage, or set kubeflow.cache: "
            "false to do without results of earlier runs"
        )
