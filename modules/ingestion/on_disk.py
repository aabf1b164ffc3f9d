"""cache: disk: the records in plain TFRecord files, each followed by its soft targets, nothing to decompress.

A cache is a folder named by the fingerprint of its sources. It appears when it is complete, so the partial cache of a
killed run is never used, and other data has another name.
"""

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import tensorflow as tf
from filelock import FileLock

from stillhouse.modules import progress
from stillhouse.modules.atomic import new_folder, remove, remove_leftovers
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.ingestion.files import RECORDS_AT_ONCE, ExampleFiles, in_order, is_parquet, target_files
from stillhouse.modules.ingestion.parquet import parquet_records

CARD = "cache.json"
LOCK = ".lock"


def on_disk(files: ExampleFiles, folder: str | None) -> ExampleFiles:
    """Returns the files of a cache of `files` below `folder`; builds it if it does not exist.

    Raises:
      UserError: no folder is set, or it is not writable.
      MachineError: the disk is full.
    """
    if folder is None:
        raise UserError("ingestion.cache_folder: needed by cache: disk; set it")
    sources = _sources(files)
    cache = Path(folder, hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16])
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with FileLock(cache.with_suffix(LOCK)):  # workers on one machine build it once
            if (fault := _fault_of(cache)) is not None:
                if os.path.lexists(cache):
                    progress.note(f"{cache}: the cache is corrupt ({fault}); rebuilding it")
                    remove(cache)
                _forget_others(Path(folder))
                remove_leftovers(cache)
                _write(files, sources, cache)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(folder) from error
        raise UserError(
            f"ingestion.cache_folder: cannot write to {folder}: {error.strerror or error}; set another folder, or "
            "cache: none"
        ) from error
    except tf.errors.ResourceExhaustedError as error:
        raise _full(folder) from error
    return ExampleFiles(sorted(str(path) for path in cache.glob("*.tfrecord")), count=files.count)


def _full(folder: str) -> MachineError:
    return MachineError(
        f"ingestion.cache_folder: no space left on the disk of {folder}; free space, set another folder, or set "
        "ingestion.cache: none"
    )


def _facts(file: str) -> list | None:
    if not tf.io.gfile.exists(file):
        return None
    stat = tf.io.gfile.stat(file)
    return [file, stat.length, stat.mtime_nsec]


def _sources(files: ExampleFiles) -> list[list]:
    """Returns for each example file name, size and time of it and of its files of soft targets."""

    def facts(example_file):
        targets = target_files(example_file, files.soft_targets) if files.soft_targets else []
        return [_facts(file) for file in (example_file, *targets)]

    return [facts(example_file) for example_file in files.examples]


def _fault_of(cache: Path) -> str | None:
    """Returns the fault of a cache in words, or None; its records have checksums of their own."""
    try:
        sizes = json.loads((cache / CARD).read_text())["sizes"]
    except (OSError, ValueError, KeyError):
        return f"{CARD} is missing or corrupt"
    for name, size in sizes.items():
        path = cache / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or has the wrong size"
    return None


def _write(files: ExampleFiles, sources: list[list], cache: Path) -> None:
    with new_folder(cache) as unfinished:
        for number, name in enumerate(files.examples):
            if is_parquet(name):
                batches = parquet_records(name)
            else:
                records = in_order(replace(files, examples=[name]))
                batches = records.batch(RECORDS_AT_ONCE).prefetch(1).as_numpy_iterator()
            path = Path(unfinished, f"{number:05d}-of-{len(files.examples):05d}.tfrecord")
            with tf.io.TFRecordWriter(str(path)) as writer:
                for batch in batches:
                    for record in batch:
                        writer.write(record)
        sizes = {path.name: path.stat().st_size for path in sorted(Path(unfinished).iterdir())}
        Path(unfinished, CARD).write_text(json.dumps({"sources": sources, "sizes": sizes}, indent=1))
    progress.note(f"cached {len(files.examples)} files in {cache}: {sum(sizes.values()):,} bytes")


def _forget_others(folder: Path) -> None:
    """Removes caches whose sources are gone or have changed: they will not be used again."""
    for card in folder.glob(f"*/{CARD}"):
        try:
            sources = json.loads(card.read_text())["sources"]
        except (OSError, ValueError, KeyError):
            continue
        if any(_facts(facts[0]) != facts for file_facts in sources for facts in file_facts):
            remove(card.parent)
