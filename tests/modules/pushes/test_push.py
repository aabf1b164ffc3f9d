"""A version appears whole or not at all, whatever else happens to the push folder."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.modules.errors import MachineError
from stillhouse.modules.pushes import push as pushes
from stillhouse.modules.pushes.push import push, remove_dead, unfinished_folder
from stillhouse.modules.pushes.versions import is_damaged, model_fingerprint, newest_version, numbered_entries

FILES = 12
PUSHES_MANY = """
import sys
from pathlib import Path
from stillhouse.modules.pushes.push import push
from stillhouse.modules.pushes.versions import model_fingerprint
name, folder, push_path, times = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for number in range(times):
    (folder / "saved_model.pb").write_text(f"{name} {number}")
    fingerprint = model_fingerprint(str(folder))
    print(push(str(folder), push_path, fingerprint, {}, "run again"), fingerprint, flush=True)
"""
HOLDS_AN_UNFINISHED_FOLDER = """
import sys
from pathlib import Path
from stillhouse.modules.pushes.push import unfinished_folder
with unfinished_folder(sys.argv[1]) as unfinished:
    Path(unfinished, "half").write_text("half")
    print(unfinished, flush=True)
    sys.stdin.readline()
"""


def saved_model(folder, content="model"):
    for number in range(FILES):
        path = folder / "variables" / f"part-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content} {number}")
    (folder / "saved_model.pb").write_text(content)
    return folder


def pushed(model, push_path, **arguments):
    return push(str(model), str(push_path), model_fingerprint(str(model)), {}, "run again", **arguments)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def start(program, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_pushers_at_the_same_time_make_whole_versions_and_name_their_own(tmp_path):
    serving = tmp_path / "serving"
    models = [saved_model(tmp_path / f"model-{number}") for number in range(4)]
    pushers = [start(PUSHES_MANY, model.name, model, serving, 10) for model in models]
    for process in pushers:
        assert process.stdout.readline() == "ready\n"
    for process in pushers:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate() for process in pushers]
    assert [process.returncode for process in pushers] == [0, 0, 0, 0], outputs
    reported = [tuple(line.split()) for output, _ in outputs for line in output.splitlines()]
    assert len(reported) == 40
    assert len(dict(reported)) == 40
    assert names(serving) == sorted(version for version, _ in reported)
    for version, fingerprint in reported:
        assert not is_damaged(str(serving / version))
        assert model_fingerprint(str(serving / version)) == fingerprint
        assert len(list((serving / version / "variables").iterdir())) == FILES


def test_a_push_replaces_nothing_that_takes_its_number_meanwhile(tmp_path, monkeypatch):
    model, serving = saved_model(tmp_path / "model"), tmp_path / "serving"
    taken = []

    def take(folder, at_least):
        """Another system makes an empty folder, a file, a link and a full folder in the moment before the rename."""
        number = 1000 + len(taken)
        makers = (
            lambda path: path.mkdir(),
            lambda path: path.write_text("a file"),
            lambda path: path.symlink_to(tmp_path),
            lambda path: saved_model(path, "of another"),
        )
        if len(taken) < len(makers):
            makers[len(taken)](serving / str(number))
        taken.append(number)
        return number

    monkeypatch.setattr(pushes, "next_number", take)
    assert pushed(model, serving) == "1004"
    assert list((serving / "1000").iterdir()) == []
    assert (serving / "1001").read_text() == "a file"
    assert (serving / "1002").is_symlink()
    assert (serving / "1003" / "saved_model.pb").read_text() == "of another"


def test_a_version_is_the_newest_also_beside_larger_numbers_of_others(tmp_path):
    model, serving = saved_model(tmp_path / "model"), tmp_path / "serving"
    for name in ("007", "9000000000000"):
        saved_model(serving / name)
    (serving / "9000000000001").write_text("a file")
    assert pushed(model, serving) == "9000000000002"
    assert newest_version(str(serving)) == "9000000000002"
    assert pushed(model, serving, at_least=5) == "9000000000003"


def test_a_model_that_is_not_the_one_that_was_checked_does_not_appear(tmp_path):
    model, serving = saved_model(tmp_path / "model"), tmp_path / "serving"
    fingerprint = model_fingerprint(str(model))
    part = model / "variables" / "part-3"
    part.write_text(part.read_text()[:3])
    with pytest.raises(MachineError, match=f"{model}: found a model with fingerprint .* nothing was pushed; run again"):
        push(str(model), str(serving), fingerprint, {}, "run again")
    assert names(serving) == []


def test_what_a_killed_push_has_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    model, serving = saved_model(tmp_path / "model"), tmp_path / "serving"
    living, killed = (start(HOLDS_AN_UNFINISHED_FOLDER, serving) for _ in range(2))
    try:
        folders = [Path(process.stdout.readline().strip()) for process in (living, killed)]
        killed.kill()
        killed.wait()
        assert names(serving) == sorted(folder.name for folder in folders)
        version = pushed(model, serving)
        assert names(serving) == sorted([version, folders[0].name])
        assert (folders[0] / "half").read_text() == "half"
        living.communicate("\n")
        assert names(serving) == [version]
    finally:
        for process in (living, killed):
            process.kill()
            process.communicate()


def test_what_another_machine_has_left_is_removed_when_it_is_old(tmp_path):
    for name in (".unfinished", ".unfinished-elsewhere-7-aa", ".1000.unfinished-7-aa"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("half")
    before = names(tmp_path)
    remove_dead(str(tmp_path))
    assert names(tmp_path) == before
    for path in (tmp_path / ".unfinished", tmp_path / ".1000.unfinished-7-aa"):
        for each in (path / "half", path):
            os.utime(each, (1000, 1000))
    remove_dead(str(tmp_path))
    assert names(tmp_path) == [".unfinished-elsewhere-7-aa"]


def test_without_locks_only_what_is_old_is_removed(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(pushes.fcntl, "flock", no_locks)
    with unfinished_folder(str(tmp_path)) as unfinished:
        remove_dead(str(tmp_path))
        assert os.path.isdir(unfinished)
        os.utime(unfinished, (1000, 1000))
        remove_dead(str(tmp_path))
        assert not os.path.exists(unfinished)
    assert names(tmp_path) == []


def test_a_link_in_the_place_of_a_leftover_is_unlinked_and_not_followed(tmp_path):
    model, serving, elsewhere = saved_model(tmp_path / "model"), tmp_path / "serving", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    serving.mkdir()
    with unfinished_folder(str(serving)) as unfinished:
        own = Path(unfinished).name
    for name in (".unfinished", own):
        (serving / name).symlink_to(elsewhere)
    left = serving / ".unfinished-elsewhere-1-a"
    left.mkdir()
    (left / "inner").symlink_to(elsewhere)
    for each in (left, elsewhere):
        os.utime(each, (1000, 1000))
    os.utime(left / "inner", (1000, 1000), follow_symlinks=False)
    version = pushed(model, serving)
    assert names(serving) == [version]
    assert names(elsewhere) == ["kept"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "none", folder], check=False).returncode:
        pytest.skip("mount: a small file system needs the rights to mount one")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_and_nothing_is_left_on_it(tmp_path, small_disk):
    model, serving = saved_model(tmp_path / "model"), small_disk / "serving"
    first = pushed(model, serving)
    (model / "variables" / "large").write_bytes(b"x" * 300_000)
    with pytest.raises(MachineError, match=f"push.path: no space left on the disk of {serving}; nothing was pushed"):
        pushed(model, serving)
    assert names(serving) == [first]
    (model / "variables" / "large").unlink()
    assert len({first, pushed(model, serving)}) == 2


def test_a_process_that_dies_between_rename_and_report_leaves_a_whole_version(tmp_path):
    model, serving = saved_model(tmp_path / "model"), tmp_path / "serving"
    program = "import os, signal\nfrom stillhouse.modules.pushes import push as pushes\nrename = pushes._rename\n"
    program += "def die(*names):\n    rename(*names)\n    os.kill(os.getpid(), signal.SIGKILL)\npushes._rename = die\n"
    process = start(program + PUSHES_MANY, "only", model, serving, 1)
    process.communicate("\n")
    assert process.returncode == -signal.SIGKILL
    (version,) = numbered_entries(str(serving))
    assert not is_damaged(str(serving / version))
    assert json.loads((serving / version / "assets.extra" / "push.json").read_text())["time"]
