"""The schedule commands: what is listed, and from where."""

import json
import socket
import time
from datetime import datetime, timezone

import blobs
import pytest
from typer.testing import CliRunner

from stillhouse.pipelines.cli.app import app
from stillhouse.pipelines.schedules.store import LocalSchedule, Store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a local schedule; no cluster is configured."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    nightly = {"settings_file": "/x/blobs.yaml", "working_directory": "/x", "root": "/x/runs/blobs"}
    now = datetime.now(timezone.utc)
    Store(tmp_path).create(LocalSchedule(name="nightly", created=now, every_seconds=3600, **nightly))
    return tmp_path


def listed(folder, *arguments):
    done = CliRunner().invoke(app, ["schedule", "list", "--folder", str(folder), "--json", *arguments])
    return done, json.loads(done.stdout)


def test_without_a_cluster_the_local_schedules_are_listed_at_once(folder):
    """The case cron-forms: a cluster that nobody has named was tried five times, for half a minute."""
    began = time.monotonic()
    done, rows = listed(folder)
    assert time.monotonic() - began < 10
    assert done.exit_code == 0
    assert [(row["name"], row["on"]) for row in rows] == [("nightly", "local")]
    assert done.stderr == "schedules of Kubeflow: not listed; give --host, or run inside the cluster\n"


def test_a_cluster_that_does_not_answer_is_tried_once(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    done, rows = listed(folder, "--host", address)
    assert done.exit_code == 1
    assert [row["name"] for row in rows] == ["nightly"]
    assert f"schedules of Kubeflow: not listed: {address}: looking for schedules: " in done.stderr
    assert "Connection refused (1 attempt); check --host" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_in_a_pod_the_clusters_address_is_tried(folder, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setattr("stillhouse.pipelines.kubeflow.connection.IN_CLUSTER", "http://127.0.0.1:9")
    done, rows = listed(folder)
    assert (done.exit_code, len(rows)) == (0, 1)
    assert "not listed: http://127.0.0.1:9: looking for schedules: " in done.stderr


def test_a_damaged_schedule_is_named_and_the_others_are_listed(folder):
    (folder / "broken.json").write_text("{")
    done, rows = listed(folder, "--on", "local")
    assert [(row["name"], row["state"]) for row in rows] == [("broken", "corrupt"), ("nightly", None)]
    assert f"broken: {folder / 'broken.json'}: corrupt (" in done.stderr
    assert CliRunner().invoke(app, ["schedule", "list", "--folder", str(folder), "--on", "local"]).exit_code == 0


def test_a_schedule_with_seconds_is_told_that_crontab_has_none(folder, tmp_path):
    settings = tmp_path / "blobs.yaml"
    blobs.write_project(tmp_path)
    done = CliRunner().invoke(
        app,
        ["schedule", "create", str(settings), "--cron", "30 0 2 * * *", "--on", "local", "--folder", str(folder)],
    )
    assert done.exit_code == 0, done.output
    assert "it runs while `stillhouse scheduler` does; crontab has no seconds" in done.stderr
