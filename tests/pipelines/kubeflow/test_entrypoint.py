"""What happens around TFX's own entry point."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow import changes
from stillhouse.pipelines.kubeflow.entrypoint import local, prepared, publish, remote, with_properties
from stillhouse.pipelines.kubeflow.parameters import apply


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("minio://bucket/a/b", "/minio/bucket/a/b"),
        ("s3://bucket/a", "/s3/bucket/a"),
        ("gs://bucket/a", "/gcs/bucket/a"),
        ("/data/a", "/data/a"),
    ],
)
def test_uris_become_the_launchers_folders_and_back(uri, path):
    assert local(uri, "") == path
    assert remote(path, "") == uri
    assert remote(local(uri, "/root"), "/root") == uri


def schema(title):
    return {"instanceSchema": f"title: {title}\ntype: object\n"}


@pytest.mark.parametrize("uri", ["oci://registry/x", "abfs://container/x", "examples"])
def test_a_uri_that_the_launcher_does_not_carry_is_named(uri):
    with pytest.raises(
        UserError, match=f"found an artifact at '{uri}'; expected a URI that begins with minio://, s3://"
    ):
        local(uri, "")


INPUT = {
    "inputs": {
        "artifacts": {"examples": {"artifacts": [{"uri": "s3://b/x", "metadata": {"split_names": "[]"}}]}},
        "parameterValues": {"label": "y"},
    },
    "outputs": {
        "artifacts": {
            "comparison": {"artifacts": [{"uri": "s3://b/y", "type": schema("stillhouse.Comparison")}]},
            "executor-logs": {"artifacts": [{"uri": "s3://b/logs-0", "type": {"schemaTitle": "system.Artifact"}}]},
        },
        "outputFile": "/s3/b/output_metadata.json",
    },
}
SPEC = {
    "artifacts": {"examples": {"artifactType": schema("tfx.Examples")}},
    "parameters": {"label": {"parameterType": "STRING"}},
}


def test_inputs_get_the_types_of_the_spec_and_only_declared_outputs_reach_tfx():
    found = prepared(copy.deepcopy(INPUT), SPEC, ["comparison"], "")
    assert found["inputs"]["artifacts"]["examples"]["artifacts"] == [
        {"uri": "/s3/b/x", "metadata": {"split_names": "[]"}, "type": schema("tfx.Examples")}
    ]
    assert list(found["outputs"]["artifacts"]) == ["comparison"]
    (comparison,) = found["outputs"]["artifacts"]["comparison"]["artifacts"]
    assert comparison["type"] == {"schemaTitle": "stillhouse.components.report.component.Comparison"}


def test_an_artifact_that_is_two_inputs_is_given_once_and_gets_both_names():
    spec = {"artifacts": SPEC["artifacts"] | {"base": {"artifactType": schema("tfx.Examples")}}}
    found = prepared(copy.deepcopy(INPUT), spec, ["comparison"], "", {"base": "examples"})["inputs"]["artifacts"]
    assert found["base"] == found["examples"]
    assert found["base"]["artifacts"][0] is not found["examples"]["artifacts"][0]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("inputs", "artifacts", "examples"), "the executor input has no artifact for the input 'examples'"),
        (("inputs", "parameterValues", "label"), "the executor input has no value for the parameter 'label'"),
        (("outputs", "artifacts", "comparison"), "the executor input has no place for the output 'comparison'"),
    ],
)
def test_an_input_that_lacks_what_the_component_needs_is_named(path, message):
    given = copy.deepcopy(INPUT)
    *parents, last = path
    target = given
    for part in parents:
        target = target[part]
    del target[last]
    with pytest.raises(UserError, match=message):
        prepared(given, SPEC, ["comparison"], "")


RECORDS = sorted((Path(__file__).parent / "recorded" / "tasks").glob("*.json"))


@pytest.mark.parametrize("path", [path for path in RECORDS if "data" not in path.stem], ids=lambda path: path.stem)
def test_tfx_reads_what_the_real_launcher_gives(path):
    """Of each task of the records: of 2.17, of its first run, and of the backend without MLMD."""
    given = json.loads(path.read_text())["executor_input"]
    (spec,) = yaml.safe_load_all((path.parents[1] / "blobs-03eaa20.yaml").read_text())
    component = spec["components"][f"comp-{path.stem.removeprefix('first-run-').removeprefix('newest-')}"]
    outputs = list(component["outputDefinitions"]["artifacts"])
    found = prepared(given, component["inputDefinitions"], outputs, "")
    message = json_format.ParseDict(found, pipeline_spec_pb2.ExecutorInput(), ignore_unknown_fields=True)  # as TFX does
    for artifacts in (message.inputs.artifacts, message.outputs.artifacts):
        parsed = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict(artifacts)
        assert all(several[0].uri.startswith("/minio/") for several in parsed.values())
    assert set(message.outputs.artifacts) == set(outputs)


def test_parameters_go_where_they_belong():
    config = json.dumps({"epochs": 10, "seed": 1, "name": "Student"})
    found = apply({"custom_config": config, "set_epochs": 3.0, "set_seed": 7.0, "label": "y"})
    assert json.loads(found.pop("custom_config")) == {"epochs": 3, "seed": 7, "name": "Student"}
    assert found == {"label": "y"}
    assert json.loads(apply({"views": '{"seed": 1, "count": 8}', "set_seed": 7.0})["views"]) == {"seed": 7, "count": 8}


def test_another_push_path_reaches_pusher_and_last_pushed():
    destination = json.dumps({"filesystem": {"base_directory": "/old"}})
    found = apply({"push_destination": destination, "set_push_path": "/new"})
    assert json.loads(found["push_destination"]) == {"filesystem": {"base_directory": "/new"}}
    assert apply({"push_path": "/old", "set_push_path": "/new"}) == {"push_path": "/new"}


def test_a_span_is_named_or_the_newest():
    config = json.dumps({"splits": [{"name": "all", "pattern": "span-{SPAN}/*"}]})
    assert "range_config" not in apply({"input_config": config, "set_span": -1})
    found = apply({"input_config": config, "set_span": 3.0})
    assert json.loads(found["range_config"]) == {"static_range": {"start_span_number": 3, "end_span_number": 3}}


def test_another_data_path_keeps_the_patterns_of_the_splits():
    config = json.dumps({"splits": [{"name": "train", "pattern": "old-{SPAN}/train*"}]})
    given = {"input_base": "/data", "input_config": config, "set_data_path": "gs://b/taxi/span-{SPAN}/v{VERSION}"}
    found = apply(given)
    assert found["input_base"] == "gs://b/taxi"
    assert json.loads(found["input_config"])["splits"][0]["pattern"] == "span-{SPAN}/v{VERSION}/train*"


def test_what_is_reported_has_uris(tmp_path):
    told = {"artifacts": {"model": {"artifacts": [{"uri": f"{tmp_path}/minio/b/model", "metadata": {"a": 1.0}}]}}}
    publish(told, str(tmp_path / "out.json"), str(tmp_path))
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["artifacts"]["model"]["artifacts"] == [{"uri": "minio://b/model", "metadata": {"a": 1.0}}]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_what_a_driver_has_found_out_stays_beside_what_the_executor_reports():
    def told(**metadata):
        return {"artifacts": {"examples": {"artifacts": [{"uri": "x", "metadata": metadata}]}}}

    found = with_properties(told(split_names="[]"), told(input_fingerprint="a", split_names=""))
    assert found == told(input_fingerprint="a", split_names="[]")
    assert with_properties(found, {}) == found  # no ExampleGen


def executor_input(tmp_path, fingerprint="a", **parameters):
    given = {"push_path": str(tmp_path), "pipeline": "blobs", "content": "1", "seed": 1, "only_if_changed": True}
    metadata = {"input_fingerprint": fingerprint}
    return {
        "inputs": {
            "parameterValues": given | parameters,
            "artifacts": {"examples": {"artifacts": [{"uri": "minio://b/x", "metadata": metadata}]}},
        }
    }


def test_examples_without_a_fingerprint_are_named(tmp_path):
    given = executor_input(tmp_path)
    del given["inputs"]["artifacts"]["examples"]["artifacts"][0]["metadata"]["input_fingerprint"]
    with pytest.raises(UserError, match="the executor input has no examples with an input_fingerprint"):
        changes.compare(given)


def test_output_parameters_are_written_whole(tmp_path):
    file = tmp_path / "kfp" / "outputs" / "changed"
    changes.write_parameters({"outputs": {"parameters": {"changed": {"outputFile": str(file)}}}}, {"changed": "true"})
    assert file.read_text() == "true"
    assert [path.name for path in file.parent.iterdir()] == ["changed"]


def test_what_is_remembered_of_a_run_is_not_written_through_a_link(tmp_path):
    (tmp_path / "serving").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "serving" / ".stillhouse").symlink_to(tmp_path / "elsewhere")
    values = {"push_path": str(tmp_path / "serving"), "pipeline": "blobs", "fingerprint": "a"}
    with pytest.raises(UserError, match=f"{tmp_path}/serving/.stillhouse: found a symbolic link"):
        changes.remember({"inputs": {"parameterValues": values}})
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_run_is_unchanged_if_data_pipeline_and_parameters_are_those_of_the_last(tmp_path, capsys):
    first = changes.compare(executor_input(tmp_path))
    assert first["changed"] == "true"
    changes.remember({"inputs": {"parameterValues": {"push_path": str(tmp_path), "pipeline": "blobs"} | first}})
    assert changes.compare(executor_input(tmp_path))["changed"] == "false"
    assert "unchanged: data, pipeline and parameters are those of the last run" in capsys.readouterr().out
    for other in ({"fingerprint": "b"}, {"content": "2"}, {"seed": 2}, {"only_if_changed": False}, {"pipeline": "x"}):
        assert changes.compare(executor_input(tmp_path, **other))["changed"] == "true", other
