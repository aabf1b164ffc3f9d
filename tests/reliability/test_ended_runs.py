"""A run is ended by a signal again and again, and repeated: nothing may tell that it was ended."""

import itertools
import random
import shutil
import signal

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
PARTS = 4  # of the effects of a push


def end(project, point, action):
    """Has a run ended by a signal at a point, and checks what it has left; returns whether the signal came in time."""
    done = disturbed(project, point, action)
    if done.returncode == 0:  # Report was quicker than in the undisturbed run
        assert point.startswith("running:Report"), point
        return False
    if action == "INT":
        assert done.returncode == 1, f"{point}: {done.stderr}"
        assert "error: interrupted" in done.stderr
    else:
        assert done.returncode == -getattr(signal, f"SIG{action}"), f"{point}: {done.stderr}"
    assert "Traceback" not in done.stderr, point
    assert_no_process_is_left(project)
    assert_metadata_is_sound(project)
    assert len(versions(project)) <= 1  # a version or an unfinished one
    return True


@pytest.mark.parametrize("action", ["KILL", "INT", "TERM", "HUP"])
def test_a_run_that_is_ended_in_and_after_each_node_is_finished_by_the_next(tmp_path, action, record_property):
    record_property("fault", "kill -9 at moments of a run" if action == "KILL" else f"SIG{action} at moments of a run")
    project, seed = small_project(tmp_path), random.randrange(10**9)
    moment = random.Random(seed)
    print(f"seed {seed}")
    seconds, tried = undisturbed().seconds, 0
    for node, duration in seconds.items():
        points = [f"running:{node}+{moment.uniform(0, duration):.3f}", f"finished:{node}"]
        for point in points if action == "KILL" else points[:1]:
            tried += end(project, point, action)
            record_property("tried", tried)
    assert_as_undisturbed(project, project.stillhouse("run", "blobs.yaml"))


@pytest.fixture(scope="module")
def before_push(tmp_path_factory):
    """A project whose run was killed before its push, and a copy of it; artifacts have absolute paths."""
    folder = tmp_path_factory.mktemp("push") / "project"
    folder.mkdir()
    project = small_project(folder)
    end(project, "running:Pusher+0", "KILL")
    return project, shutil.copytree(folder, folder.with_name("backup"))


@pytest.mark.parametrize("first", range(1, PARTS + 1))
def test_a_push_that_is_killed_between_any_two_effects_pushes_one_version(before_push, first, record_property):
    record_property("fault", "kill -9 between two effects of a push")
    project, backup = before_push
    for number in itertools.count(first, PARTS):
        shutil.rmtree(project.folder)
        shutil.copytree(backup, project.folder)
        done = disturbed(project, f"effect:Pusher:{number}", "KILL")
        if done.returncode == 0:  # there is no such effect
            break
        record_property("tried", (number - first) // PARTS + 1)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert_metadata_is_sound(project)
        assert_as_undisturbed(project, project.stillhouse("run", "blobs.yaml"))
    assert number > PARTS
