"""Calls to the API server of Kubeflow Pipelines: who we are, what is tried again, and what an error means.

Built on urllib3 and on models of the answers (api.py), not on the SDK: kfp.Client looks for the server in its
constructor, takes cookies and namespace from a file in the home directory, has no timeouts, and lets nobody choose what
is tried again; the generated client below it, kfp_server_api, has renamed nearly all of its methods in 2.1.0, follows
redirects of writes, and makes an object of any answer. The REST paths and fields have stayed.

Reads are tried again by urllib3. A write that failed may have been carried out all the same, so it is tried again here,
after the server has been asked whether it was. Nor is a write repeated where a redirect points, which may be anybody's.
"""

import http.client
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urljoin

import certifi
import pydantic
import urllib3

from stillhouse import __version__
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.pipelines.kubeflow.api import Answer, Listing

Result = TypeVar("Result")
AnswerType = TypeVar("AnswerType", bound=Answer)
Item = TypeVar("Item")

IN_CLUSTER = "http://ml-pipeline.{}.svc.cluster.local:8888"
API = "apis/v2beta1"
# Where the token of a pod's service account is, as the KFP SDK has it.
TOKEN_OF_POD = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", "/var/run/secrets/kubeflow/pipelines/token")
TIMEOUT = (10.0, 60.0)  # seconds to connect, and to answer
SHORT_TIMEOUT = (3.0, 10.0)
# What may pass by itself. A call that ended so may have been carried out all the same.
TRANSIENT = (408, 429, 500, 502, 503, 504)
NOT_FOUND, CONFLICT = 404, 409
PAGE = 100  # items
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


class ApiError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes):
        """Keeps what explains it."""
        self.status = status
        self.headers = headers
        self.reason = _reason(status, body)
        super().__init__(f"{status} {self.reason}")


