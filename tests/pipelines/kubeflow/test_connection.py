"""Redirects, and answers that are none, from a server on this machine."""

import kfp_server_api
import pytest
from kubeflow_api import Fault, serving

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.connection import TIMEOUT, Connection, Server

PREFIX = "/apis/v2beta1/"
WRITES = {
    "pipelines": lambda server: server.pipelines.create_pipeline(
        kfp_server_api.V2beta1Pipeline(display_name="blobs"), _request_timeout=TIMEOUT
    ),
    "experiments": lambda server: server.experiments.create_experiment(
        kfp_server_api.V2beta1Experiment(display_name="trials"), _request_timeout=TIMEOUT
    ),
    "runs": lambda server: server.runs.create_run(
        kfp_server_api.V2beta1Run(display_name="first"), _request_timeout=TIMEOUT
    ),
    "recurringruns": lambda server: server.recurring.create_recurring_run(
        kfp_server_api.V2beta1RecurringRun(display_name="nightly"), _request_timeout=TIMEOUT
    ),
}
LISTINGS = {
    "pipelines": lambda server: server.pipelines.list_pipelines(_request_timeout=TIMEOUT).pipelines,
    "experiments": lambda server: server.experiments.list_experiments(_request_timeout=TIMEOUT).experiments,
    "runs": lambda server: server.runs.list_runs(_request_timeout=TIMEOUT).runs,
    "recurringruns": lambda server: server.recurring.list_recurring_runs(_request_timeout=TIMEOUT).recurring_runs,
}


def write(api, path):
    server = Server(Connection(api.address, back_off_seconds=0.01))
    return server.write("changing it", lambda: WRITES[path](server), applied=lambda: None)


def read(api, path):
    server = Server(Connection(api.address, back_off_seconds=0.01))
    return server.read("listing it", lambda: LISTINGS[path](server))


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
        WRITES["experiments"](Server(Connection(other.address)))
        api.faults = [Fault("GET", path, 307, {"Location": f"{other.address}{PREFIX}{path}"})]
        assert len(read(api, path) or []) == (path == "experiments")
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
