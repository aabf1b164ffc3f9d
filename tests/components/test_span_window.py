import csv
import json
import os
import time

import apache_beam as beam
import pytest
import tensorflow as tf
from tfx.components.example_gen.driver import update_output_artifact
from tfx.proto import example_gen_pb2
from tfx.utils import proto_utils

from stillhouse.components.span_window_example_gen.executor import CsvExecutor, ParquetExecutor, TFRecordExecutor
from stillhouse.components.span_window_example_gen.window import custom_config, spans_in, widened
from stillhouse.pipelines.kubeflow.entrypoint import widen


def write_span(folder, span, rows, columns=("a", "b"), version=None):
    folder = folder / f"span-{span}" / (f"v{version}" if version else "")
    folder.mkdir(parents=True)
    with open(folder / "part.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def properties(folder, spans, pattern="span-{SPAN}/*", skipped=0):
    config = example_gen_pb2.Input(splits=[example_gen_pb2.Input.Split(name="all", pattern=pattern)])
    return {
        "input_base": str(folder),
        "input_config": proto_utils.proto_to_json(config),
        "custom_config": proto_utils.proto_to_json(custom_config(spans, skipped)),
        "range_config": None,
        "output_data_format": example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE,
    }


def patterns(found):
    (split,) = json.loads(found["input_config"])["splits"]
    return split["pattern"].split("\n")


@pytest.fixture
def spans(tmp_path):
    for span in (2, 9, 10, 11):
        write_span(tmp_path, span, [(span, 0.5)])
    return tmp_path


def test_spans_are_ordered_as_numbers_and_other_folders_are_none(spans):
    (spans / "span-notes").mkdir()
    (spans / "span-notes" / "part.csv").write_text("not a span")
    assert spans_in(str(spans), ["span-{SPAN}/*"]) == [2, 9, 10, 11]


@pytest.mark.parametrize(
    ("window", "newest", "expected"),
    [(2, 11, [10, 11]), (3, 10, [2, 9, 10]), (10, 11, [2, 9, 10, 11]), (2, 2, [2])],
)
def test_a_window_has_the_newest_spans_up_to_one(spans, window, newest, expected):
    assert patterns(widened(properties(spans, window), newest)) == [f"span-{span}/*" for span in expected]


@pytest.mark.parametrize(
    ("window", "newest", "expected"), [(1, 11, [10]), (2, 11, [9, 10]), (5, 10, [2, 9]), (1, 2, [2]), (3, 2, [2])]
)
def test_a_window_before_the_newest_span_has_those_before_it_or_the_newest_if_there_is_no_other(
    spans, window, newest, expected
):
    found = widened(properties(spans, window, skipped=1), newest)
    assert patterns(found) == [f"span-{span}/*" for span in expected]
    assert found["span"] == expected[-1]


def test_the_newest_version_of_each_span_is_taken(tmp_path):
    for span, version in ((1, 1), (1, 2), (2, 1)):
        write_span(tmp_path, span, [(span, 0.5)], version=version)
    found = widened(properties(tmp_path, 2, "span-{SPAN}/v{VERSION}/*"), 2)
    assert patterns(found) == ["span-1/v2/*", "span-2/v1/*"]


def test_a_change_of_any_span_in_the_window_is_a_change(spans):
    before = widened(properties(spans, 2), 11)["input_fingerprint"]
    write_span(spans, 8, [(8, 0.5)])
    assert widened(properties(spans, 2), 11)["input_fingerprint"] == before
    os.utime(spans / "span-10" / "part.csv", (time.time() + 60,) * 2)
    assert widened(properties(spans, 2), 11)["input_fingerprint"] != before


def read(executor, folder, window, pattern="span-{SPAN}/*"):
    given = properties(folder, window, pattern)
    newest = spans_in(str(folder), [pattern])[-1]
    (split,) = json.loads(widened(given, newest)["input_config"])["splits"]
    out = str(folder / "out")
    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        examples = pipeline | executor().GetInputSourceToExamplePTransform()(given, split["pattern"])
        serialised = examples | beam.Map(lambda one: one if isinstance(one, bytes) else one.SerializeToString())
        serialised | beam.io.WriteToTFRecord(out)
    files = tf.io.gfile.glob(f"{out}*")
    found = [tf.train.Example.FromString(one) for one in tf.data.TFRecordDataset(files).as_numpy_iterator()]
    return sorted(one.features.feature["a"].int64_list.value[0] for one in found)


def test_csv_spans_may_have_their_columns_in_another_order(tmp_path):
    write_span(tmp_path, 1, [(1, 0.5)])
    write_span(tmp_path, 2, [(2, 0.5), (3, 0.5)])
    write_span(tmp_path, 3, [(0.5, 4)], columns=("b", "a"))
    assert read(CsvExecutor, tmp_path, 2) == [2, 3, 4]


def test_the_other_formats_are_read_span_by_span_too(tmp_path):
    import pyarrow
    import pyarrow.parquet

    for span in (1, 2, 3):
        for kind in ("parquet", "tfrecord"):
            (tmp_path / kind / f"span-{span}").mkdir(parents=True)
        table = pyarrow.table({"a": [span * 10]})
        pyarrow.parquet.write_table(table, tmp_path / "parquet" / f"span-{span}" / "one")
        feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[span * 10]))
        example = tf.train.Example(features=tf.train.Features(feature={"a": feature}))
        with tf.io.TFRecordWriter(str(tmp_path / "tfrecord" / f"span-{span}" / "one")) as writer:
            writer.write(example.SerializeToString())
    assert read(ParquetExecutor, tmp_path / "parquet", 2) == [20, 30]
    assert read(TFRecordExecutor, tmp_path / "tfrecord", 2) == [20, 30]


def test_the_span_of_the_output_is_the_newest(spans):
    from ml_metadata.proto import metadata_store_pb2
    from tfx.orchestration import metadata

    from stillhouse.components.span_window_example_gen.driver import Driver

    config = metadata_store_pb2.ConnectionConfig()
    config.fake_database.SetInParent()
    with metadata.Metadata(config) as handle:
        found = Driver(handle).resolve_exec_properties(properties(spans, 2), None, None)
    assert (found["span"], patterns(found)) == (11, ["span-10/*", "span-11/*"])
    artifact = metadata_store_pb2.Artifact()
    update_output_artifact(found, artifact)
    assert artifact.custom_properties["input_fingerprint"].string_value.startswith("2 spans up to 11: ")


def test_on_kubeflow_an_artifact_tells_the_newest_span_of_its_window(spans, tmp_path):
    """The ExecutorOutput that TFX's driver leaves names the newest span of all."""
    output_file = tmp_path / "output.json"
    artifact = {"metadata": {"custom:span": 11, "input_fingerprint": "newest"}}
    output = {"parameterValues": {"span": 11}, "artifacts": {"examples": {"artifacts": [artifact]}}}
    output_file.write_text(json.dumps(output))
    inputs = {"parameterValues": properties(spans, 2, skipped=1)}
    widen({"inputs": inputs, "outputs": {"outputFile": str(output_file)}})
    widened_output = json.loads(output_file.read_text())
    (artifact,) = widened_output["artifacts"]["examples"]["artifacts"]
    assert artifact["metadata"]["custom:span"] == widened_output["parameterValues"]["span"] == 10
    assert artifact["metadata"]["input_fingerprint"].startswith("2 spans up to 10: ")
