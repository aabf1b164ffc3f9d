"""A small API server of Kubeflow Pipelines (v2beta1) on 127.0.0.1: pipelines, versions, experiments, runs, recurring
runs. Its state is a file, so that another server goes on with it.

It answers as the real one's answers are recorded (pipelines/kubeflow/recorded), of 2.17 or of the backend without MLMD
that comes after it, and accepts and refuses what that one does. It can be told to fail: each fault is used up by the
next request that it fits. Runs end at once, as `states` says, or are really run by `Api.launch`.
"""

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from croniter import croniter
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

PREFIX = "/apis/v2beta1/"
KINDS = ("pipelines", "versions", "experiments", "runs", "recurring")
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED")
# Codes of gRPC by the status of HTTP that they become.
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
NUMBERS = ("NUMBER_INTEGER", "NUMBER_DOUBLE")
PIPELINE_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"


@dataclass
class Fault:
    """What happens to a request instead of, or after, being carried out."""

    method: str
    path: str  # begins with
    status: int = 0  # 0: the connection is cut
    headers: dict[str, str] = field(default_factory=dict)
    applied: bool = False  # it is carried out all the same
    seconds: float = 0.0  # before anything
    answer: str | None = None  # instead of JSON that says so


class RefusedError(Exception):
    """An answer that is no success; an upload's has another form."""

    def __init__(self, status: int, message: str, upload: bool = False):
        super().__init__(message)
        self.status, self.upload = status, upload

    @property
    def content(self) -> dict[str, Any]:
        if self.upload:
            return {"error_message": str(self), "error_details": f"{self}\ngithub.com/kubeflow/pipelines/backend/..."}
        code, inner = CODES.get(self.status, 2), str(self).rpartition("error: ")[2]
        detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": inner}
        return {"code": code, "message": str(self), "details": [detail]}


# Runs documents with parameters; tells of the nodes of the workflow, of their states and reasons; raises if one fails.
Launch = Callable[[list[dict[str, Any]], str, dict[str, Any], Callable[[str, str, str], None]], None]


