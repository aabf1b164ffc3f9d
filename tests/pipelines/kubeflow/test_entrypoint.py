"""What happens around TFX's own entry point."""

import json

import pytest

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow import changes
from stillhouse.pipelines.kubeflow.entrypoint import keep_properties, local, prepared, publish, remote
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


def test_inputs_get_the_types_of_the_spec_and_our_own_types_are_found():
    given = {
        "inputs": {"artifacts": {"examples": {"artifacts": [{"uri": "s3://b/x", "metadata": {"split_names": "[]"}}]}}},
        "outputs": {
            "artifacts": {"comparison": {"artifacts": [{"uri": "s3://b/y", "type": schema("stillhouse.Comparison")}]}}
        },
    }
    spec = {"artifacts": {"examples": {"artifactType": schema("tfx.Examples")}}}
    found = prepared(given, spec, "")
    assert found["inputs"]["artifacts"]["examples"]["artifacts"] == [
        {"uri": "/s3/b/x", "metadata": {"split_names": "[]"}, "type": schema("tfx.Examples")}
    ]
    (comparison,) = found["outputs"]["artifacts"]["comparison"]["artifacts"]
    assert comparison["type"] == {"schemaTitle": "stillhouse.components.report.component.Comparison"}


def test_parameters_go_where_they_belong():
    config = json.dumps({"epochs": 10, "seed": 1, "name": "Student"})
    found = apply({"custom_config": config, "set_epochs": 3.0, "set_seed": 7.0, "label": "y"})
    assert json.loads(found.pop("custom_config")) == {"epochs": 3, "seed": 7, "name": "Student"}
    assert found == {"label": "y"}


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
    (tmp_path / "out.json").write_text(json.dumps(told))
    publish(tmp_path / "out.json", str(tmp_path))
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["artifacts"]["model"]["artifacts"] == [{"uri": "minio://b/model", "metadata": {"a": 1.0}}]


def test_what_a_driver_has_found_out_stays_beside_what_the_executor_reports(tmp_path):
    def told(**metadata):
        return {"artifacts": {"examples": {"artifacts": [{"uri": "x", "metadata": metadata}]}}}

    (tmp_path / "out.json").write_text(json.dumps(told(split_names="[]")))
    keep_properties(tmp_path / "out.json", told(input_fingerprint="a", split_names=""))
    assert json.loads((tmp_path / "out.json").read_text()) == told(input_fingerprint="a", split_names="[]")
    keep_properties(tmp_path / "out.json", {})  # no ExampleGen
    assert json.loads((tmp_path / "out.json").read_text()) == told(input_fingerprint="a", split_names="[]")


def executor_input(tmp_path, fingerprint="a", **parameters):
    given = {"push_path": str(tmp_path), "pipeline": "blobs", "content": "1", "seed": 1, "only_if_changed": True}
    metadata = {"input_fingerprint": fingerprint}
    return {
        "inputs": {
            "parameterValues": given | parameters,
            "artifacts": {"examples": {"artifacts": [{"uri": "minio://b/x", "metadata": metadata}]}},
        }
    }


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
