"""A finished run as pandas data frames, to look into its results from Python."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from stillhouse.components.predictions.table import TABLE, PredictionTable, read_predictions
from stillhouse.components.report.executor import COMPARISON
from stillhouse.modules.errors import UserError
from stillhouse.modules.models.heads import HEADS
from stillhouse.pipelines.dag.create import sqlite
from stillhouse.pipelines.local.paths import METADATA

PREDICTIONS = "predictions"  # the input of the nodes that read the table


@dataclass(frozen=True)
class FinishedRun:
    """What a run under `root` left; made by `read_run`. A later run into the same root changes the files behind it."""

    root: Path
    comparison: dict[str, Any] = field(repr=False)
    """The content of comparison.json."""

    @property
    def models(self) -> pd.DataFrame:
        """One row per model, by its name: role, parameters, bytes, latency_ms, strategy and the like."""
        columns = ("metrics", "intervals", "slices", "memory")
        rows = [{key: value for key, value in model.items() if key not in columns} for model in self._models]
        return pd.DataFrame(rows).set_index("name")

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per model, by its name; one column per metric over the eval split."""
        return pd.DataFrame([model["metrics"] for model in self._models], index=self._names)

    @property
    def slices(self) -> pd.DataFrame:
        """One row per model and slice, by both; columns are example_count and the metrics."""
        rows = {
            (model["name"], name): values for model in self._models for name, values in sorted(model["slices"].items())
        }
        index = pd.MultiIndex.from_tuples(rows, names=["model", "slice"])
        return pd.DataFrame(list(rows.values()), index=index)

    @property
    def gates(self) -> pd.DataFrame:
        """One row per gate, by its name: passed, reason, and where a metric was compared metric, change, min_change."""
        return pd.DataFrame(self.comparison["gates"]).set_index("name")

    @property
    def pairs(self) -> pd.DataFrame:
        """One row per pair of models, by both: the paired test of the gates' metric, as comparison.json has it."""
        return pd.DataFrame(self.comparison["pairs"]).set_index(["model", "other"])

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per eval example: its label, and what each model serves for it.

        The columns are `label` and for each model
        - classification: `MODEL.class`, the class with the largest probability, and `MODEL.probability`; label and
          classes by name where the label column holds strings;
        - several labels: `MODEL.probabilities`, float32 [labels] in each row, as `label` is int64 [labels];
        - regression: `MODEL.prediction`.

        Raises:
          UserError: the run's artifacts or its metadata store are gone.
        """
        table = self._predictions()
        is_classification = table.head == "classification"
        columns = {"label": _named(table.labels, table.classes) if is_classification else _cells(table.labels)}
        for name in self._names:
            answers = table.models[name]
            if is_classification:
                columns[f"{name}.class"] = _named(answers.argmax(axis=-1), table.classes)
                columns[f"{name}.probability"] = answers.max(axis=-1)
            else:
                columns[f"{name}.{HEADS[table.head].prediction_key}"] = _cells(answers)
        return pd.DataFrame(columns).rename_axis("example")

    @property
    def _models(self) -> list[dict[str, Any]]:
        return self.comparison["models"]

    @property
    def _names(self) -> pd.Index:
        return pd.Index([model["name"] for model in self._models], name="name")

    def _predictions(self) -> PredictionTable:
        path = self.root / METADATA
        gone = UserError(
            f"{self.root}: the artifacts of run {self.comparison['run_id']} are gone; expected its metadata store and "
            f"its artifacts beside {COMPARISON}; run it again"
        )
        if not path.is_file():
            raise gone
        store = MetadataStore(sqlite(str(path)))
        run = store.get_context_by_type_and_name("pipeline_run", self.comparison["run_id"])
        for execution in store.get_executions_by_context(run.id) if run else []:
            inputs = _inputs(store, execution)
            if PREDICTIONS in inputs and (Path(inputs[PREDICTIONS]) / TABLE).is_file():
                return read_predictions(inputs[PREDICTIONS])
        raise gone


def _inputs(store: MetadataStore, execution: metadata_store_pb2.Execution) -> dict[str, str]:
    """Returns {input: URI of its artifact} of an execution."""
    events = [
        event
        for event in store.get_events_by_execution_ids([execution.id])
        if event.type == metadata_store_pb2.Event.INPUT
    ]
    uris = {
        artifact.id: artifact.uri for artifact in store.get_artifacts_by_id([event.artifact_id for event in events])
    }
    return {event.path.steps[0].key: uris[event.artifact_id] for event in events}


def _named(classes: np.ndarray, names: list[str] | None) -> list[Any]:
    """Returns the classes' names; None for a label that the student's vocabulary does not have."""
    return [names[number] if 0 <= number < len(names) else None for number in classes] if names else classes.tolist()


def _cells(values: np.ndarray) -> list[Any]:
    """Returns a cell per example: a number, or an array where an example has several."""
    return list(values) if values.ndim > 1 and values.shape[-1] > 1 else values.reshape(len(values)).tolist()


def read_run(root: str | Path) -> FinishedRun:
    """Returns the finished run under `root`, the folder that `stillhouse run --root` names (default runs/NAME).

    Raises:
      UserError: no run has finished there.
    """
    root = Path(root)
    try:
        comparison = json.loads((root / COMPARISON).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{root}: found no {COMPARISON}; expected the root of a finished run; make one by `stillhouse run SETTINGS "
            f"--root {root}`"
        ) from error
    except ValueError as error:
        raise UserError(f"{root / COMPARISON}: not valid JSON ({error}); repeat the run to recreate it") from error
    return FinishedRun(root.absolute(), comparison)