class Api:
    """What the server knows, and what it is told to do wrong."""

    def __init__(self, file: Path | None = None, launch: Launch | None = None, mlmd: bool = True):
        self.file, self.launch, self.mlmd = file, launch, mlmd
        known = json.loads(file.read_text()) if file and file.exists() else {}
        self.pipelines: dict[str, dict[str, Any]] = known.get("pipelines", {})
        self.versions: dict[str, dict[str, Any]] = known.get("versions", {})
        self.experiments: dict[str, dict[str, Any]] = known.get("experiments", {})
        self.runs: dict[str, dict[str, Any]] = known.get("runs", {})
        self.recurring: dict[str, dict[str, Any]] = known.get("recurring", {})
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.token: str | None = None  # that requests have to bring
        # Of a run, and of the nodes of its workflow with the reasons of those that have one, look by look.
        self.states: list[tuple[str, list[tuple[str, str, str]]]] = [("SUCCEEDED", [])]
        self.threads: list[threading.Thread] = []

    def save(self) -> None:
        if self.file:
            self.file.write_text(json.dumps({kind: getattr(self, kind) for kind in KINDS}))

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, content_type: str) -> dict[str, Any]:
        parts = path.removeprefix(PREFIX).split("/")
        match (method, *parts):
            case ("GET", "pipelines"):
                return {"pipelines": _listed(self.pipelines, query)}
            case ("POST", "pipelines"):
                return self._create(self.pipelines, "pipeline_id", json.loads(body))
            case ("POST", "pipelines", "upload_version"):
                return self._upload(query, body, content_type)
            case ("GET", "pipelines", id_, "versions"):
                return {"pipeline_versions": [one for one in self.versions.values() if one["pipeline_id"] == id_]}
            case ("GET", "pipelines", _, "versions", id_):
                return _one(self.versions, id_, "pipeline version")
            case ("GET", "experiments"):
                return {"experiments": _listed(self.experiments, query)}
            case ("POST", "experiments"):
                return self._create(self.experiments, "experiment_id", json.loads(body))
            case ("POST", "runs"):
                return self._run(json.loads(body))
            case ("GET", "runs"):
                of = [one for one in _listed(self.runs, query) if query.get("experiment_id") == one["experiment_id"]]
                return {
                    "runs": [_shown(one) for one in (of[::-1] if query.get("sort_by") == "created_at desc" else of)]
                }
            case ("GET", "runs", id_):
                return self._look(id_, query)
            case ("POST", "recurringruns"):
                return self._recur(json.loads(body))
            case ("GET", "recurringruns"):
                return {"recurringRuns": _listed(self.recurring, query)}
            case ("GET", "recurringruns", id_):
                return _one(self.recurring, id_, "recurring run")
            case ("DELETE", "recurringruns", id_):
                _one(self.recurring, id_, "recurring run")
                del self.recurring[id_]
                return {}
            case ("POST", "recurringruns", action) if action.endswith((":enable", ":disable")):
                id_, _, what = action.partition(":")
                _one(self.recurring, id_, "recurring run")["status"] = f"{what.upper()}D"
                return {}
        raise RefusedError(404, f"no such path: {method} {path}")

    def _create(self, known: dict[str, Any], id_name: str, given: dict[str, Any]) -> dict[str, Any]:
        if any(one["display_name"] == given["display_name"] for one in known.values()):
            raise RefusedError(
                409,
                f"Failed to create a new object: Already exist error: The name {given['display_name']} already exist. "
                "Please specify a new name",
            )
        made = given | {id_name: str(uuid.uuid4())}
        known[made[id_name]] = made
        return made

    def _upload(self, query: dict[str, str], body: bytes, content_type: str) -> dict[str, Any]:
        if query["pipelineid"] not in self.pipelines:
            raise RefusedError(404, "Failed to create a pipeline version", upload=True)
        message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
        documents = list(yaml.load_all(message.get_payload(0).get_payload(decode=True), Loader=yaml.CSafeLoader))
        spec, platform = _template(documents)
        same = [one for one in self.versions.values() if one["pipeline_id"] == query["pipelineid"]]
        if any(one["display_name"] == query["name"] for one in same):
            raise RefusedError(409, "Failed to create a pipeline version", upload=True)
        made = {
            "pipeline_id": query["pipelineid"],
            "pipeline_version_id": str(uuid.uuid4()),
            "display_name": query["name"],
            "pipeline_spec": spec,
            "platform": platform,
        }
        self.versions[made["pipeline_version_id"]] = made
        return made

    def delete_pipeline(self, name: str) -> None:
        """As somebody does in the UI: its versions go with it."""
        (id_,) = (id_ for id_, one in self.pipelines.items() if one["display_name"] == name)
        del self.pipelines[id_]
        self.versions = {key: one for key, one in self.versions.items() if one["pipeline_id"] != id_}

    def _checked_version(self, given: dict[str, Any]) -> dict[str, Any]:
        version = self.versions.get(given["pipeline_version_reference"]["pipeline_version_id"])
        if version is None or given["experiment_id"] not in self.experiments:
            raise RefusedError(404, "ResourceNotFoundError: the pipeline version or the experiment not found")
        known = version["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        prefix = "Failed to generate the ExecutionSpec: invalid pipeline job inputs: Invalid input error: "
        for name, value in (given["runtime_config"].get("parameters") or {}).items():
            if name not in known:
                raise RefusedError(400, f"{prefix}parameter(s) provided are not required by pipeline: {name}")
            kind = known[name]["parameterType"]
            fits = {"STRING": str, "BOOLEAN": bool}.get(kind, (int, float))
            if not isinstance(value, fits) or (kind in NUMBERS and isinstance(value, bool)):
                raise RefusedError(400, f"{prefix}input parameter {name} requires type {kind.lower()}")
        return version

    def _run(self, given: dict[str, Any]) -> dict[str, Any]:
        version = self._checked_version(given)
        mlflow = (given.get("plugins_input") or {}).get("mlflow", {})
        if unknown := mlflow.keys() - {"experiment_name", "experiment_id", "disabled"}:
            raise RefusedError(400, f"Failed to create a run due to invalid mlflow plugin input: {min(unknown)}")
        made = {"service_account": "pipeline-runner"} | given
        made |= {"run_id": str(uuid.uuid4()), "state": "PENDING", "created_at": _now(), "nodes": []}
        self.runs[made["run_id"]] = made
        if self.launch:
            made["state"] = "RUNNING"
            thread = threading.Thread(target=self._launch, args=(made, version), daemon=True)
            self.threads.append(thread)
            thread.start()
        return _shown(made)

    def _launch(self, run: dict[str, Any], version: dict[str, Any]) -> None:
        documents = [version["pipeline_spec"], *version["platform"]]
        try:
            parameters = run["runtime_config"].get("parameters") or {}
            self.launch(documents, run["run_id"], parameters, lambda *node: run["nodes"].append(node))
            run["state"] = "SUCCEEDED"
        except Exception as error:  # the run's error stays empty
            run["state"], run["failure"] = "FAILED", repr(error)
        self.save()

    def _look(self, id_: str, query: dict[str, str]) -> dict[str, Any]:
        run = _one(self.runs, id_, "Run")
        if self.launch:
            state, nodes = run["state"], list(run["nodes"])
        else:
            state, nodes = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if self.mlmd:
            # Argo's nodes by their names on the page: the workflow's own, root, X-driver, X, executor, executor(N).
            latest = {(name, number): of for number, (name, of, _) in enumerate(nodes) if "executor" in name}
            latest |= {(name, 0): of for name, of, _ in nodes if "executor" not in name}
            details = [{"display_name": f"{run['display_name'][:8]}-x1y2z", "state": "RUNNING", "task_id": "0"}]
            details += [
                {"display_name": name, "state": of, "task_id": f"{name}-{number}"}
                for (name, number), of in latest.items()
            ]
            return _shown(run) | {"state": state, "run_details": {"task_details": details}}
        if query.get("view") != "FULL":
            return _shown(run) | {"state": state, "task_count": len(nodes)}
        tasks = {"ROOT": {"name": "ROOT", "display_name": "run of it", "state": "RUNNING", "type": "ROOT"}}
        for name, of, reason in nodes:
            if name == "root" or name.endswith("-driver") or name.startswith("executor"):
                continue
            tasks[name] = {"name": name, "display_name": name, "state": of, "type": "RUNTIME"}
            if reason:
                tasks[name]["status_metadata"] = {"message": reason}
        return _shown(run) | {"state": state, "tasks": list(tasks.values())}

    def _recur(self, given: dict[str, Any]) -> dict[str, Any]:
        self._checked_version(given)
        trigger = given["trigger"]
        if "cron_schedule" in trigger:
            cron = trigger["cron_schedule"]["cron"]
            prefix = "Failed to create a recurring run due to conversion error: Invalid input error: "
            if len(cron.split()) not in (5, 6) or not croniter.is_valid(cron, second_at_beginning=True):
                fault = f"Expected 5 to 6 fields, found {len(cron.split())}: {cron}"
                raise RefusedError(400, f"{prefix}Schedule cron is not a supported format. Error: {fault}")
        elif int(trigger["periodic_schedule"]["interval_second"]) < 1:
            raise RefusedError(400, "the interval is shorter than a second")
        if not 1 <= int(given["max_concurrency"]) <= 10:
            raise RefusedError(
                400,
                "Max concurrency of a recurring run must be at least 1 and at most 10. "
                f"Received {given['max_concurrency']}",
            )
        made = (
            {"service_account": "pipeline-runner"}
            | given
            | {"recurring_run_id": str(uuid.uuid4()), "created_at": _now(), "status": f"{given['mode']}D"}
        )
        self.recurring[made["recurring_run_id"]] = made
        return made

    def fire(self, name: str) -> dict[str, Any] | None:
        """Starts what a recurring run is there for, as the controller does when it is due; None: not now."""
        (recurring,) = (one for one in self.recurring.values() if one["display_name"] == name)
        id_ = recurring["recurring_run_id"]
        going_on = [run for run in self.runs.values() if run.get("recurring_run_id") == id_]
        going_on = [run for run in going_on if run["state"] not in FINISHED]
        if recurring["status"] != "ENABLED" or len(going_on) >= int(recurring["max_concurrency"]):
            return None
        taken = ("experiment_id", "pipeline_version_reference", "runtime_config", "service_account", "plugins_input")
        of = {key: recurring[key] for key in taken if key in recurring} | {
            "display_name": name,
            "recurring_run_id": id_,
        }
        return self._run(of)

    def wait(self) -> None:
        """Waits for the runs that are going on."""
        for thread in self.threads:
            thread.join()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


def _template(documents: list[Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the spec and the platform's part of an upload, as the real server tells them apart and checks them."""
    specs = [one for one in documents if isinstance(one, dict) and "pipelineInfo" in one]
    platforms = [one for one in documents if isinstance(one, dict) and "kubernetes" in one.get("platforms", {})]
    if len(specs) != 1 or len(platforms) > 1:
        raise RefusedError(400, "unknown template format", upload=True)
    spec = specs[0]
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError:
        raise RefusedError(400, "unknown template format", upload=True) from None
    if spec.get("schemaVersion") != "2.1.0":
        version = spec.get("schemaVersion")
        message = f"KFP only supports schema version 2.1.0, but the pipeline spec has version {version}"
        raise RefusedError(400, message, upload=True)
    if not re.search(PIPELINE_NAME, spec["pipelineInfo"].get("name", "")) or "root" not in spec:
        raise RefusedError(400, "invalid v2 pipeline spec", upload=True)
    return spec, platforms


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key not in ("nodes", "failure")}


def _one(known: dict[str, Any], id_: str, what: str) -> dict[str, Any]:
    if id_ not in known:
        raise RefusedError(404, f"Failed to get it: ResourceNotFoundError: {what} {id_} not found")
    return known[id_]


def _listed(known: dict[str, Any], query: dict[str, str]) -> list[dict[str, Any]]:
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
            if self.command != "GET":
                api.save()
            if fault:
                raise RefusedError(fault.status, "told to fail after all")
            self._send(200, found, {})
        except RefusedError as refused:
            if refused.status == 0:
                self.close_connection = True
                self.connection.close()
                return
            content = fault.answer if fault and fault.answer is not None else refused.content
            self._send(refused.status, content, fault.headers if fault else {})

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def _send(self, status: int, content: dict[str, Any] | str, headers: dict[str, str]) -> None:
        text = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(text))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@contextmanager
def serving(file: Path | None = None, launch: Launch | None = None, mlmd: bool = True) -> Iterator[Api]:
    """Gives a server, which has its `address`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.api = Api(file, launch, mlmd)
    server.api.address = f"http://127.0.0.1:{server.server_address[1]}"
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
