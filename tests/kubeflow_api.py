"""A small API server of Kubeflow Pipelines (v2beta1) on 127.0.0.1: pipelines, versions, experiments, runs.

It refuses what the real one refuses, and can be told to fail: each fault is used up by the next request that it fits.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml

from pipelines.kubeflow.check import reasons_against

PREFIX = "/apis/v2beta1/"


@dataclass
class Fault:
    """What happens to a request instead of, or after, being carried out."""

    method: str
    path: str  # begins with
    status: int = 0  # 0: the connection is cut
    headers: dict[str, str] = field(default_factory=dict)
    applied: bool = False  # it is carried out all the same
    seconds: float = 0.0  # before anything


class RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Api:
    """What the server knows, and what it is told to do wrong."""

    def __init__(self):
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.token: str | None = None  # that requests have to bring
        self.states: list[tuple[str, dict[str, str]]] = [("SUCCEEDED", {})]  # of a run and its tasks, look by look

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, content_type: str) -> dict[str, Any]:
        parts = path.removeprefix(PREFIX).split("/")
        match (method, *parts):
            case ("GET", "pipelines"):
                return {"pipelines": _named(self.pipelines, query)}
            case ("POST", "pipelines"):
                return self._create(self.pipelines, "pipeline_id", json.loads(body))
            case ("POST", "pipelines", "upload_version"):
                return self._upload(query, body, content_type)
            case ("GET", "pipelines", id_, "versions"):
                return {"pipeline_versions": [one for one in self.versions.values() if one["pipeline_id"] == id_]}
            case ("GET", "experiments"):
                return {"experiments": _named(self.experiments, query)}
            case ("POST", "experiments"):
                return self._create(self.experiments, "experiment_id", json.loads(body))
            case ("POST", "runs"):
                return self._run(json.loads(body))
            case ("GET", "runs"):
                return {"runs": _named(self.runs, query)}
            case ("GET", "runs", id_):
                return self._look(id_)
        raise RefusedError(404, f"no such path: {method} {path}")

    def _create(self, known: dict[str, Any], id_name: str, given: dict[str, Any]) -> dict[str, Any]:
        if any(one["display_name"] == given["display_name"] for one in known.values()):
            raise RefusedError(409, f"{given['display_name']} already exists")
        made = given | {id_name: str(uuid.uuid4())}
        known[made[id_name]] = made
        return made

    def _upload(self, query: dict[str, str], body: bytes, content_type: str) -> dict[str, Any]:
        if query["pipelineid"] not in self.pipelines:
            raise RefusedError(404, "the pipeline is not found")
        message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
        documents = list(yaml.safe_load_all(message.get_payload(0).get_payload(decode=True)))
        reasons = list(reasons_against(documents))
        if reasons:
            raise RefusedError(400, f"invalid pipeline: {reasons[0]}")
        same = [one for one in self.versions.values() if one["pipeline_id"] == query["pipelineid"]]
        if any(one["display_name"] == query["name"] for one in same):
            raise RefusedError(409, f"the version {query['name']} already exists")
        made = {
            "pipeline_id": query["pipelineid"],
            "pipeline_version_id": str(uuid.uuid4()),
            "display_name": query["name"],
            "pipeline_spec": documents[0],
        }
        self.versions[made["pipeline_version_id"]] = made
        return made

    def _run(self, given: dict[str, Any]) -> dict[str, Any]:
        version = self.versions.get(given["pipeline_version_reference"]["pipeline_version_id"])
        if version is None or given["experiment_id"] not in self.experiments:
            raise RefusedError(404, "the pipeline version or the experiment is not found")
        known = version["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        for name in given["runtime_config"].get("parameters") or {}:
            if name not in known:
                raise RefusedError(400, f"the pipeline has no parameter {name}")
        made = given | {"run_id": str(uuid.uuid4()), "state": "PENDING"}
        self.runs[made["run_id"]] = made
        return made

    def _look(self, id_: str) -> dict[str, Any]:
        if id_ not in self.runs:
            raise RefusedError(404, "the run is not found")
        state, tasks = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        details = [{"display_name": name, "state": of, "task_id": name} for name, of in tasks.items()]
        return self.runs[id_] | {"state": state, "run_details": {"task_details": details}}


def _named(known: dict[str, Any], query: dict[str, str]) -> list[dict[str, Any]]:
    predicates = json.loads(query["filter"])["predicates"] if "filter" in query else []
    return [one for one in known.values() if all(one[wanted["key"]] == wanted["stringValue"] for wanted in predicates)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        api: Api = self.server.api
        split = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        api.requests.append((self.command, split.path))
        fault = next(
            (one for one in api.faults if one.method == self.command and split.path.startswith(PREFIX + one.path)), None
        )
        if fault:
            api.faults.remove(fault)
            time.sleep(fault.seconds)
        try:
            if api.token and self.headers.get("authorization") != f"Bearer {api.token}":
                raise RefusedError(401, "who are you?")
            if fault and not fault.applied:
                raise RefusedError(fault.status, "told to fail")
            query = {name: values[-1] for name, values in parse_qs(split.query).items()}
            found = api.answer(self.command, split.path, query, body, self.headers.get("Content-Type", ""))
            if fault:
                raise RefusedError(fault.status, "told to fail after all")
            self._send(200, found, {})
        except RefusedError as refused:
            if refused.status == 0:
                self.close_connection = True
                self.connection.close()
                return
            self._send(refused.status, {"message": str(refused)}, fault.headers if fault else {})

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def _send(self, status: int, content: dict[str, Any], headers: dict[str, str]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(text))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[tuple[Api, str]]:
    """Gives a server and its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.api = Api()
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.api, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# The fields that the server speaks of are those of the published models.
assert {"display_name", "experiment_id", "pipeline_version_reference"} <= set(kfp_server_api.V2beta1Run.openapi_types)
