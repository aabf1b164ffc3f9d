"""Calls to the API server of Kubeflow Pipelines: who we are, what is tried again, and what an error means.

Built on kfp_server_api, the generated client, and not on kfp.Client around it: that one looks for the server in its
constructor, takes cookies and namespace from a file in the home directory, has no timeouts, and lets nobody choose what
is tried again. Reads are tried again by urllib3. A write that failed may have been carried out all the same, so it is
tried again here, after the server has been asked whether it was. Nor is a write repeated where a redirect points, which
may be anybody's. Of any answer the client makes an object, empty if need be; so answers are compared with the API's
models first.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin

import kfp_server_api
import urllib3
from dateutil import parser as time_parser
from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp_server_api.exceptions import ApiException

from stillhouse.modules.errors import MachineError, UserError

Result = TypeVar("Result")

IN_CLUSTER = "http://ml-pipeline.{}.svc.cluster.local:8888"
# Where the token of a pod's service account is, as the KFP SDK has it.
TOKEN_OF_POD = os.environ.get(KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH)
TIMEOUT = (10.0, 60.0)  # seconds to connect, and to answer
SHORT_TIMEOUT = (3.0, 10.0)
# What may pass by itself. A call that ended so may have been carried out all the same.
TRANSIENT = (408, 429, 500, 502, 503, 504)
CONFLICT = 409
# What an object of the API has in any case.
ID_OF = {
    "V2beta1Pipeline": "pipeline_id",
    "V2beta1PipelineVersion": "pipeline_version_id",
    "V2beta1Experiment": "experiment_id",
    "V2beta1Run": "run_id",
    "V2beta1RecurringRun": "recurring_run_id",
}
MAX_SHOWN = 60  # characters of an answer, in a message


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
    timeout: tuple[float, float] = TIMEOUT  # of a listing
    back_off_seconds: float = 1.0  # doubled after each attempt; the server's Retry-After goes first

    @property
    def is_configured(self) -> bool:
        """Whether there is a server to ask: its address was given, or this process runs in a cluster's pod."""
        return self.host is not None or "KUBERNETES_SERVICE_HOST" in os.environ

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


class _AnswerError(Exception):
    """An answer that is not what was asked for; its text is the answer."""


class _Client(kfp_server_api.ApiClient):
    """The generated client, without its redirects of writes, and with a look at what is answered."""

    def __init__(self, configuration: kfp_server_api.Configuration, cookie: str | None):
        super().__init__(configuration, cookie=cookie)
        pool = self.rest_client.pool_manager
        send = pool.urlopen

        def send_without_redirect(method: str, url: str, redirect: bool = True, **options: Any) -> Any:
            return send(method, url, redirect=redirect and method == "GET", **options)

        pool.urlopen = send_without_redirect

    def deserialize(self, response: Any, response_type: str) -> Any:
        try:
            answer = json.loads(response.data)
        except ValueError as error:
            raise _AnswerError(response.data) from error
        if not isinstance(answer, dict) or not _fits(answer, response_type):
            raise _AnswerError(response.data)
        # An empty listing is {}.
        model = getattr(kfp_server_api, response_type, None)
        if answer and model and not answer.keys() & set(model.attribute_map.values()):
            raise _AnswerError(response.data)
        return super().deserialize(response, response_type)


def _fits(answer: Any, type_name: str) -> bool:
    """Returns whether JSON is a value of a type of the API, as the generated models name it."""
    if answer is None or type_name == "object":
        return True
    if type_name.startswith("list["):
        return isinstance(answer, list) and all(_fits(element, type_name[len("list[") : -1]) for element in answer)
    if type_name.startswith("dict("):
        return isinstance(answer, dict)
    if type_name == "datetime":
        return isinstance(answer, str) and _is_time(answer)
    if type_name == "int":
        return isinstance(answer, int) or (isinstance(answer, str) and answer.isdecimal())
    model = getattr(kfp_server_api, type_name, None)
    if model is None or not model.openapi_types:  # a primitive type, or an enumeration
        return not isinstance(answer, dict | list)
    if not isinstance(answer, dict):
        return False
    fields = {name: answer.get(key) for name, key in model.attribute_map.items()}
    has_id = type_name not in ID_OF or bool(fields[ID_OF[type_name]])
    return has_id and all(_fits(value, model.openapi_types[name]) for name, value in fields.items())


