"""Transforms blocks of unlabelled examples on Beam's workers."""

import functools
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder
from tfx_bsl.tfxio.tensor_to_arrow import TensorsToRecordBatchConverter

from stillhouse.components.base import Parameters
from stillhouse.components.record_blocks import BatchFunction, WriteBlocks
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.files import example_files, split_folder
from stillhouse.modules.models.export import request_spec

SPLIT = "transfer"
BATCH = 1024


class TransferExamplesParameters(Parameters):
    """`label` names the column that the examples lack."""

    label: str


def transform_batches(transform_graph: str, label: str) -> BatchFunction:
    """Returns the function from serialized raw examples to serialized transformed ones, both without the label."""
    transform = tft.TFTransformOutput(transform_graph)
    layer = transform.transform_features_layer()
    spec = request_spec(transform, label)

    def transform_without_label(records):
        features = layer(tf.io.parse_example(records, spec))
        return {name: value for name, value in features.items() if name != label and isinstance(value, tf.Tensor)}

    transformed = tf.function(
        transform_without_label, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )
    outputs = transformed.get_concrete_function().structured_outputs
    converter = TensorsToRecordBatchConverter(
        {name: tf.TensorSpec.from_tensor(output) for name, output in outputs.items()}
    )
    encoder = RecordBatchToExamplesEncoder()

    def function(records: tf.Tensor) -> list[bytes]:
        try:
            return encoder.encode(converter.convert(transformed(records)))
        except tf.errors.InvalidArgumentError as error:
            reason = error.message.partition("[[")[0].strip()
            raise UserError(f"data.transfer: the examples violate the schema of data.path: {reason}") from error

    return function


class Executor(base_beam_executor.BaseBeamExecutor):
    """Writes transformed examples without labels, in the order of the raw ones."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["transformed_examples"]."""
        graph = artifact_utils.get_single_uri(input_dict["transform_graph"])
        files = example_files([io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], SPLIT))])
        output = artifact_utils.get_single_instance(output_dict["transformed_examples"])
        output.split_names = artifact_utils.encode_split_names([SPLIT])
        label = TransferExamplesParameters.read(exec_properties).label
        make_function = functools.partial(transform_batches, graph, label)
        with self._make_beam_pipeline() as pipeline:
            write = WriteBlocks(make_function, split_folder(output.uri, SPLIT), BATCH)
            _ = pipeline | "Files" >> beam.Create(files) | "Transform" >> write
