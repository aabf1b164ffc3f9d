"""What docs/ shows of the code is made from it."""

import pytest
from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"


@pytest.fixture(autouse=True)
def scripts_of_docs(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)


def test_the_pictures_of_the_architecture_are_current():
    import architecture

    page = (DOCS / "architecture.md").read_text()
    for block in architecture.blocks().values():
        assert block in page, "run docs/architecture.py"


def test_no_door_leads_back():
    import architecture

    arrows = architecture.doors()
    for room, targets in arrows.items():
        houses = {target.split(".")[0] for target in targets}
        if room.startswith("modules"):
            assert houses <= {"modules"}, room
        if room.startswith("components"):
            assert "pipelines" not in houses, room
    assert arrows["pipelines.dag"] >= {"components", "modules.settings"}


def test_the_api_page_shows_the_example_that_is_tested():
    import example

    assert example.block() in (DOCS / "api.md").read_text(), "run docs/example.py"
