"""Schedules on an API server on this machine, whatever it does wrong."""

import json
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from kubeflow_api import Fault, serving
from typer.testing import CliRunner

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.pipelines.cli.app import app
from stillhouse.pipelines.kubeflow import recurring_runs as schedule
from stillhouse.pipelines.kubeflow.connection import Connection, Server
from stillhouse.pipelines.kubeflow.recurring_runs import ScheduleSpec
from stillhouse.pipelines.kubeflow.submit import RunOptions
from stillhouse.pipelines.schedules.store import LocalSchedule, Store
from stillhouse.pipelines.schedules.timing import parse_timing

IMAGE = "registry.example/stillhouse:1.0"
START = datetime(2026, 11, 25, 14, 0, tzinfo=timezone.utc)


def server(api, **options):
    return Server(Connection(api.address, **{"back_off_seconds": 0.01} | options))


@pytest.fixture
def spec(text):
    return ScheduleSpec(
        name="nightly",
        timing=parse_timing("0 2 * * *", None),
        text=text,
        pipeline="blobs",
        experiment="trials",
        parameters={"only_if_changed": True},
        options=RunOptions("minio://mlpipeline/v2/artifacts"),
    )


def only(api):
    (found,) = api.recurring.values()
    return found


def test_a_schedule_is_made_as_kubeflow_wants_it(api, spec):
    found, outcome = schedule.create(server(api), spec)
    assert outcome == "created"
    made = only(api)
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}  # seconds first
    assert (made["no_catchup"], made["max_concurrency"], made["mode"]) == (True, "1", "ENABLE")
    assert made["runtime_config"]["parameters"] == {"only_if_changed": True}
    assert (found.id, found.enabled) == (made["recurring_run_id"], True)
    assert (found.next.hour, found.next.minute, str(found.timing)) == (2, 0, "cron 0 2 * * *")


def test_an_interval_is_told_in_seconds(api, spec):
    found, _ = schedule.create(server(api), replace(spec, timing=parse_timing(None, "6h")))
    assert only(api)["trigger"] == {"periodic_schedule": {"interval_second": "21600"}}
    assert str(found.timing) == "every 6h"


def test_the_same_again_changes_nothing_and_another_takes_its_place(api, spec):
    first, _ = schedule.create(server(api), spec)
    assert schedule.create(server(api), spec)[1] == "unchanged"
    assert only(api)["recurring_run_id"] == first.id
    for change in (
        {"timing": parse_timing(None, "1d")},
        {"parameters": {"only_if_changed": False}},
        {"max_concurrency": 2},
        {"catch_up": True},
        {"options": replace(spec.options, service_account="trainer")},
        {"options": replace(spec.options, plugins_input={"mlflow": {"experiment_name": "blobs"}})},
        {"text": spec.text + "\n# another\n"},
    ):
        spec = replace(spec, **change)
        found, outcome = schedule.create(server(api), spec)
        assert (outcome, only(api)["recurring_run_id"]) == ("changed", found.id)


def test_a_change_leaves_a_paused_schedule_paused(api, spec):
    schedule.create(server(api), spec)
    schedule.pause(server(api), "nightly")
    assert not schedule.create(server(api), replace(spec, timing=parse_timing(None, "1d")))[0].enabled
    assert only(api)["status"] == "DISABLED"


def test_what_is_doubled_already_becomes_one(api, spec):
    schedule.create(server(api), spec)
    double = only(api) | {"recurring_run_id": "double"}
    api.recurring["double"] = double
    assert schedule.create(server(api), spec)[1] == "unchanged"
    assert len(api.recurring) == 1


FAULTS = [
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 500},
    {"status": 503, "applied": True},
    {"status": 0},
    {"status": 0, "applied": True},
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_nothing_is_doubled_or_left_over_by_a_fault_that_passes(api, spec, fault):
    api.faults = [Fault("POST", "recurringruns", **fault)]
    schedule.create(server(api), spec)
    assert len(api.recurring) == 1
    api.faults = [Fault("POST", "recurringruns", **fault), Fault("DELETE", "recurringruns", **fault)]
    _, outcome = schedule.create(server(api), replace(spec, max_concurrency=3))
    assert (outcome, only(api)["max_concurrency"]) == ("changed", "3")
    for action, status in ((schedule.pause, "DISABLED"), (schedule.resume, "ENABLED")):
        api.faults = [Fault("POST", "recurringruns/", **fault)]
        action(server(api), "nightly")
        assert only(api)["status"] == status
    api.faults = [Fault("POST", "runs", **fault)]
    schedule.run_now(server(api), "nightly")
    assert len(api.runs) == 1
    api.faults = [Fault("DELETE", "recurringruns", **fault)]
    schedule.delete(server(api), "nightly")
    assert not api.recurring
    assert not api.faults


def test_a_run_by_hand_is_that_of_the_schedule(api, spec):
    found, _ = schedule.create(server(api), spec)
    run = schedule.run_now(server(api), "nightly")
    made = api.runs[run.run_id]
    assert made["pipeline_version_reference"]["pipeline_version_id"] == found.version_id
    assert made["runtime_config"]["parameters"] == {"only_if_changed": True}


