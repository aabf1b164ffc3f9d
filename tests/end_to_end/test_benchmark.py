"""stillhouse benchmark."""

import json

import pytest

from stillhouse.modules.ingestion.measure import CACHES, LIMIT, NAIVE


@pytest.mark.soak
def test_ingestion_of_a_run_is_measured(finished):
    done = finished.stillhouse("benchmark", "ingestion", "blobs.yaml", "--rounds", "2", "--seconds", "0.2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {rate["way"] for rate in found["rates"]} == {NAIVE, LIMIT, *CACHES}
    assert all(
        len(rate["examples_per_second"]) == 2 and min(rate["examples_per_second"]) > 0 for rate in found["rates"]
    )
    assert found["auto"].startswith("cache: memory")


def test_without_a_run_there_is_nothing_to_measure(project):
    done = project.stillhouse("benchmark", "ingestion", "blobs.yaml")
    assert done.returncode == 2
    assert "runs/blobs: no run with transformed examples; `stillhouse run SETTINGS` creates one" in done.stderr
