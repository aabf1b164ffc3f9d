"""Submitting to an API server on this machine, whatever it does wrong."""

import ipaddress
import json
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kubeflow_api import Fault

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.pipelines.kubeflow.api import Run
from stillhouse.pipelines.kubeflow.compile import as_yaml
from stillhouse.pipelines.kubeflow.connection import Connection, Server
from stillhouse.pipelines.kubeflow.submit import (
    RunOptions,
    check_parameters,
    states_of,
    submit,
    task_names,
    version_name,
    watch,
)

IMAGE = "registry.example/stillhouse:1.0"
RECORDED = Path(__file__).parent / "recorded"
ROOT = "minio://mlpipeline/v2/artifacts"


def server(api, **options):
    return Server(Connection(api.address, **{"back_off_seconds": 0.01} | options))


def submitted(api, text, parameters=None, **options):
    return submit(server(api, **options), "blobs", text, "trials", parameters or {}, RunOptions(ROOT))


def counts(api):
    return len(api.pipelines), len(api.versions), len(api.experiments), len(api.runs)


def test_a_run_is_started_and_its_link_told(api, text):
    found = submitted(api, text, {"student_epochs": 3})
    assert counts(api) == (1, 1, 1, 1)
    (run,) = api.runs.values()
    assert found.link == f"{api.address}/#/runs/details/{run['run_id']}"
    assert run["runtime_config"] == {"parameters": {"student_epochs": 3}, "pipeline_root": ROOT}
    assert found.version == version_name("blobs", text)


def test_the_same_content_is_not_uploaded_twice_and_other_content_is_a_new_version(api, text, documents):
    submitted(api, text)
    submitted(api, text)
    assert counts(api) == (1, 1, 1, 2)
    changed = [documents[0] | {"sdkVersion": "another"}, *documents[1:]]
    submitted(api, as_yaml(changed))
    assert counts(api) == (1, 2, 1, 3)


WRITES = ("pipelines", "pipelines/upload_version", "experiments", "runs")


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 500},
        {"status": 503},
        {"status": 503, "applied": True},
        {"status": 409, "applied": True},
        {"status": 0},
        {"status": 0, "applied": True},
    ],
    ids=str,
)
def test_nothing_is_made_twice_or_left_out_by_a_fault_that_passes(api, text, path, fault):
    api.faults = [Fault("POST", path, **fault)]
    submitted(api, text)
    assert not api.faults
    assert counts(api) == (1, 1, 1, 1)


@pytest.mark.parametrize("applied", [True, False])
def test_a_write_whose_fate_the_server_does_not_tell_is_not_repeated(api, text, applied):
    submitted(api, text)
    api.faults = [Fault("POST", "runs", applied=applied), *(Fault("GET", "runs", 500) for _ in range(5))]
    with pytest.raises(MachineError, match=r"starting the run: told to fail \(5 attempts\)"):
        submitted(api, text)
    assert len(api.runs) == (2 if applied else 1)
    assert [request[0] for request in api.requests if request[1].endswith("/runs")].count("POST") == 2


def test_a_write_is_repeated_once_the_server_tells_that_it_was_not_carried_out(api, text):
    api.faults = [Fault("POST", "runs"), *(Fault("GET", "runs", 503) for _ in range(4))]
    submitted(api, text)
    assert not api.faults
    assert counts(api) == (1, 1, 1, 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("header", ["1", "date"])
def test_the_server_says_how_long_to_wait(api, text, method, header):
    due = datetime.now(timezone.utc) + timedelta(seconds=2)
    after = format_datetime(due, usegmt=True) if header == "date" else header
    api.faults = [Fault(method, "experiments", 429, headers={"Retry-After": after})]
    began = time.monotonic()
    submitted(api, text)
    assert time.monotonic() - began > 0.9
    assert counts(api) == (1, 1, 1, 1)


@pytest.mark.parametrize("path", ["pipelines", "experiments"])
def test_a_listing_that_fails_is_tried_again_without_a_word(api, text, path, caplog):
    api.faults = [Fault("GET", path, 500), Fault("GET", path, 0)]
    submitted(api, text)
    assert counts(api) == (1, 1, 1, 1)
    assert not caplog.records


def test_a_slow_answer_is_waited_for(api, text):
    api.faults = [Fault("POST", "runs", 200, applied=True, seconds=0.5)]
    api.faults[0].status = 503
    submitted(api, text)
    assert counts(api) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"not signed in \(401\); give --token-file"),
        (403, r"starting the run is not allowed in the namespace team \(403\)"),
        (400, r"starting the run: refused: told to fail \(400\)"),
    ],
)
def test_a_refusal_is_one_sentence_and_not_tried_again(api, text, status, message):
    api.faults = [Fault("POST", "runs", status), Fault("POST", "runs", status)]
    with pytest.raises(UserError, match=message):
        submitted(api, text, namespace="team")
    assert len(api.faults) == 1