def test_runs_of_a_schedule_have_its_service_account_and_its_input_of_plugins(api, spec):
    plugins = {"mlflow": {"experiment_name": "blobs"}}
    options = replace(spec.options, service_account="trainer", plugins_input=plugins)
    schedule.create(server(api), replace(spec, options=options))
    for run_id in (schedule.run_now(server(api), "nightly").run_id, api.fire("nightly")["run_id"]):
        assert (api.runs[run_id]["service_account"], api.runs[run_id]["plugins_input"]) == ("trainer", plugins)


def test_the_runs_of_a_schedule_are_shown(api, spec):
    found, _ = schedule.create(server(api), spec)
    first = api.fire("nightly")
    assert api.fire("nightly") is None  # one at a time
    api.runs[first["run_id"]]["state"] = "SUCCEEDED"
    second = api.fire("nightly")
    schedule.run_now(server(api), "nightly")
    shown = schedule.last_runs(server(api), found)
    assert [run.run_id for run in shown] == [second["run_id"], first["run_id"]]


def test_a_schedule_of_a_pipeline_that_was_deleted_says_so(api, spec):
    schedule.create(server(api), spec)
    api.delete_pipeline("blobs")
    (found,) = schedule.schedules(server(api))
    assert (found.version, found.next) == (None, None)
    for action in (schedule.run_now, schedule.resume):
        with pytest.raises(
            UserError, match="the pipeline of the schedule 'nightly' was deleted from the server; .*create"
        ):
            action(server(api), "nightly")
    assert schedule.create(server(api), spec)[1] == "changed"
    assert schedule.find(server(api), "nightly").version is not None
    api.delete_pipeline("blobs")
    schedule.delete(server(api), "nightly")
    assert not api.recurring


@pytest.mark.parametrize("action", [schedule.pause, schedule.resume, schedule.delete, schedule.run_now])
def test_a_schedule_that_does_not_exist_is_named_with_those_that_do(api, spec, action):
    schedule.create(server(api), spec)
    with pytest.raises(UserError, match="no schedule is named 'weekly'; expected one of: nightly"):
        action(server(api), "weekly")


@pytest.mark.parametrize(("status", "message"), [(401, r"not signed in \(401\)"), (403, r"not allowed .*\(403\)")])
def test_a_refusal_is_one_sentence(api, spec, status, message):
    api.faults = [Fault("POST", "recurringruns", status)]
    with pytest.raises(UserError, match=message):
        schedule.create(server(api, namespace="team"), spec)
    assert not api.recurring


def test_a_server_that_cannot_be_reached_from_outside_a_cluster_is_explained(monkeypatch):
    monkeypatch.setattr("stillhouse.pipelines.kubeflow.connection.IN_CLUSTER", "http://127.0.0.1:1/{}")
    with pytest.raises(MachineError, match="looking for schedules: .*give --host, or run inside the cluster"):
        schedule.schedules(Server(Connection(attempts=2, back_off_seconds=0.01)))


def test_another_server_goes_on_with_the_state(spec, tmp_path):
    with serving(tmp_path / "state.json") as api:
        schedule.create(server(api), spec)
    with serving(tmp_path / "state.json") as api:
        assert schedule.create(server(api), spec)[1] == "unchanged"
        assert [found.name for found in schedule.schedules(server(api))] == ["nightly"]


def test_the_commands_make_show_change_and_delete_a_schedule(project, api):
    mount = f"kubeflow.volumes=[{{claim: data, mount: {project.folder}}}]"
    paths = [f"--set=data.path={project.folder}/data", f"--set=push.path={project.folder}/serving", f"--set={mount}"]
    command = ["schedule", "create", "blobs.yaml", "--host", api.address, *paths]

    def ask(*arguments):
        done = project.stillhouse("schedule", *arguments, "--host", api.address)
        assert done.returncode == 0, done.stderr
        return done

    made = project.stillhouse(*command, "--image", IMAGE, "--cron", "0 2 * * *", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["outcome"] == "created"
    assert "Kubeflow reads '0 0 2 * * *' (seconds first) in UTC" in made.stderr
    assert only(api)["runtime_config"]["parameters"] == {"only_if_changed": True}
    assert "/#/runs/details/" in ask("run-now", "blobs").stderr
    assert json.loads(ask("show", "blobs", "--json").stdout)["enabled"] is True
    ask("delete", "blobs")
    assert not api.recurring

    refused = project.stillhouse(*command, "--cron", "0 2 * * *")
    assert (refused.returncode, "--image: missing" in refused.stderr) == (2, True)
    assert not api.recurring


def test_the_schedules_of_both_places_are_listed_and_those_of_each_alone(api, spec, tmp_path):
    schedule.create(server(api), replace(spec, name="weekly"))
    nightly = {"settings_file": "/x/blobs.yaml", "working_directory": "/x", "root": "/x/runs/blobs"}
    Store(tmp_path).create(LocalSchedule(name="nightly", created=START, every_seconds=3600, **nightly))

    def listed(*arguments):
        done = CliRunner().invoke(
            app, ["schedule", "list", "--folder", str(tmp_path), "--host", api.address, *arguments]
        )
        assert done.exit_code == 0, done.output
        return done.stdout

    places = {
        (): [("nightly", "local"), ("weekly", "kubeflow")],
        ("--on", "local"): [("nightly", "local")],
        ("--on", "kubeflow"): [("weekly", "kubeflow")],
    }
    for arguments, expected in places.items():
        assert [(row["name"], row["on"]) for row in json.loads(listed("--json", *arguments))] == expected
    assert "every 1h" in listed()
    assert "cron 0 2 * * *" in listed()
