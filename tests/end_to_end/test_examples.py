"""The example settings, shortened: other formats, metrics and strategies than the blobs task has."""

import json

import blobs
import pyarrow
import pyarrow.parquet
import pytest
from conftest import REPOSITORY, Project


def run(project, *arguments):
    done = project.stillhouse("run", *arguments, "--json")
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


@pytest.mark.soak
def test_digits_on_two_mirrored_replicas(tmp_path):
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    result = run(
        Project(tmp_path), str(REPOSITORY / "pipelines/examples/digits.yaml"),
        "--set", "teachers=[{epochs: 5, strategy: {name: mirrored, devices: 2}}]", "--set", "student.epochs=10",
    )  # fmt: skip
    accuracy = {model["role"]: model["metrics"]["accuracy"] for model in result["models"]}
    assert accuracy["teacher"] > 0.9
    assert accuracy["student"] > 0.8
    assert {f"label={digit}" for digit in range(10)} == set(result["models"][0]["slices"])


def test_taxi_is_binary_with_one_logit_and_gated_by_auc(tmp_path):
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    result = run(
        Project(tmp_path), str(REPOSITORY / "pipelines/examples/taxi.yaml"),
        "--set", "teachers=[{epochs: 2}]", "--set", "student.epochs=2",
    )  # fmt: skip
    teacher = result["models"][0]
    assert teacher["metrics"]["auc"] > 0.85
    assert any(name.startswith("trip_start_hour=") for name in teacher["slices"])
    assert next(gate for gate in result["gates"] if gate["name"] == "teacher")["metric"] == "auc"


@pytest.mark.parametrize("metric", ["SparseCategoricalCrossentropy"])
def test_parquet_spans_take_the_newest_and_a_loss_can_be_gated(project, metric):
    columns = list(zip(*blobs.rows(200), strict=True))
    for span, rows in ((1, 50), (2, 200)):
        table = pyarrow.table({n: c[:rows] for n, c in zip([*blobs.COLUMNS, "tree"], columns, strict=True)})
        folder = project.folder / "data" / f"span-{span}" / "v1"
        folder.mkdir(parents=True)
        pyarrow.parquet.write_table(table, folder / "blobs.parquet")
    result = run(
        project, "blobs.yaml", "--set", "data.path=data/span-{SPAN}/v{VERSION}", "--set", "data.format=parquet",
        "--set", f"evaluation.metric={metric}",
    )  # fmt: skip
    (examples,) = project.folder.glob("runs/blobs/artifacts/ExampleGen/examples/*")
    assert 20 < result["eval_examples"] < 90  # a quarter of 200, not of 50
    assert result["gates"][0]["metric"] == "loss"
    assert examples.is_dir()
