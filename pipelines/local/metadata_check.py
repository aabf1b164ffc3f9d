"""Checks the metadata store of a run's folder before a run: ML Metadata waits for ever on a lock and trusts the rest.

The store is an SQLite file that says which artifacts exist. It is never removed here: a message says how to move it
away, and a run without it keeps the artifacts that are there.
"""

import os
import re
import shutil
import sqlite3
import time
import urllib.parse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto.metadata_store_pb2 import Artifact

from stillhouse.modules.atomic import new_file
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.progress import note
from stillhouse.pipelines.dag.create import sqlite
from stillhouse.pipelines.local.paths import ARTIFACTS, METADATA

# Outputs, by node and name, that may hold no file.
MAY_BE_EMPTY = {("Transform", "updated_analyzer_cache"), ("LastPushed", "model"), ("Pusher", "pushed_model")}
SECONDS_BEFORE_NOTE = 5.0  # of waiting for another process
SECONDS_TO_WAIT = 60.0
# ML Metadata's words on a store of another version of the library.
OTHER_VERSION = re.compile(r"database version (\d+) is (older|greater) than library version (\d+)")


def check_metadata(root: Path) -> None:
    """Checks the metadata store below a run's root, and makes or migrates it where that is what is needed.

    Raises:
      MachineError: it is locked, corrupt, or cannot be read or written.
      UserError: another version of ML Metadata wrote it, or its artifacts are in another folder.
    """
    path, artifacts = root / METADATA, (root / ARTIFACTS).absolute()
    ids = _execution_ids(artifacts)
    if not os.path.lexists(path):
        if ids:
            note(f"{path}: no such file; {artifacts} is kept, but nothing comes from the cache: every node runs again")
            _start_after(path, max(ids))
        return
    check_store(path)
    _migrate(path)
    uris = _newest_artifacts(path)
    if ids and not _has_executions(path):  # of a run that was killed in its first node it has one, and no artifact
        raise MachineError(
            f"{path}: the metadata store is empty, but there are artifacts in {artifacts}; put back a copy of the "
            f"file, or {_move_away(path)}"
        )
    _check_uris(uris, artifacts, path)


