"""The disk of a run fills up in each node: one sentence, nothing half-written; with space again the run resumes."""

import re
import subprocess

import pytest
from campaign import (
    assert_as_undisturbed,
    assert_metadata_is_sound,
    assert_no_process_is_left,
    disturbed,
    small_project,
    undisturbed,
    versions,
)

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
SIZE = "64m"
MIN_FILLER_BYTES = 1 << 20


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, mounted in tmp_path."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"NOT RUN: no disk of its own: {mounted.stderr.strip()}; a full disk needs root to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_in_any_node_is_named_and_the_run_resumes(disk, record_property):
    record_property("fault", "disk full in each node")
    project, filler = small_project(disk), disk / "filler"
    for number, node in enumerate(undisturbed().seconds, start=1):
        record_property("tried", number)
        done = disturbed(project, f"running:{node}+0", f"FILL:{filler}")
        assert filler.stat().st_size > MIN_FILLER_BYTES, f"{node}: {done.stderr}"
        filler.unlink()
        assert done.returncode == 1, f"{node}: {done.stderr}"
        message = " ".join(done.stderr.split())
        assert f"error: {node}: " in message
        (named,) = re.findall(r"no space left on the disk of (.+?);", message)
        assert (project.folder / named).is_relative_to(disk), message
        assert "Traceback" not in message
        assert_no_process_is_left(project)
        assert_metadata_is_sound(project)
        assert not [path for path in disk.rglob("*") if ".unfinished" in path.name]
        assert not (disk / "runs/blobs/comparison.json").exists()
        if node != "Report":  # which follows the push
            assert versions(project) == []
    assert_as_undisturbed(project, project.stillhouse("run", "blobs.yaml"))