class _AnswerError(Exception):
    """An answer that is not what was asked for; its text is the answer."""


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
        self._retries = urllib3.Retry(
            total=connection.attempts - 1,
            allowed_methods=["GET"],  # others only where the server was not reached
            status_forcelist=TRANSIENT,
            backoff_factor=connection.back_off_seconds,
            other=0,  # a certificate that is not trusted
            raise_on_status=False,
        )
        if connection.ca_cert and not connection.ca_cert.is_file():
            raise UserError(f"--ca-cert: {connection.ca_cert}: no such file")
        self._pool = urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED" if connection.verify_tls else "CERT_NONE",
            ca_certs=str(connection.ca_cert or certifi.where()),
        )
        self._token_file = connection.token_file
        # A pod of a cluster without authentication has no token.
        if self._token_file is None and connection.host is None and os.path.exists(TOKEN_OF_POD):
            self._token_file = Path(TOKEN_OF_POD)
        self._headers()
        # urllib3 warns of every retry, and of a certificate that --insecure leaves unchecked, in its own words.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

    def _headers(self) -> dict[str, str]:
        """Returns who we are; read anew for each request, as tokens are renewed while a long run is watched."""
        headers = {"User-Agent": f"stillhouse/{__version__}", "Accept": "application/json"}
        if self._token_file:
            headers["Authorization"] = f"Bearer {_secret(self._token_file, '--token-file')}"
        if self.connection.cookies_file:
            headers["Cookie"] = _secret(self.connection.cookies_file, "--cookies-file")
        return headers

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: tuple[float, float] = TIMEOUT,
        **content: Any,
    ) -> str:
        url = f"{self.connection.address}/{API}/{path}"
        if given := {key: value for key, value in (query or {}).items() if value is not None}:
            url += f"?{urlencode(given)}"
        connect, read = timeout
        response = self._pool.request(
            method,
            url,
            headers=self._headers() | dict(headers or {}),
            redirect=method == "GET",
            retries=self._retries,
            timeout=urllib3.Timeout(connect=connect, read=read),
            **content,
        )
        if not 200 <= response.status < 300:
            raise ApiError(response.status, response.headers, response.data)
        return response.data.decode()

    def get(
        self, path: str, answer: type[AnswerType], timeout: tuple[float, float] = TIMEOUT, **query: Any
    ) -> AnswerType:
        """Returns what is at a path of the API; arguments of the query that are None are left out.

        Raises:
          ApiError, or an error of urllib3: explained by `read` and `write`, within which all requests are made.
        """
        return _understood(self._send("GET", path, query, timeout=timeout), answer)

    def listed(
        self, path: str, page: type[Listing[Item]], timeout: tuple[float, float] = TIMEOUT, **query: Any
    ) -> Iterator[Item]:
        """Yields the items of a listing, page by page; raises as `get` does."""
        token: str | None = None
        while True:
            found = self.get(path, page, timeout, page_size=PAGE, page_token=token, **query)
            yield from found.items or []
            token = found.next_page_token
            if not token:
                return

    def post(self, path: str, answer: type[AnswerType], body: pydantic.BaseModel | dict[str, Any]) -> AnswerType:
        """Sends an object, whose fields that are None are left out, and returns the answer; raises as `get` does."""
        if isinstance(body, pydantic.BaseModel):
            body = body.model_dump(mode="json", exclude_none=True)
        text = json.dumps({key: value for key, value in body.items() if value is not None})
        headers = {"Content-Type": "application/json"}
        return _understood(self._send("POST", path, headers=headers, body=text.encode()), answer)

    def upload(self, path: str, answer: type[AnswerType], file: str, content: str, **query: Any) -> AnswerType:
        """Sends a text as a file of that name, and returns the answer; raises as `get` does."""
        part = (file, content.encode(), "application/octet-stream")
        return _understood(self._send("POST", path, query, fields={"uploadfile": part}), answer)

    def delete(self, path: str) -> None:
        """Deletes what is at a path of the API; raises as `get` does."""
        _understood(self._send("DELETE", path), Answer)

    def read(self, action: str, function: Callable[[], Result]) -> Result:
        """Returns what `function` gets from the server.

        Args:
          action: what it is for, for messages.
          function: only asks.

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
          function: makes one request.
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
                except (ApiError, urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError) as error:
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
        except ApiError as error:
            if error.status in TRANSIENT:
                raise self._unreachable(action, error.reason) from error
            raise self._refusal(action, error) from error
        except urllib3.exceptions.HTTPError as error:
            if isinstance(getattr(error, "reason", error), urllib3.exceptions.SSLError):
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

    def _refusal(self, action: str, error: ApiError) -> UserError:
        address = self.connection.address
        target = error.headers.get("Location")
        if target and 300 <= error.status < 400:
            target = urljoin(address, target).partition("?")[0]  # without what may be secret
            return UserError(
                f"{address}: {action}: found a redirect to {target} ({error.status}); expected an answer, as changes "
                "are not sent to another place; correct --host, or sign in with --token-file or --cookies-file"
            )
        if error.status == 401:
            return UserError(
                f"{address}: not signed in (401); give --token-file or --cookies-file, or run inside the cluster"
            )
        if error.status == 403:
            namespace = f" in the namespace {self.connection.namespace}" if self.connection.namespace else ""
            return UserError(
                f"{address}: {action} is not allowed{namespace} (403); ask for the right, or name --namespace"
            )
        return UserError(f"{address}: {action}: refused: {error.reason} ({error.status})")


def _understood(text: str, answer: type[AnswerType]) -> AnswerType:
    try:
        return answer.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise _AnswerError(text) from error


def _reason(status: int, body: bytes) -> str:
    """Returns what the server says is wrong: its gRPC gateway has `message`, its upload handler `error_message`."""
    try:
        answer = json.loads(body)
        details = answer.get("details") or [{}]
        keys = ("message", "error_message", "error")
        return str(details[0].get("message") or next(answer[key] for key in keys if answer.get(key)))
    except (TypeError, ValueError, AttributeError, LookupError, StopIteration):
        return http.client.responses.get(status, "no reason given")


def _cause(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return str(cause).partition(": ")[2] or str(cause) or type(cause).__name__
