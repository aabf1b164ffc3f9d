"""Files and folders that are there whole or not at all, whatever happens to who writes them."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from stillhouse.modules import atomic
from stillhouse.modules.atomic import (
    new_file,
    new_folder,
    refuse_links,
    refuse_links_below,
    remove_leftovers,
    rename_to_new,
    write_text,
)
from stillhouse.modules.errors import UserError

SAYS_HALF_AND_WAITS = """
import sys, time
from pathlib import Path
from stillhouse.modules.atomic import new_file, new_folder
with (new_file if sys.argv[1] == "file" else new_folder)(sys.argv[2]) as unfinished:
    Path(unfinished, *([] if sys.argv[1] == "file" else ["part"])).write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


def fail_inside(context, part, error, write=lambda path: Path(path).write_text("half")):
    """Writes half of a file, or one of the files of a folder, and fails."""
    with context as unfinished:
        write(f"{unfinished}{part}")
        raise error("told to")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_takes_the_place_of_an_older_one_with_the_rights_of_a_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    for text in ("old", "ä new one"):
        write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_text(encoding="utf-8") == text
    assert names(tmp_path) == ["a.txt", "plain"]
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_writer_that_fails_leaves_the_target_and_nothing_else(tmp_path, error):
    write_text(tmp_path / "file", "old")
    for context, part in ((new_file(tmp_path / "file"), ""), (new_folder(tmp_path / "folder"), "/part")):
        with pytest.raises(error, match="told to"):
            fail_inside(context, part, error)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_rename_that_fails_leaves_the_target_and_nothing_else(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "file", "old")
    for function in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, function, full)
            with pytest.raises(OSError, match="No space left"):
                write_text(tmp_path / "file", "new")
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "rename_to_new", full)
        with pytest.raises(OSError, match="No space left"), new_folder(tmp_path / "folder"):
            pass
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_file_that_nobody_wrote_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "file"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_writer_leaves_the_target_and_what_can_be_recognised(tmp_path, kind):
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("old")
    command = [sys.executable, "-c", SAYS_HALF_AND_WAITS, kind, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "half\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert target.read_text() == "old" if kind == "file" else not target.exists()
    left = [name for name in names(tmp_path) if name != "target"]
    assert len(left) == 1
    assert left[0].startswith(f".target.unfinished-{writer.pid}-")
    (tmp_path / ".target.other").write_text("")
    write_text(tmp_path / ".target2.unfinished-1-0", "of another target")
    remove_leftovers(target)
    assert set(names(tmp_path)) - {"target"} == {".target.other", ".target2.unfinished-1-0"}


def test_leftovers_of_what_was_never_written_are_none(tmp_path):
    remove_leftovers(tmp_path / "missing" / "target")
    remove_leftovers(tmp_path / "target")


def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(tmp_path):
    (tmp_path / "real").write_text("real")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("kept")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "link-to-folder").symlink_to("folder")
    write_text(tmp_path / "link", "new")
    with pytest.raises(FileExistsError), new_folder(tmp_path / "link-to-folder"):
        pass
    with new_folder(f"{tmp_path}/link-to-folder/", replace=True) as unfinished:
        Path(unfinished, "new").write_text("new")
        Path(unfinished, "inner").symlink_to(tmp_path / "folder")
    assert (tmp_path / "real").read_text() == "real"
    assert names(tmp_path / "folder") == ["kept"]
    assert not (tmp_path / "link").is_symlink()
    assert not (tmp_path / "link-to-folder").is_symlink()
    with new_folder(tmp_path / "link-to-folder", replace=True):
        pass  # the older one, which holds a link, is removed
    assert names(tmp_path / "folder") == ["kept"]
    assert names(tmp_path) == ["folder", "link", "link-to-folder", "real"]


