"""Redirects, and answers that are none, from a server on this machine; and the answers of the real one, recorded."""

import json
from pathlib import Path

import pytest
from kubeflow_api import Fault, serving

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.api import (
    Answer,
    Experiment,
    Experiments,
    Pipeline,
    Pipelines,
    PipelineVersion,
    RecurringRun,
    RecurringRuns,
    Run,
    Runs,
)
from stillhouse.pipelines.kubeflow.connection import ApiError, Connection, Server

RECORDED = Path(__file__).parent / "recorded"
PREFIX = "/apis/v2beta1/"
WRITES = {"pipelines": Pipeline, "experiments": Experiment, "runs": Run, "recurringruns": RecurringRun}
LISTINGS = {"pipelines": Pipelines, "experiments": Experiments, "runs": Runs, "recurringruns": RecurringRuns}


def write(api, path):
    server = Server(Connection(api.address, back_off_seconds=0.01))
    return server.write(
        "changing it", lambda: server.post(path, WRITES[path], {"display_name": "x"}), applied=lambda: None
    )


def read(api, path):
    server = Server(Connection(api.address, back_off_seconds=0.01))
    return server.read("listing it", lambda: list(server.listed(path, LISTINGS[path])))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", WRITES)
def test_a_write_is_not_repeated_where_a_redirect_points(api, path, status):
    with serving() as other:
        api.faults = [Fault("POST", path, status, {"Location": f"{other.address}{PREFIX}{path}?state=secret"})]
        with pytest.raises(UserError) as refused:
            write(api, path)
        assert f"changing it: found a redirect to {other.address}{PREFIX}{path} ({status}); " in str(refused.value)
        assert "secret" not in str(refused.value)
        assert other.requests == []
    assert api.requests == [("POST", PREFIX + path)]


def test_a_redirect_to_a_path_is_named_with_its_host(api):
    api.faults = [Fault("POST", "runs", 307, {"Location": "/login"})]
    with pytest.raises(UserError, match=rf"found a redirect to {api.address}/login \(307\)"):
        write(api, "runs")


@pytest.mark.parametrize("path", LISTINGS)
def test_a_listing_follows_a_redirect(api, path):
    with serving() as other:
        write(other, "experiments")
        api.faults = [Fault("GET", path, 307, {"Location": f"{other.address}{PREFIX}{path}"})]
        assert len(read(api, path)) == (path == "experiments")
        assert other.requests[-1] == ("GET", PREFIX + path)


NO_ANSWERS = ["[]", "[1, 2]", "5", '"text"', "null", "OK", "", '{"status": "up"}', "{} {}"]


@pytest.mark.parametrize(
    "answer", ["{}", *NO_ANSWERS, '{"display_name": "x"}', '{"run_id": "1", "created_at": "soon", "pipeline_id": []}']
)
@pytest.mark.parametrize("path", WRITES)
def test_a_write_with_an_answer_to_something_else_is_one_sentence_and_not_repeated(api, path, answer):
    api.faults = [Fault("POST", path, 200, answer=answer)]
    with pytest.raises(UserError) as refused:
        write(api, path)
    assert "changing it: found the answer " in str(refused.value)
    assert repr(answer[:60])[:-1] in str(refused.value)
    assert str(refused.value).endswith("; expected that of Kubeflow Pipelines (API v2beta1); correct --host")
    assert api.requests == [("POST", PREFIX + path)]


@pytest.mark.parametrize(
    "answer",
    [
        *NO_ANSWERS,
        '{"pipelines": 5, "experiments": 5, "runs": 5, "recurringRuns": 5}',
        '{"pipelines": [{}], "experiments": [{}], "runs": [{}], "recurringRuns": [{}]}',
        '{"pipelines": [[]], "experiments": [[]], "runs": [[]], "recurringRuns": [[]]}',
        '{"total_size": []}',
        '{"next_page_token": {}}',
    ],
)
@pytest.mark.parametrize("path", LISTINGS)
def test_a_listing_with_an_answer_to_something_else_is_one_sentence(api, path, answer):
    api.faults = [Fault("GET", path, 200, answer=answer)]
    with pytest.raises(UserError, match="listing it: found the answer .*; expected that of Kubeflow Pipelines"):
        read(api, path)


@pytest.mark.parametrize("content_type", ["application/json", "text/html; charset=utf-8", "text/plain"])
def test_a_page_is_one_whatever_its_type_says(api, content_type):
    page = Fault("GET", "runs", 200, {"Content-Type": content_type}, answer="\n<!doctype html><title>Sign in</title>")
    api.faults = [page]
    with pytest.raises(UserError, match="listing it: found a web page; expected the API's answer"):
        read(api, "runs")
    page.method = "POST"
    api.faults = [page]
    with pytest.raises(UserError, match="changing it: found a web page; expected the API's answer"):
        write(api, "runs")


@pytest.mark.parametrize("path", LISTINGS)
@pytest.mark.parametrize(
    "answer", ["{}", '{"total_size": 0, "next_page_token": ""}', '{"total_size": 0, "new_key": 1}']
)
def test_a_listing_of_nothing_is_one(api, path, answer):
    api.faults = [Fault("GET", path, 200, answer=answer)]
    assert not read(api, path)


def among(answer, read):
    """Returns of an answer what has a place in another."""
    if isinstance(answer, dict):
        return {key: among(value, read[key]) for key, value in answer.items() if key in read}
    return [among(*pair) for pair in zip(answer, read, strict=True)] if isinstance(answer, list) else answer


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("create_pipeline", Pipeline),
        ("upload_version", PipelineVersion),
        ("create_experiment", Experiment),
        ("create_run", Run),
        ("create_recurring_run", RecurringRun),
        ("disable_recurring_run", Answer),
        ("list_experiments_none", Experiments),
        ("list_pipelines_by_name", Pipelines),
        ("list_recurring_runs", RecurringRuns),
    ],
)
def test_answers_of_the_real_server_are_read(name, answer):
    record = recorded(name)
    assert record["status"] == 200
    read = answer.model_validate_json(json.dumps(record["answer"])).model_dump(
        mode="json", by_alias=True, exclude_unset=True
    )
    assert read == among(record["answer"], read)
    assert bool(read) == (name not in ("disable_recurring_run", "list_experiments_none"))


def test_tasks_of_the_real_server_are_read():
    run = Run.model_validate_json(json.dumps(recorded("get_run_running_with_tasks")))
    assert run.state == "FAILED"
    states = {node.display_name: node.state for node in run.nodes}
    assert states["root-driver"] == "SUCCEEDED"
    assert states["executor(1)"] == "RUNNING"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("create_pipeline_conflict", "Failed to create a new pipeline. The name recorded already exist. "),
        ("create_run_parameter_unknown", "parameter(s) provided are not required by pipeline: nope"),
        ("upload_version_conflict", "Failed to create a pipeline version"),
        ("upload_version_bad_schema_version", "KFP only supports schema version 2.1.0, but the pipeline spec has "),
    ],
)
def test_refusals_of_the_real_server_are_told_in_its_words(name, reason):
    record = recorded(name)
    assert ApiError(record["status"], {}, json.dumps(record["answer"]).encode()).reason.startswith(reason)
