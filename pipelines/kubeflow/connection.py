"""Calls to the API server of Kubeflow Pipelines: who we are, what is tried again, and what an error means."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import kfp_server_api
import urllib3
from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp_server_api.exceptions import ApiException

from stillhouse.modules.errors import MachineError, UserError

Result = TypeVar("Result")

IN_CLUSTER = "http://ml-pipeline.{}.svc.cluster.local:8888"
# Where the token of a pod's service account is, as the KFP SDK has it.
TOKEN_OF_POD = os.environ.get(KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH)
TIMEOUT = (10.0, 60.0)  # seconds to connect, and to answer
# What may pass by itself. A call that ended so may have been carried out all the same.
PASSING = (408, 429, 500, 502, 503, 504)
CONFLICT = 409


@dataclass(frozen=True)
class Connection:
    """Where the server is and who we are; secrets are files that are read when they are needed."""

    host: str | None = None  # None: this process runs in the cluster
    namespace: str | None = None  # of a multi-user installation
    token_file: Path | None = None
    cookies_file: Path | None = None
    ca_cert: Path | None = None
    verify_tls: bool = True
    attempts: int = 5
    back_off_seconds: float = 1.0  # doubled after each attempt; the server's Retry-After goes first

    @property
    def address(self) -> str:
        """The server's address."""
        if self.host is None:
            return IN_CLUSTER.format(self.namespace or "kubeflow")
        return self.host.rstrip("/")


def _secret(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option}: cannot read {path}: {getattr(error, 'strerror', None) or 'no text'}") from error


class Server:
    """The API server."""

    def __init__(self, connection: Connection):
        """Prepares the calls; nothing is sent yet.

        Raises:
          UserError: the host is no address, or a file of secrets cannot be read.
        """
        self.connection = connection
        address = connection.address
        if not address.startswith(("http://", "https://")):
            raise UserError(f"--host: found {address!r}; expected http://... or https://...")
        configuration = kfp_server_api.Configuration(host=address)
        configuration.retries = urllib3.Retry(total=0, respect_retry_after_header=False)  # we do that ourselves
        configuration.verify_ssl = connection.verify_tls
        if connection.ca_cert:
            if not connection.ca_cert.is_file():
                raise UserError(f"--ca-cert: {connection.ca_cert}: no such file")
            configuration.ssl_ca_cert = str(connection.ca_cert)
        if connection.token_file:
            _secret(connection.token_file, "--token-file")
        # A pod of a cluster without authentication has no token.
        if connection.token_file or (connection.host is None and os.path.exists(TOKEN_OF_POD)):
            path = str(connection.token_file or TOKEN_OF_POD)
            configuration.api_key["authorization"] = ""
            configuration.api_key_prefix["authorization"] = "Bearer"
            # Tokens are renewed while a long run is watched.
            configuration.refresh_api_key_hook = ServiceAccountTokenVolumeCredentials(path).refresh_api_key_hook
        cookie = _secret(connection.cookies_file, "--cookies-file") if connection.cookies_file else None
        client = kfp_server_api.ApiClient(configuration, cookie=cookie)
        self.pipelines = kfp_server_api.PipelineServiceApi(client)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(client)
        self.experiments = kfp_server_api.ExperimentServiceApi(client)
        self.runs = kfp_server_api.RunServiceApi(client)
        self.recurring = kfp_server_api.RecurringRunServiceApi(client)

    def call(
        self,
        action: str,
        function: Callable[..., Result],
        *args: Any,
        applied: Callable[[], Result | None] = lambda: None,
        **options: Any,
    ) -> Result:
        """Calls the server, again if that may help.

        Args:
          action: what it is for, for messages.
          function: of one of the APIs, called with `args` and `options`.
          applied: asked after a failure whether the call was carried out all the same; gives its result then.

        Raises:
          UserError: the server does not know us, or refuses; one sentence.
          MachineError: it cannot be reached, or fails again and again.
        """
        connection = self.connection
        reason = ""
        for attempt in range(connection.attempts):
            if attempt:
                found = self._asked(applied)
                if found is not None:
                    return found
            wait = connection.back_off_seconds * 2**attempt
            try:
                return function(*args, _request_timeout=TIMEOUT, **options)
            except ApiException as error:
                reason = _reason(error)
                if error.status == CONFLICT:
                    found = applied()
                    if found is not None:
                        return found
                if error.status not in PASSING:
                    raise self._refusal(action, error) from error
                wait = _retry_after(error) or wait
            except urllib3.exceptions.HTTPError as error:
                reason = _cause(error)
                if isinstance(getattr(error, "reason", None), urllib3.exceptions.SSLError):
                    raise self._untrusted(reason) from error
            if attempt + 1 < connection.attempts:
                time.sleep(wait)
        found = self._asked(applied)
        if found is not None:
            return found
        hint = "check --host" if connection.host else "give --host, or run inside the cluster"
        raise MachineError(f"{connection.address}: {action}: {reason} ({connection.attempts} attempts); {hint}")

    def _asked(self, applied: Callable[[], Result | None]) -> Result | None:
        try:
            return applied()
        except (ApiException, urllib3.exceptions.HTTPError):
            return None

    def _untrusted(self, reason: str) -> UserError:
        return UserError(
            f"{self.connection.address}: its certificate is not trusted ({reason}); name its authority by --ca-cert"
        )

    def _refusal(self, action: str, error: ApiException) -> UserError:
        address = self.connection.address
        if error.status == 0:
            return self._untrusted(_reason(error))
        if error.status == 401:
            return UserError(
                f"{address}: not signed in (401); give --token-file or --cookies-file, or run inside the cluster"
            )
        if error.status == 403:
            where = f" in the namespace {self.connection.namespace}" if self.connection.namespace else ""
            return UserError(f"{address}: {action} is not allowed{where} (403); ask for the right, or name --namespace")
        return UserError(f"{address}: {action}: refused: {_reason(error)} ({error.status})")


def _reason(error: ApiException) -> str:
    """Returns what the server says is wrong."""
    try:
        told = json.loads(error.body)
        return str(told.get("message") or told.get("error") or error.reason)
    except (TypeError, ValueError, AttributeError):
        return str(error.reason)


def _cause(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return str(cause).partition(": ")[2] or str(cause) or type(cause).__name__


def _retry_after(error: ApiException) -> float | None:
    value = (error.headers or {}).get("Retry-After")
    return float(value) if value and value.isdigit() else None
