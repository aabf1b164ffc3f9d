"""The commit that a run is made from."""

import subprocess

from stillhouse.pipelines.dag.commit import UNCOMMITTED, commit_of


def git(folder, *arguments):
    told = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *told, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_folder_without_a_repository_or_a_commit_has_none(tmp_path):
    assert commit_of(tmp_path) == ""
    git(tmp_path, "init")
    assert commit_of(tmp_path) == ""


def test_a_commit_is_named_and_whether_files_differ_from_it(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "task.py").write_text("one")
    git(tmp_path, "add", "task.py")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "data.csv").write_text("not part of it")
    assert commit_of(tmp_path) == commit
    (tmp_path / "task.py").write_text("two")
    assert commit_of(tmp_path) == commit + UNCOMMITTED
