"""An S3 server on 127.0.0.1 (moto's), with one bucket, as a cluster has one for its artifacts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config
from moto.moto_api._internal import moto_api_backend
from moto.server import ThreadedMotoServer

BUCKET = "mlpipeline"
REGION = "us-east-1"


@dataclass(frozen=True)
class ObjectStore:
    """The bucket, by keys."""

    endpoint: str
    client: Any

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def write(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=key)

    def require_credentials(self) -> None:
        """From now on, only users that the server knows may do anything."""
        _reset_authorisation(self.endpoint, "0")

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.read(key))


def _reset_authorisation(endpoint: str, actions_without_it: str) -> None:
    headers = {"Content-Type": "text/plain"}
    with urlopen(Request(f"{endpoint}/moto-api/reset-auth", actions_without_it.encode(), headers)):
        pass


@contextmanager
def serving() -> Iterator[ObjectStore]:
    """Gives an empty bucket, gone at the end."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    moto_api_backend.reset()  # what a server of this process has had before
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )
        client.create_bucket(Bucket=BUCKET)
        yield ObjectStore(endpoint, client)
        _reset_authorisation(endpoint, "inf")
    finally:
        server.stop()
