"""Whose disk is full, and which column has several types."""

import errno
import importlib
import shutil
from collections import namedtuple
from pathlib import Path

import blobs
import pytest
import tensorflow as tf

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.settings import parse_settings
from stillhouse.pipelines.local import failures
from stillhouse.pipelines.local.failures import explain

Usage = namedtuple("Usage", "free")


@pytest.fixture
def explained(tmp_path, monkeypatch):
    """Explains an error of a run below runs/blobs that pushes to serving; returns the message."""
    monkeypatch.chdir(tmp_path)
    settings = parse_settings(blobs.settings(), "x.yaml")

    def explain_error(error):
        with pytest.raises(MachineError) as raised:
            explain(error, "Student", settings, tmp_path / "runs" / "blobs")
        return str(raised.value)

    return explain_error


@pytest.mark.parametrize(
    ("error", "disk"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/from", None, "/elsewhere/to"), "/elsewhere/to"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/elsewhere/file"), "/elsewhere/file"),
        (tf.errors.ResourceExhaustedError(None, None, "/tmp/x/part.data; No space left on device"), "/tmp/x/part.data"),
        (RuntimeError("database or disk is full"), "runs/blobs"),
        (OSError(errno.ENOSPC, "No space left on device"), "runs/blobs"),
    ],
)
def test_the_full_disk_is_that_of_the_file_or_of_the_root(explained, error, disk):
    assert explained(error).startswith("Student: no space left on the disk of ")
    assert disk in explained(error)


@pytest.mark.parametrize("full", ["runs/blobs", "serving"])
def test_a_disk_is_found_to_be_full_where_the_error_does_not_name_it(explained, tmp_path, monkeypatch, full):
    for folder in ("runs/blobs", "serving"):
        (tmp_path / folder).mkdir(parents=True)
    usage = shutil.disk_usage

    def full_disk(path):
        return Usage(0) if Path(path) == tmp_path / full else usage(path)

    monkeypatch.setattr(failures.shutil, "disk_usage", full_disk)
    assert explained(RuntimeError("anything")) == (
        f"Student: no space left on the disk of {tmp_path / full}; free some and run again"
    )


@pytest.mark.parametrize(
    ("error", "types"),
    [
        (TypeError("Cannot determine the type of feature a. Found values of types 1 and 2."), "floats and strings"),
        (
            RuntimeError(
                'INVALID_ARGUMENT: Feature had wrong type, expected float_list, found bytes_list for feature "a"'
            ),
            "float and bytes values",
        ),
    ],
    ids=["TFDV", "tfx_bsl"],
)
def test_a_column_of_two_types_is_named(tmp_path, error, types):
    settings = parse_settings(blobs.settings(), "x.yaml")
    with pytest.raises(UserError, match=f"^StatisticsGen: the column 'a' has {types}; expected one type in all files"):
        explain(error, "StatisticsGen", settings, tmp_path)


def test_a_fault_in_preprocessing_comes_with_the_columns_of_strings_and_of_missing_values(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing_task.py").write_text("def preprocessing_fn(inputs):\n    return inputs['x']\n")
    settings = parse_settings(blobs.settings(task="failing_task"), "x.yaml")
    for number, shape in ((1, "shape {dim {size: 1}}"), (10, "")):  # the newest has the largest number
        folder = tmp_path / "artifacts" / "SchemaGen" / "schema" / str(number)
        folder.mkdir(parents=True)
        text = f'feature {{name: "a" type: FLOAT {shape}}} feature {{name: "b" type: BYTES shape {{dim {{size: 1}}}}}}'
        (folder / "schema.pbtxt").write_text(text)
    with pytest.raises(KeyError) as error:
        importlib.import_module("failing_task").preprocessing_fn({})
    with pytest.raises(
        UserError, match="KeyError: 'x' .*columns with strings: b; columns with missing or several values.*: a$"
    ):
        explain(error.value, "Transform", settings, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[Errno 2] No such file or directory: '{}/comparison.json'",
        "No files found based on the file pattern {}/Split-train/*",
        "{}/Split-eval/FeatureStats.pb; No such file or directory",
        "SavedModel file does not exist at: {}/Format-Serving/{{saved_model.pbtxt|saved_model.pb}} [while running 'x']",
    ],
)
def test_an_artifact_that_lacks_files_is_named(tmp_path, text):
    artifact = tmp_path / "artifacts" / "Student" / "model" / "8"
    settings = parse_settings(blobs.settings(), "x.yaml")
    with pytest.raises(UserError, match=f"^Evaluator: files of {artifact} are gone; delete that folder"):
        explain(OSError(text.format(artifact)), "Evaluator", settings, tmp_path)
