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
from tfx.utils import io_utils, path_utils

from stillhouse.components.report.executor import COMPARISON
from stillhouse.modules.errors import UserError
from stillhouse.modules.models import saved_models
from stillhouse.modules.models.card import read_card
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.serving import labels_of, predictions_of, read_records
from stillhouse.pipelines.dag.create import sqlite
from stillhouse.pipelines.local.paths import METADATA


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

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per eval example: its label, and what each model serves for it.

        Computed when it is first asked for, by the run's SavedModels. The columns are `label` and for each model
        - classification: `MODEL.class`, the class with the largest probability, and `MODEL.probability`; label and
          classes by name where the label column holds strings;
        - several labels: `MODEL.probabilities`, float32 [labels] in each row, as `label` is int64 [labels];
        - regression: `MODEL.prediction`.

        Raises:
          UserError: the run's artifacts or its metadata store are gone.
        """
        names, models, pattern = self._artifacts()
        cards = [read_card(path) for path in models]
        loaded = [saved_models.load(path) for path in models]
        records = list(read_records(pattern).as_numpy_iterator())
        head, class_names = HEADS[cards[0]["head"]], cards[0]["class_names"]
        label = self.comparison["settings"]["data"]["label"]
        labels = labels_of(loaded[0], records)
        is_classification = head.name == "classification"
        columns = {"label": _named(labels, class_names) if is_classification else _cells(labels)}
        for name, model in zip(names, loaded, strict=True):
            served = predictions_of(model, records, label, head.prediction_key)
            if is_classification:
                columns[f"{name}.class"] = _named(served.argmax(axis=-1), class_names)
                columns[f"{name}.probability"] = served.max(axis=-1)
            else:
                columns[f"{name}.{head.prediction_key}"] = _cells(served)
        return pd.DataFrame(columns).rename_axis("example")

    @property
    def _models(self) -> list[dict[str, Any]]:
        return self.comparison["models"]

    @property
    def _names(self) -> pd.Index:
        return pd.Index([model["name"] for model in self._models], name="name")

    def _artifacts(self) -> tuple[list[str], list[str], str]:
        """Returns the models' names, the folders of their SavedModels, and the file pattern of the eval examples."""
        path = self.root / METADATA
        gone = UserError(
            f"{self.root}: the artifacts of run {self.comparison['run_id']} are gone; expected its metadata store and "
            f"its artifacts beside {COMPARISON}; run it again"
        )
        if not path.is_file():
            raise gone
        store = MetadataStore(sqlite(str(path)))
        run = store.get_context_by_type_and_name("pipeline_run", self.comparison["run_id"])
        executions = store.get_executions_by_context(run.id) if run else []
        for execution in executions:
            inputs = _inputs(store, execution)
            if "model_1" not in inputs or "models" not in execution.custom_properties:
                continue
            rows = json.loads(execution.custom_properties["models"].string_value)
            # The model pushed before is an artifact without a model in the first run, and in no comparison.
            uris = {row["name"]: inputs[f"model_{number}"] for number, row in enumerate(rows, start=1)}
            models = [path_utils.serving_model_path(uris[name]) for name in self._names]
            if all(Path(model).is_dir() for model in models):
                return list(self._names), models, io_utils.all_files_pattern(f"{inputs['examples']}/Split-eval")
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
    return [names[number] for number in classes] if names else classes.tolist()


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