def test_a_server_that_fails_again_and_again_is_given_up(api, text):
    api.faults = [Fault("POST", "runs", 503) for _ in range(5)]
    with pytest.raises(MachineError, match=r"starting the run: told to fail \(5 attempts\); check --host"):
        submitted(api, text)
    assert not api.runs


def test_a_host_that_cannot_be_reached_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(MachineError, match=rf"{address}: looking for the pipeline: .*refused.*check --host"):
        submit(
            Server(Connection(address, attempts=2, back_off_seconds=0.01)), "blobs", "x", "trials", {}, RunOptions(ROOT)
        )


class SignIn(BaseHTTPRequestHandler):
    """Sends everybody to a page, as a proxy that people sign in with does."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        page = b"<html>Sign in</html>" if self.path == "/login" else b""
        self.send_response(200 if page else 302)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Location", "/login")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@contextmanager
def answering(handler, wrap=lambda plain: plain):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = wrap(server.socket)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_page_to_sign_in_is_not_taken_for_an_answer():
    with answering(SignIn) as port, pytest.raises(UserError, match="found a web page; .*--cookies-file to sign in"):
        submit(Server(Connection(f"http://127.0.0.1:{port}")), "blobs", "x", "trials", {}, RunOptions(ROOT))


def write_certificate(certificate_file, key_file):
    """Writes a certificate for 127.0.0.1 that has signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    today = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today)
        .not_valid_after(today + timedelta(days=1))
        .add_extension(address, critical=False)
    )
    certificate_file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(*formats))


def test_a_certificate_that_is_not_trusted_is_told_at_once(tmp_path):
    write_certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with answering(SignIn, lambda plain: context.wrap_socket(plain, server_side=True)) as port:
        address = f"https://127.0.0.1:{port}"
        began = time.monotonic()
        with pytest.raises(UserError, match="its certificate is not trusted .*--ca-cert"):
            submit(Server(Connection(address, back_off_seconds=5)), "blobs", "x", "trials", {}, RunOptions(ROOT))
        assert time.monotonic() - began < 5
        with pytest.raises(UserError, match="web page"):
            submit(
                Server(Connection(address, ca_cert=tmp_path / "cert.pem")), "blobs", "x", "trials", {}, RunOptions(ROOT)
            )


@pytest.mark.parametrize("host", ["kubeflow.example", "ftp://kubeflow.example"])
def test_a_host_that_is_no_url_is_refused(host):
    with pytest.raises(UserError, match="--host: found .*; expected http"):
        Server(Connection(host))


def test_a_token_is_sent_and_never_told(api, text, tmp_path):
    api.token = "secret-token"
    (tmp_path / "token").write_text("secret-token\n")
    submitted(api, text, token_file=tmp_path / "token")
    assert counts(api) == (1, 1, 1, 1)
    (tmp_path / "token").write_text("wrong-token")
    with pytest.raises(UserError) as refused:
        submitted(api, text, token_file=tmp_path / "token")
    assert "not signed in" in str(refused.value)
    assert "wrong-token" not in str(refused.value)
    with pytest.raises(UserError, match="--token-file: cannot read"):
        submitted(api, text, token_file=tmp_path / "none")


def test_a_pipeline_that_the_server_refuses_is_explained(api, documents):
    refused = r"uploading the pipeline: refused: KFP only supports schema version 2.1.0, but .* has version 1 \(400\)"
    with pytest.raises(UserError, match=refused):
        submitted(api, as_yaml([documents[0] | {"schemaVersion": "1"}, *documents[1:]]))


def test_a_run_has_the_service_account_and_the_input_of_plugins_that_it_is_given(api, text):
    options = RunOptions(ROOT, "trainer", {"mlflow": {"experiment_name": "blobs"}})
    submit(server(api), "blobs", text, "trials", {}, options)
    (run,) = api.runs.values()
    assert (run["service_account"], run["plugins_input"]) == ("trainer", options.plugins_input)


# Of a run whose Transform fails for good at the second attempt, as Argo's nodes go.
LOOKS = [
    [("root", "RUNNING", ""), ("examplegen-driver", "SUCCEEDED", ""), ("examplegen", "RUNNING", "")],
    [("executor", "SUCCEEDED", ""), ("examplegen", "SUCCEEDED", ""), ("retrain", "RUNNING", "")],
    [("transform-driver", "SUCCEEDED", ""), ("transform", "RUNNING", ""), ("executor(0)", "FAILED", "")],
    [("executor(1)", "FAILED", ""), ("transform", "{}", "transform: no such column"), ("retrain", "{}", "")],
]


