"""The metadata store of a run's folder: locked, damaged, of another version, apart from its artifacts."""

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from ml_metadata.metadata_store import MetadataStore, metadata_store
from ml_metadata.proto import metadata_store_pb2

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.pipelines.dag.create import sqlite
from stillhouse.pipelines.local import metadata_check
from stillhouse.pipelines.local.metadata_check import check_metadata

NODES = ("ExampleGen/examples/1", "Transform/transform_graph/2", "Teacher-1/model/3", "Student/model/4")
AWAY = "move it to metadata.sqlite.damaged and run again: artifacts are kept, and every node runs again"


def write_store(root):
    """Writes artifacts, and a store that knows them, below `root`."""
    store = MetadataStore(sqlite(str(root / "metadata.sqlite")))
    kind = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="Model"))
    run = store.put_execution_type(metadata_store_pb2.ExecutionType(name="Trainer"))
    for node in NODES:
        folder = root / "artifacts" / node
        folder.mkdir(parents=True)
        (folder / "content").write_text(node)
        artifact = metadata_store_pb2.Artifact(type_id=kind, uri=str(folder), state=metadata_store_pb2.Artifact.LIVE)
        store.put_artifacts([artifact])
        store.put_executions([metadata_store_pb2.Execution(type_id=run)])


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "runs [1]" / "a?b#c%20"  # as a URI it needs quoting
    folder.mkdir(parents=True)
    write_store(folder)
    return folder


@pytest.fixture
def notes(monkeypatch):
    lines = []
    monkeypatch.setattr(metadata_check, "note", lines.append)
    return lines


def test_a_store_as_a_run_leaves_it_passes_in_silence(root, notes):
    before = (root / "metadata.sqlite").read_bytes()
    check_metadata(root)
    assert notes == []
    assert (root / "metadata.sqlite").read_bytes() == before


def test_a_folder_without_a_run_passes(tmp_path, notes):
    check_metadata(tmp_path)
    assert (notes, os.listdir(tmp_path)) == ([], [])


def _emptied(path):
    os.truncate(path, 0)