def _is_time(text: str) -> bool:
    try:
        time_parser.parse(text)
    except (ValueError, OverflowError):
        return False
    return True


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
        configuration.retries = self._retries = urllib3.Retry(
            total=connection.attempts - 1,
            allowed_methods=["GET"],  # others only where the server was not reached
            status_forcelist=TRANSIENT,
            backoff_factor=connection.back_off_seconds,
            other=0,  # a certificate that is not trusted
            raise_on_status=False,
        )
        # It warns of every retry, in its own words. The level of its parent is set anew by each Configuration.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
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
        client = self._client = _Client(configuration, cookie)
        self.pipelines = kfp_server_api.PipelineServiceApi(client)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(client)
        self.experiments = kfp_server_api.ExperimentServiceApi(client)
        self.runs = kfp_server_api.RunServiceApi(client)
        self.recurring = kfp_server_api.RecurringRunServiceApi(client)

    def read(self, action: str, function: Callable[[], Result]) -> Result:
        """Returns what `function` gets from the server.

        Args:
          action: what it is for, for messages.
          function: only asks; with TIMEOUT for every request.

        Raises:
          UserError: the server does not know us, or refuses; one sentence.
          MachineError: it cannot be reached, or fails again and again.
        """
        with self._explained(action):
            return function()

    def write(self, action: str, function: Callable[[], Result], applied: Callable[[], Result | None]) -> Result:
        """Lets `function` change something on the server, and returns what it returns.

        Args:
          action: what it is for, for messages.
          function: makes one request, with TIMEOUT.
          applied: asked after a failure whether the request was carried out all the same; returns its result then, or
            None, whereupon the request is made again.

        Raises:
          UserError: the server does not know us, or refuses; one sentence.
          MachineError: it cannot be reached, fails again and again, or does not tell whether the request was applied.
        """
        with self._explained(action):
            attempts_left, back_off = self.connection.attempts, self.connection.back_off_seconds
            while True:
                attempts_left -= 1
                try:
                    return function()
                except (ApiException, urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError) as error:
                    failure = error
                status = getattr(failure, "status", None)  # None: there was no answer
                if status not in (None, CONFLICT, *TRANSIENT):
                    raise failure
                is_last = status == CONFLICT or not attempts_left
                if not is_last:
                    time.sleep(self._retry_after(failure) or back_off)
                if (result := applied()) is not None:
                    return result
                if is_last:
                    raise failure
                back_off *= 2

    def _retry_after(self, failure: Exception) -> float | None:
        """Returns how many seconds the server asks us to wait, if it does."""
        header = (getattr(failure, "headers", None) or {}).get("Retry-After")
        return self._retries.parse_retry_after(header) if header else None

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Puts one sentence of ours in the place of the libraries' errors, and of answers that are none."""
        try:
            yield
        except (_AnswerError, UnicodeDecodeError) as error:
            raise self._misunderstood(action, error) from error
        except ApiException as error:
            if error.status in TRANSIENT:
                raise self._unreachable(action, _reason(error)) from error
            raise self._refusal(action, error) from error
        except urllib3.exceptions.HTTPError as error:
            if isinstance(getattr(error, "reason", None), urllib3.exceptions.SSLError):
                raise self._untrusted(_cause(error)) from error
            raise self._unreachable(action, _cause(error)) from error

    def _unreachable(self, action: str, reason: str) -> MachineError:
        hint = "check --host" if self.connection.host else "give --host, or run inside the cluster"
        count = self.connection.attempts
        attempts = f"{count} attempt{'s' if count > 1 else ''}"
        return MachineError(f"{self.connection.address}: {action}: {reason} ({attempts}); {hint}")

    def _untrusted(self, reason: str) -> UserError:
        return UserError(
            f"{self.connection.address}: its certificate is not trusted ({reason}); pass its CA certificate with "
            "--ca-cert"
        )

    def _misunderstood(self, action: str, error: _AnswerError | UnicodeDecodeError) -> UserError:
        address, answer = self.connection.address, str(error)
        # To those who are not signed in, a proxy shows a page.
        if answer.lstrip().startswith("<"):
            return UserError(
                f"{address}: {action}: found a web page; expected the API's answer; give --token-file or "
                "--cookies-file to sign in, or correct --host"
            )
        shown = answer if len(answer) <= MAX_SHOWN else f"{answer[:MAX_SHOWN]}..."
        return UserError(
            f"{address}: {action}: found the answer {shown!r}; expected that of Kubeflow Pipelines (API v2beta1); "
            "correct --host"
        )

    def _refusal(self, action: str, error: ApiException) -> UserError:
        address = self.connection.address
        target = (error.headers or {}).get("Location")
        if target and 300 <= error.status < 400:
            target = urljoin(address, target).partition("?")[0]  # without what may be secret
            return UserError(
                f"{address}: {action}: found a redirect to {target} ({error.status}); expected an answer, as changes "
                "are not sent to another place; correct --host, or sign in with --token-file or --cookies-file"
            )
        if error.status == 0:
            return self._untrusted(_reason(error))
        if error.status == 401:
            return UserError(
                f"{address}: not signed in (401); give --token-file or --cookies-file, or run inside the cluster"
            )
        if error.status == 403:
            namespace = f" in the namespace {self.connection.namespace}" if self.connection.namespace else ""
            return UserError(
                f"{address}: {action} is not allowed{namespace} (403); ask for the right, or name --namespace"
            )
        return UserError(f"{address}: {action}: refused: {_reason(error)} ({error.status})")


def _reason(error: ApiException) -> str:
    """Returns what the server says is wrong."""
    try:
        answer = json.loads(error.body)
        return str(answer.get("message") or answer.get("error") or error.reason)
    except (TypeError, ValueError, AttributeError):
        return str(error.reason)


def _cause(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return str(cause).partition(": ")[2] or str(cause) or type(cause).__name__
