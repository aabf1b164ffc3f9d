"""The example settings, shortened: other metrics and strategies than the blobs task has."""

import json

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


@pytest.mark.soak
def test_taxi_is_binary_with_one_logit_and_gated_by_auc(tmp_path):
    """On a part of the trips, with one gate: evaluations are most of a run."""
    trips = next((REPOSITORY / "data" / "taxi").glob("*.csv")).read_text().splitlines(keepends=True)
    (tmp_path / "data" / "taxi").mkdir(parents=True)
    (tmp_path / "data" / "taxi" / "trips.csv").write_text("".join(trips[:3001]))
    result = run(
        Project(tmp_path), str(REPOSITORY / "pipelines/examples/taxi.yaml"),
        "--set", "teachers=[{epochs: 4}]", "--set", "student.epochs=4", "--set", "evaluation.gates.baseline=null",
        "--set", "evaluation.gates.pushed=null", "--set", "evaluation.gates.teacher.min_slice_examples=30",
    )  # fmt: skip
    teacher = result["models"][0]
    assert teacher["metrics"]["auc"] > 0.75
    assert any(name.startswith("trip_start_hour=") for name in teacher["slices"])
    gate = next(gate for gate in result["gates"] if gate["name"] == "teacher")
    assert gate["metric"] == "auc"
    assert result["pairs"][0]["metric"] == "auc"
    assert result["pairs"][0]["change"] == pytest.approx(gate["change"], abs=0.01)
