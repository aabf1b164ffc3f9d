"""What docs/ shows of the code is made from it."""

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
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


def test_the_page_on_reliability_has_a_row_for_each_fault():
    import reliability

    page = (DOCS / "reliability.md").read_text()
    assert reliability.MARK in page
    for fault, (_, test) in reliability.FAULTS.items():
        assert f"| {fault} |" in page, "run docs/reliability.py"
        assert (REPOSITORY / test).is_file()


def test_links_between_files_of_the_repository_lead_somewhere():
    pages = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    broken = []
    for page in map(REPOSITORY.joinpath, pages.stdout.splitlines()):
        text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)  # no code
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(REPOSITORY)}: {target}")
    assert broken == []