def check_store(path: Path) -> None:
    """Checks that a metadata store is a whole SQLite database that no other process has locked.

    Opens it for writing: what a killed run has left half written (a hot journal) is rolled back, as SQLite does.

    Raises:
      MachineError: it is not.
    """
    if not path.is_file():
        raise MachineError(f"{path}: found a folder or a special file; expected the metadata store; {_move_away(path)}")
    started, told = time.monotonic(), False
    while True:
        try:
            with closing(_connect(path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                problem = _problem_of(connection, path)
                connection.execute("ROLLBACK")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise _unusable(path, error) from error
            waited = time.monotonic() - started
            if waited > SECONDS_TO_WAIT:
                raise MachineError(
                    f"{path}: locked by another process for {waited:.0f} s; close what has it open and run again"
                ) from error
            if waited > SECONDS_BEFORE_NOTE and not told:
                note(f"{path}: locked by another process; waiting up to {SECONDS_TO_WAIT:.0f} s")
                told = True
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise corrupt(path, str(error)) from error
    if problem:
        raise corrupt(path, problem)


def corrupt(path: Path, reason: str) -> MachineError:
    """Returns the error of a corrupt metadata store."""
    return MachineError(
        f"{path}: the metadata store is corrupt ({reason}); put back a copy of it, or {_move_away(path)}"
    )


def _move_away(path: Path) -> str:
    return f"move it to {path.name}.damaged and run again: artifacts are kept, and every node runs again"


def _unusable(path: Path, error: sqlite3.OperationalError) -> MachineError:
    if "disk I/O error" in str(error):
        return corrupt(path, str(error))
    return MachineError(
        f"{path}: cannot be opened for writing ({error}); check its permissions and those of its folder"
    )


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    uri = f"file:{urllib.parse.quote(str(path.absolute()))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None)


def _problem_of(connection: sqlite3.Connection, path: Path) -> str | None:
    def value(pragma: str):
        return connection.execute(f"PRAGMA {pragma}").fetchone()[0]

    # SQLite takes a file without its last bytes for one that has zeros there.
    expected, size = value("page_count") * value("page_size"), path.stat().st_size
    if 0 < size < expected:  # an empty file is an empty database
        return f"found {size:,} bytes, expected {expected:,}"
    verdict = " ".join(value("integrity_check(1)").split())
    if verdict != "ok":
        return verdict
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and not {"MLMDEnv", "Artifact", "Execution"} <= tables:
        return "its tables are not ML Metadata's"
    return None


def _execution_ids(artifacts: Path) -> list[int]:
    """Returns the numbers of the executions that have left folders: NODE/OUTPUT/NUMBER and NODE/.system/KIND/NUMBER."""
    folders = [*artifacts.glob("*/*/*"), *artifacts.glob("*/.system/*/*")]
    return [int(path.name) for path in folders if re.fullmatch("[0-9]{1,18}", path.name)]


def _start_after(path: Path, execution: int) -> None:
    """Makes an empty store whose first execution gets a number after `execution`, whose folders are there."""
    with new_file(path) as unfinished:
        MetadataStore(sqlite(unfinished))
        with closing(_connect(Path(unfinished))) as connection:
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('Execution', ?)", [execution])


def _migrate(path: Path) -> None:
    """Brings a store of an older version of ML Metadata to that of the library; a copy of it is kept."""
    if path.stat().st_size == 0:
        return
    try:
        MetadataStore(sqlite(str(path)))
        return
    except RuntimeError as error:
        other = OTHER_VERSION.search(str(error))
        if not other:
            raise
        version, order, expected = other.groups()
        found = f"{path}: another version of ml-metadata wrote it (schema {version}; this one has {expected})"
        if order == "greater":
            raise UserError(f"{found}; install that version, or {_move_away(path)}") from error
    kept = path.with_name(f"{path.name}.schema-{version}")
    try:
        with new_file(path) as unfinished:
            shutil.copyfile(path, unfinished)
            MetadataStore(sqlite(unfinished), enable_upgrade_migration=True)
            with new_file(kept) as copy:
                shutil.copyfile(path, copy)
    except RuntimeError as error:
        raise UserError(f"{found}, and it cannot be migrated; install that version, or {_move_away(path)}") from error
    note(f"{path}: migrated from schema {version} to {expected}; the old one is kept as {kept.name}")


def rows_of(path: Path, table: str, query: str, values: Sequence[Any] = ()) -> list[tuple]:
    """Returns the rows of a query on a table of a store; none if it has no such table yet."""
    with closing(_connect(path, "ro")) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone():
            return []
        return connection.execute(query, values).fetchall()


def _has_executions(path: Path) -> bool:
    """Returns whether executions were ever numbered in a store."""
    return bool(rows_of(path, "sqlite_sequence", "SELECT 1 FROM sqlite_sequence WHERE name = 'Execution'"))


def _newest_artifacts(path: Path) -> list[Path]:
    """Returns the folder of the newest live artifact of each output of each node."""
    query = "SELECT uri FROM Artifact WHERE state = ? AND uri != '' ORDER BY id"
    return list({Path(uri).parent: Path(uri) for (uri,) in rows_of(path, "Artifact", query, [Artifact.LIVE])}.values())


def _is_gone(uri: Path) -> bool:
    """Returns whether an artifact is not there, or nothing is left of it but folders."""
    if not uri.is_dir() or uri.is_symlink():
        return not uri.exists()
    output = (uri.parents[1].name, uri.parent.name)
    return output not in MAY_BE_EMPTY and not any(
        files or _links(folder, names) for folder, names, files in os.walk(uri)
    )


def _links(folder: str, names: Sequence[str]) -> bool:
    return any(os.path.islink(os.path.join(folder, name)) for name in names)


def _check_uris(uris: list[Path], artifacts: Path, path: Path) -> None:
    """Checks where the store's artifacts are; URIs are absolute, so a folder that was moved has none of its own."""
    roots = {uri.parents[2] for uri in uris if len(uri.parents) > 2 and uri.parents[2].name == ARTIFACTS}
    elsewhere = sorted(root for root in roots if root.resolve() != artifacts.resolve())
    if elsewhere and len(elsewhere) == len(roots) and not elsewhere[0].is_dir():
        old = elsewhere[0].parent
        raise UserError(
            f"{path.parent}: this folder was moved from {old}, and its metadata store has paths into that one: "
            f"every node would run again; move it back, or make {old} a link to it and set --root to the link; or move "
            f"{path.name} away, and every node runs again"
        )
    for old in (root.parent for root in elsewhere if root.is_dir()):
        note(f"{path.parent}: a copy of {old}; what comes from the cache is still read there, so keep that folder")
    gone = [uri for uri in uris if _is_gone(uri)]
    if gone:
        # Those of a run in another folder, of which this one is a copy, stay as they are.
        emptied = [uri for uri in gone if uri.is_dir() and artifacts in uri.parents]
        for folder in (folder for uri in emptied for folder, *_ in os.walk(uri, topdown=False)):
            os.rmdir(folder)  # TFX's cache takes a folder for an artifact
        note(f"{len(gone)} of {len(uris)} artifacts are gone, such as {gone[0]}; the nodes that made them run again")