def test_a_leftover_that_is_a_link_is_removed_without_following_it(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("kept")
    (tmp_path / ".x.unfinished-1-0").symlink_to("folder")
    remove_leftovers(tmp_path / "x")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["kept"]


def test_a_folder_takes_the_place_of_another_only_if_asked(tmp_path):
    target = tmp_path / "above" / "folder"
    for text in ("first", "second"):
        with new_folder(target, replace=True) as unfinished:
            Path(unfinished, text).write_text(text)
        assert names(target) == [text]
    with pytest.raises(FileExistsError, match="above/folder"), new_folder(target) as unfinished:
        Path(unfinished, "third").write_text("third")
    assert names(target) == ["second"]
    assert names(target.parent) == ["folder"]


@pytest.mark.parametrize("known", [True, False])
def test_a_rename_to_a_new_name_replaces_nothing(tmp_path, monkeypatch, known):
    if not known:  # a system, or a file system, that cannot do it in one step
        monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    source = tmp_path / "source"
    (source / "part").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "part").mkdir(parents=True)
    (tmp_path / "file").write_text("file")
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "broken").symlink_to("missing")
    before = sorted(tmp_path.rglob("*"))
    for name in ("empty", "full", "file", "link", "broken"):
        with pytest.raises(FileExistsError, match=name):
            rename_to_new(str(source), str(tmp_path / name))
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(FileNotFoundError):
        rename_to_new(str(tmp_path / "missing"), str(tmp_path / "new"))
    rename_to_new(str(source), str(tmp_path / "new"))
    assert names(tmp_path / "new") == ["part"]


def test_links_below_a_folder_are_refused_and_those_above_it_are_not(tmp_path):
    (tmp_path / "real" / "a" / "b").mkdir(parents=True)
    (tmp_path / "given").symlink_to("real")
    given = tmp_path / "given"
    refuse_links(given / "a" / "b" / "missing", below=given)
    refuse_links(given, below=given)
    refuse_links_below(given)
    refuse_links_below(tmp_path / "missing")
    (tmp_path / "real" / "a" / "b" / "link").symlink_to(tmp_path / "missing")
    for path in (given / "a" / "b" / "link", given / "a" / "b" / "link" / "c"):
        with pytest.raises(
            UserError, match=f"{given}/a/b/link: found a symbolic link .to {tmp_path}/missing.; expected"
        ):
            refuse_links(path, below=given)
    with pytest.raises(UserError, match="a/b/link: found a symbolic link"):
        refuse_links_below(given)


def test_writers_at_the_same_time_leave_one_whole_result(tmp_path):
    content = {str(number): str(number) * 100_000 for number in range(8)}
    start = threading.Barrier(len(content))
    failures = []

    def write(number):
        start.wait()
        try:
            for _ in range(10):
                write_text(tmp_path / "file", content[number])
                with new_folder(tmp_path / "folder", replace=True) as unfinished:
                    for part in "ab":
                        Path(unfinished, part).write_text(content[number])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in content]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() in content.values()
    parts = [(tmp_path / "folder" / part).read_text() for part in "ab"]
    assert parts[0] == parts[1]


def test_other_file_systems_are_written_by_tensorflow():
    import tensorflow as tf

    root = f"ram://{uuid.uuid4().hex}"
    tf.io.gfile.makedirs(root)
    for text in ("old", "new"):
        write_text(f"{root}/file", text)
        with tf.io.gfile.GFile(f"{root}/file") as file:
            assert file.read() == text

    def write(path):
        with tf.io.gfile.GFile(path, "w") as file:
            file.write("half")

    for context, part in ((new_file(f"{root}/file"), ""), (new_folder(f"{root}/folder"), "/part")):
        with pytest.raises(ValueError, match="told to"):
            fail_inside(context, part, ValueError, write)
    assert tf.io.gfile.listdir(root) == ["file"]
    write(f"{root}/.file.unfinished-1-0")
    remove_leftovers(f"{root}/file")
    assert tf.io.gfile.listdir(root) == ["file"]


def test_a_quick_command_does_not_import_tensorflow():
    command = "import sys, stillhouse.modules.atomic; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