def _half(path):
    os.truncate(path, path.stat().st_size // 2)


def _last_page_cut(path):
    os.truncate(path, path.stat().st_size * 99 // 100)


def _foreign(path):
    path.write_text("no database, " * 1_000)


def _foreign_database(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (id INTEGER)")


def _folder(path):
    path.unlink()
    path.mkdir()


def _pages_overwritten(path):
    content = bytearray(path.read_bytes())
    content[8192:16384] = random.Random(1).randbytes(8192)
    path.write_bytes(content)


def _index_overwritten(path):
    """Changes one value of an index: every page is well formed, and `PRAGMA quick_check` says ok."""
    content = path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'idx_artifact_uri'").fetchone()[0]
    start = (page - 1) * 4096
    at = content.index(b"ExampleGen", start, start + 4096)
    path.write_bytes(content[:at] + b"XxampleGen" + content[at + 10 :])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_emptied, "the metadata store is empty, but there are artifacts in .*; put back a copy of the file, or "),
        (_half, "the metadata store is corrupt .*; put back a copy of it, or "),
        (_last_page_cut, r"the metadata store is corrupt .found [\d,]+ bytes, expected [\d,]+.; put back a copy"),
        (_foreign, "the metadata store is corrupt .file is not a database.; put back"),
        (_foreign_database, "the metadata store is corrupt .its tables are not ML Metadata's.; put back"),
        (_folder, "found a folder or a special file; expected the metadata store; "),
        (_pages_overwritten, "the metadata store is corrupt .*; put back a copy of it, or "),
        (_index_overwritten, "the metadata store is corrupt .*index.*; put back a copy of it, or "),
    ],
)
def test_a_damaged_store_is_one_sentence_and_stays_as_it_is(root, notes, damage, message):
    path = root / "metadata.sqlite"
    damage(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(MachineError, match=f"^{re.escape(str(path))}: {message}") as caught:
        check_metadata(root)
    assert AWAY in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert before is None or path.read_bytes() == before


def test_a_store_of_a_run_that_was_killed_in_its_first_node_passes(tmp_path, notes):
    store = MetadataStore(sqlite(str(tmp_path / "metadata.sqlite")))
    kind = store.put_execution_type(metadata_store_pb2.ExecutionType(name="ExampleGen"))
    store.put_executions([metadata_store_pb2.Execution(type_id=kind)])
    (tmp_path / "artifacts" / "ExampleGen" / "examples" / "1").mkdir(parents=True)
    check_metadata(tmp_path)
    assert notes == []


def test_a_run_that_was_killed_before_its_first_node_in_a_new_store_is_repeated(root, notes):
    (root / "metadata.sqlite").unlink()
    check_metadata(root)
    check_metadata(root)
    assert len(notes) == 1


def test_after_a_store_was_moved_away_executions_get_numbers_of_their_own(root, notes):
    path = root / "metadata.sqlite"
    path.rename(path.with_name("metadata.sqlite.damaged"))
    (root / "artifacts" / "Student" / ".system" / "executor_execution" / "6").mkdir(parents=True)  # of one that failed
    check_metadata(root)
    assert len(notes) == 1
    assert "nothing comes from the cache: every node runs again" in notes[0]
    store = MetadataStore(sqlite(str(path)))
    assert store.get_artifacts() == []
    run = store.put_execution_type(metadata_store_pb2.ExecutionType(name="Trainer"))
    assert store.put_executions([metadata_store_pb2.Execution(type_id=run)]) == [7]
    assert (root / "artifacts" / NODES[0] / "content").read_text() == NODES[0]


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_process(root):
    command = [sys.executable, "-c", HOLD, root / "metadata.sqlite"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_locked_store_is_waited_for_with_a_word_and_not_for_ever(root, notes, other_process, monkeypatch):
    monkeypatch.setattr(metadata_check, "SECONDS_BEFORE_NOTE", 0.5)
    monkeypatch.setattr(metadata_check, "SECONDS_TO_WAIT", 2.5)
    with pytest.raises(MachineError, match="metadata.sqlite: locked by another process for [23] s; close what has it"):
        check_metadata(root)
    assert notes == [f"{root}/metadata.sqlite: locked by another process; waiting up to 2 s"]


def test_a_store_that_is_unlocked_in_time_is_taken(root, monkeypatch, other_process):
    monkeypatch.setattr(metadata_check, "SECONDS_BEFORE_NOTE", 0.1)
    monkeypatch.setattr(metadata_check, "note", lambda _: other_process.stdin.close())
    check_metadata(root)
    assert other_process.wait(60) == 0


def test_what_a_killed_run_left_half_written_is_rolled_back(root, notes):
    path = root / "metadata.sqlite"
    code = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size = 1')\n"  # so that pages reach the file before the commit
        "connection.execute('BEGIN IMMEDIATE')\n"
        "connection.execute(\"UPDATE Artifact SET uri = 'gone'\")\n"
        "connection.executemany('INSERT INTO Type (name, type_kind) VALUES (?, 1)', [('x' * 3000,)] * 50)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, path])
    assert path.with_name("metadata.sqlite-journal").stat().st_size
    check_metadata(root)
    assert notes == []
    assert not path.with_name("metadata.sqlite-journal").exists()


def set_schema(path, version):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE MLMDEnv SET schema_version = ?", [version])


def schema(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT schema_version FROM MLMDEnv").fetchone()[0]


def test_a_store_of_an_older_version_is_migrated_and_the_old_one_kept(root, notes):
    path = root / "metadata.sqlite"
    metadata_store.downgrade_schema(sqlite(str(path)), 8)
    before = path.read_bytes()
    check_metadata(root)
    assert notes == [f"{path}: migrated from schema 8 to 10; the old one is kept as metadata.sqlite.schema-8"]
    assert (root / "metadata.sqlite.schema-8").read_bytes() == before
    assert len(MetadataStore(sqlite(str(path))).get_artifacts()) == len(NODES)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (9, "schema 9; this one has 10., and it cannot be migrated; install that version, or move it to"),
        (11, "schema 11; this one has 10.; install that version, or move it to metadata.sqlite.damaged"),
    ],
)
def test_a_store_that_only_another_version_reads_is_one_sentence(root, notes, version, message):
    """As in the case metadata-other-version, where the number alone was changed."""
    path = root / "metadata.sqlite"
    set_schema(path, version)
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"metadata.sqlite: another version of ml-metadata wrote it .{message}"):
        check_metadata(root)
    assert path.read_bytes() == before
    assert sorted(os.listdir(root)) == ["artifacts", "metadata.sqlite"]


def test_a_folder_that_was_moved_is_told_before_everything_runs_again(root, notes, tmp_path):
    moved = root.rename(tmp_path / "moved")
    with pytest.raises(UserError) as caught:
        check_metadata(moved)
    assert str(caught.value).startswith(f"{moved}: this folder was moved from {root}, and ")
    assert f"move it back, or make {root} a link to it and set --root to the link" in str(caught.value)
    root.symlink_to(moved)
    check_metadata(root)
    assert notes == []


def test_a_folder_that_was_copied_says_what_it_needs(root, notes, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    check_metadata(tmp_path / "copy")
    assert notes == [
        f"{tmp_path}/copy: a copy of {root}; what comes from the cache is still read there, so keep that folder"
    ]


def test_artifacts_that_are_gone_are_told(root, notes):
    shutil.rmtree(root / "artifacts" / "Teacher-1")
    check_metadata(root)
    gone = root / "artifacts" / "Teacher-1" / "model" / "3"
    assert notes == [f"1 of 4 artifacts are gone, such as {gone}; the nodes that made them run again"]


def test_artifacts_whose_files_are_gone_are_gone_too(root, notes):
    artifact = root / "artifacts" / "Teacher-1" / "model" / "3"
    (artifact / "content").unlink()
    (artifact / "Format-Serving" / "variables").mkdir(parents=True)
    check_metadata(root)
    assert notes == [f"1 of 4 artifacts are gone, such as {artifact}; the nodes that made them run again"]
    assert not artifact.exists()


def test_a_link_in_an_artifact_is_none_of_ours_to_remove(root, notes, tmp_path):
    artifact = root / "artifacts" / "Teacher-1" / "model" / "3"
    (artifact / "content").unlink()
    (artifact / "linked").symlink_to(tmp_path)
    check_metadata(root)
    assert notes == []
    assert (artifact / "linked").is_symlink()
