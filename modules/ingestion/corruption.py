"""Detects corrupt records, reports them by file and number, and skips them up to the number in the settings."""

import hashlib
import os
from collections.abc import Sequence

import tensorflow as tf

from stillhouse.modules import progress
from stillhouse.modules.atomic import new_file
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.files import compression_of
from stillhouse.modules.ingestion.framing import BrokenFileError, records_of
from stillhouse.modules.settings import Ingestion

LISTED = 10  # corrupt records of a file named in a message


def without_damage(files: dict[str, list[str]], options: Ingestion) -> dict[str, list[str]]:
    """Returns the files by split, with copies without corrupt records in place of corrupt files.

    Raises:
      UserError: more records are corrupt than options.max_corrupt_records, or a file is unreadable; the message names
        file and record.
    """
    damaged: dict[str, list[int]] = {}
    for file in sorted({file for split_files in files.values() for file in split_files}):
        try:
            numbers = [number for number, record in enumerate(records_of(file), start=1) if record is None]
        except BrokenFileError as broken:
            raise UserError(
                f"{file}: record {broken.record}: {broken.reason}; the rest of the file is lost; recreate the file"
            ) from broken
        if numbers:
            damaged[file] = numbers
    corrupt_count = sum(map(len, damaged.values()))
    if corrupt_count > options.max_corrupt_records:
        file, (first, *_) = next(iter(damaged.items()))
        more = f", and {corrupt_count - 1} more" if corrupt_count > 1 else ""
        raise UserError(
            f"{file}: record {first} is corrupt (checksum mismatch){more}; recreate the file, or skip corrupt records "
            f"with ingestion.max_corrupt_records: {corrupt_count}"
        )
    if not damaged:
        return dict(files)
    if options.cache_folder is None:
        raise UserError("ingestion.cache_folder: needed by max_corrupt_records, for repaired copies; set it")
    for file, numbers in damaged.items():
        listed = ", ".join(map(str, numbers[:LISTED])) + (", ..." if len(numbers) > LISTED else "")
        progress.note(f"{file}: skipping {len(numbers)} corrupt records: {listed}")
    copies = {file: _copy(file, options.cache_folder) for file in damaged}
    return {split: [copies.get(file, file) for file in split_files] for split, split_files in files.items()}


def _copy(file: str, folder: str) -> str:
    stat = tf.io.gfile.stat(file)
    facts = hashlib.sha256(repr((file, stat.length, stat.mtime_nsec)).encode()).hexdigest()[:16]
    path = os.path.join(folder, f"undamaged-{facts}-{os.path.basename(file)}")
    os.makedirs(folder, exist_ok=True)
    with new_file(path) as unfinished, tf.io.TFRecordWriter(unfinished, compression_of(file)) as writer:
        for record in records_of(file):
            if record is not None:
                writer.write(record)
    return path


def explain_misfit(files: Sequence[str], parse, cause: Exception) -> UserError:
    """Returns an error that names the first record which `parse`, a function of string [1], rejects."""
    for file in files:
        for number, record in enumerate(records_of(file), start=1):
            try:
                parse(tf.constant([record]))
            except tf.errors.InvalidArgumentError as error:
                reason = " ".join(error.message.split("[Op:")[0].split())
                return UserError(f"{file}: record {number} violates the transformed schema: {reason}")
    return UserError(f"the examples violate the transformed schema: {cause}")