@pytest.mark.parametrize("mlmd", [True, False])
@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELED"])
def test_a_run_is_followed_to_its_end(api, text, documents, state, mlmd):
    api.mlmd = mlmd
    run = submitted(api, text)
    nodes, api.states = [], []
    for number, look in enumerate(LOOKS, start=1):
        nodes = nodes + [(name, of.format(state), reason if state == "FAILED" else "") for name, of, reason in look]
        api.states.append((state if number == len(LOOKS) else "RUNNING", nodes))
    api.faults = [Fault("GET", "runs/", 503)]
    told = []
    names = task_names(documents[0])
    found, reason = watch(server(api), run.run_id, names, lambda *change: told.append(change), seconds=0.01)
    assert found == state
    where = "no such column" if not mlmd else "the reason is at the end of its log, the artifact executor-logs"
    assert reason == (f"transform: {where}" if state == "FAILED" else "")
    assert sorted(told) == sorted(
        [
            ("examplegen", "RUNNING"),
            ("examplegen", "SUCCEEDED"),
            ("retrain", "RUNNING"),
            ("transform", "RUNNING"),
            ("transform", state),
            ("retrain", state),
        ]
    )


def test_a_task_whose_driver_fails_has_failed(api, text, documents):
    run = submitted(api, text)
    api.states = [("FAILED", [("root", "RUNNING", ""), ("report-driver", "FAILED", "")])]
    told = []
    found, reason = watch(server(api), run.run_id, task_names(documents[0]), lambda *change: told.append(change), 0.01)
    assert (found, told) == ("FAILED", [("report", "FAILED")])
    assert reason.startswith("report: ")


def test_the_states_of_a_run_do_not_go_back(api, text, documents):
    run = submitted(api, text)
    states = ("RUNNING", "PENDING", "SUCCEEDED", "RUNNING")
    api.states = [("RUNNING", [("transform", state, "")]) for state in states] + [("SUCCEEDED", [])]
    told = []
    watch(server(api), run.run_id, task_names(documents[0]), lambda *change: told.append(change), seconds=0.01)
    assert told == [("transform", "RUNNING"), ("transform", "SUCCEEDED")]


def test_tasks_of_the_real_server_are_told_from_the_nodes_of_its_workflow():
    recorded = json.loads((RECORDED / "get_run_running_with_tasks.json").read_text())
    names = ["examplegen", "comparedata", "retrain", "executor"]
    assert states_of(Run.model_validate(recorded), names[:3]) == {"examplegen": "SUCCEEDED", "comparedata": "RUNNING"}
    newest = json.loads((RECORDED / "get_run_view_full.json").read_text())
    assert states_of(Run.model_validate(newest), ["examplegen", "transform", "retrain", "student"]) == {
        "examplegen": "SUCCEEDED",
        "transform": "SUCCEEDED",
        "retrain": "FAILED",
    }


def test_parameters_are_checked_before_anything_is_sent(documents, settings):
    spec = documents[0]
    assert check_parameters(["student_epochs=3", "data_path=/data/x"], spec, settings) == {
        "student_epochs": 3,
        "data_path": "/data/x",
    }
    for argument, message in (
        ("epochs=3", "--parameter epochs=3: expected NAME=VALUE with one of: .*student_epochs"),
        ("student_epochs=many", "--parameter student_epochs=many: student_epochs is an integer"),
        ("student_epochs=0", "--parameter student_epochs=0: student.epochs: found 0; expected a value greater than"),
        ("teacher_1_epochs=-1", r"--parameter teacher_1_epochs=-1: teachers\[0\].epochs: found -1"),
        ("push_path=serving", "--parameter push_path=serving: push.path: the cluster cannot see 'serving'"),
        ("data_path=s3://b/x", "--parameter data_path=s3://b/x: data.path: the cluster cannot see 's3://b/x'"),
    ):
        with pytest.raises(UserError, match=message):
            check_parameters([argument], spec, settings)
    with pytest.raises(UserError, match="--parameter student_seed=2: student_seed is given twice; expected one value"):
        check_parameters(["student_seed=1", "student_seed=2"], spec, settings)


def test_the_command_submits_and_follows(project, api):
    mount = f"kubeflow.volumes=[{{claim: data, mount: {project.folder}}}]"
    paths = [f"--set=data.path={project.folder}/data", f"--set=push.path={project.folder}/serving", f"--set={mount}"]
    command = ["submit", "blobs.yaml", "--image", IMAGE, "--host", api.address, "--watch", "--json", *paths]
    done = project.stillhouse(*command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "SUCCEEDED"
    assert counts(api) == (1, 1, 1, 1)
    assert "/#/runs/details/" in done.stderr
