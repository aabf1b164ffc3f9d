"""Asks the models batch by batch, so that memory does not grow with the eval split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from stillhouse.components.base import Parameters, existing_models
from stillhouse.components.evaluation import MISSING, STUDENT
from stillhouse.components.predictions.table import PredictionsWriter
from stillhouse.modules.errors import UserError
from stillhouse.modules.models import saved_models
from stillhouse.modules.models.card import read_card
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.serving import labels_of, predictions_of, read_records

ROWS = 4096  # examples in memory


class PredictionsParameters(Parameters):
    """`names` are the models', in the order of the inputs; `query` is "" for no ranking."""

    names: list[str]
    label: str
    head: str
    slice_columns: list[str]
    query: str


class Executor(base_executor.BaseExecutor):
    """Sends raw examples without their label to every SavedModel, as a client of a model server would."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["predictions"]; the pushed model has no column before anything was pushed."""
        parameters = PredictionsParameters.read(exec_properties)
        head = HEADS[parameters.head]
        paths = existing_models(input_dict, parameters.names)
        models = {name: saved_models.load(path) for name, path in paths.items()}
        class_names = {name: _class_names(models[name], paths[name]) for name in models}
        files = io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], "eval"))
        columns = [*parameters.slice_columns, *filter(None, [parameters.query])]
        folder = artifact_utils.get_single_uri(output_dict["predictions"])
        with PredictionsWriter(folder, parameters.head, class_names, parameters.slice_columns) as writer:
            for batch in read_records(files).batch(ROWS).as_numpy_iterator():
                records = list(batch)
                values = _column_values(records, columns)
                writer.write(
                    labels_of(models[STUDENT], records),
                    {
                        name: predictions_of(model, records, parameters.label, head.prediction_key)
                        for name, model in models.items()
                    },
                    {column: values[column] for column in parameters.slice_columns},
                    _queries(values[parameters.query], parameters.query) if parameters.query else None,
                )
            if not len(writer):
                raise UserError(
                    "data.splits: the split eval has no examples; models cannot be compared; add data or give eval a "
                    "larger share"
                )


def _class_names(model: Any, path: str) -> list[str] | None:
    """Returns a name for each of a classifier's outputs: its number where the vocabulary has fewer; None: no names."""
    card = read_card(path)
    if card["head"] != "classification" or not card.get("class_names"):
        return None
    width = model.signatures["serving_default"].structured_outputs["probabilities"].shape[-1]
    names = card["class_names"]
    return [*names, *map(str, range(len(names), width or 0))]


def _queries(values: list[list[str]], column: str) -> list[str]:
    for number, cell in enumerate(values):
        if len(cell) != 1 or cell == [MISSING]:
            raise UserError(
                f"evaluation.query: eval example {number} has {len(cell)} values in {column!r}, {cell}; expected one "
                "in each example"
            )
    return [cell[0] for cell in values]


def _column_values(records: Sequence[bytes], columns: Sequence[str]) -> dict[str, list[list[str]]]:
    """Returns by column the distinct values of each example as text, [MISSING] where there is none."""
    values: dict[str, list[list[str]]] = {column: [] for column in columns}
    for record in records:
        features = tf.train.Example.FromString(record).features.feature
        for column in values:
            kind = features[column].WhichOneof("kind") if column in features else None
            cell = np.unique(getattr(features[column], kind).value).tolist() if kind else []
            texts = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in cell]
            values[column].append(texts or [MISSING])
    return values
