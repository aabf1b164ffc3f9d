"""The table of predictions: written by batches, read as a whole."""

import itertools
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tfx.dsl.io import fileio

from stillhouse.components.evaluation import MISSING, STUDENT
from stillhouse.modules.ingestion.safe_parquet import open_parquet

TABLE = "predictions.parquet"
# Prefixes keep models and raw columns of the same name apart.
MODEL, SLICE = "model:", "slice:"
LABEL, QUERY = "label", "query"
METADATA = "stillhouse"


class PredictionsWriter:
    """Writes the table in a folder; a context manager.

    Arrow writes a local file, which is copied at the end: the folder may be on an object store.
    """

    def __init__(
        self,
        folder: str,
        head: str,
        class_names: Mapping[str, list[str] | None],
        slice_columns: Sequence[str],
    ):
        """Prepares the table.

        Args:
          folder: made if it is missing.
          head: classification, multi_label or regression.
          class_names: of each model, in the order of its outputs; None: their numbers.
          slice_columns: raw columns that define slices.
        """
        self._path = os.path.join(folder, TABLE)
        self._head = head
        self._classes = _all_classes(class_names)
        self._order = {name: _positions(self._classes, own) for name, own in class_names.items()}
        self._slice_columns = slice_columns
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0

    def __len__(self) -> int:
        """The examples written so far."""
        return self._rows

    def __enter__(self):
        self._local = tempfile.NamedTemporaryFile(suffix=".parquet")
        return self

    def __exit__(self, kind, *_):
        with self._local:
            if self._writer:
                self._writer.close()
                if kind is None:
                    fileio.makedirs(os.path.dirname(self._path))  # Kubeflow's launcher has not made it
                    fileio.copy(self._local.name, self._path, overwrite=True)

    def write(
        self,
        labels: np.ndarray,
        predictions: Mapping[str, np.ndarray],
        slices: Mapping[str, list[list[str]]],
        queries: list[str] | None,
    ) -> None:
        """Appends examples.

        Args:
          labels: of the student's classes: [examples], or [examples, labels] for several labels.
          predictions: by model, [examples, outputs], in the model's own order of classes.
          slices: by column the values of each example.
          queries: of each example; None: no ranking.
        """
        columns = {LABEL: _cells(labels.astype(np.float64 if self._head == "regression" else np.int64))}
        for name, answers in predictions.items():
            columns[MODEL + name] = _cells(_reordered(answers.astype(np.float32), self._order[name], self._classes))
        for column in self._slice_columns:
            columns[SLICE + column] = pa.array(slices[column], pa.list_(pa.string()))
        if queries is not None:
            columns[QUERY] = pa.array(queries, pa.string())
        table = pa.table(columns)
        if self._writer is None:
            described = {"head": self._head, "classes": self._classes}
            self._writer = pq.ParquetWriter(
                self._local.name, table.schema.with_metadata({METADATA: json.dumps(described)})
            )
        self._writer.write_table(table)
        self._rows += len(table)


def _all_classes(class_names: Mapping[str, list[str] | None]) -> list[str] | None:
    """Returns the student's classes, then what the others know besides (a version that was pushed for other data)."""
    student = class_names[STUDENT]
    if student is None:
        return None
    return list(dict.fromkeys(itertools.chain(student, *(names or [] for names in class_names.values()))))


def _positions(classes: list[str] | None, own: list[str] | None) -> list[int] | None:
    return None if classes is None or own is None else [classes.index(name) for name in own]


def _reordered(answers: np.ndarray, positions: list[int] | None, classes: list[str] | None) -> np.ndarray:
    if positions is None or classes is None or answers.ndim != 2 or answers.shape[1] != len(positions):
        return answers
    # A class that a model does not know has the probability 0.
    placed = np.zeros([len(answers), len(classes)], answers.dtype)
    placed[:, positions] = answers
    return placed


def _cells(values: np.ndarray) -> pa.Array:
    """Returns [examples, width] as lists, as Parquet has no matrices."""
    rows = values.reshape(len(values), -1)
    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.reshape(-1)))


@dataclass(frozen=True)
class PredictionTable:
    """All eval examples: n rows."""

    head: str
    classes: list[str] | None  # names, in the order of the columns of `models`; None: their numbers
    labels: np.ndarray  # int64 [n], int64 [n, labels], or float64 [n] of a regression
    models: dict[str, np.ndarray]  # float32 [n, classes], [n, labels], or [n] of a regression
    slices: dict[str, list[list[str]]]  # by column the values of each example
    queries: np.ndarray | None  # str [n]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: np.ndarray) -> "PredictionTable":
        """Returns the examples at the positions `rows`, int [m]."""
        return replace(
            self,
            labels=self.labels[rows],
            models={name: answers[rows] for name, answers in self.models.items()},
            slices={column: [values[row] for row in rows] for column, values in self.slices.items()},
            queries=None if self.queries is None else self.queries[rows],
        )

    def empty_columns(self) -> list[str]:
        """Returns the columns of slices that no example has a value of."""
        return [column for column, cells in self.slices.items() if all(cell == [MISSING] for cell in cells)]

    def known_labels(self, width: int) -> np.ndarray:
        """Returns which examples have one of `width` classes as their label, bool [n]; others may be in the data."""
        return (self.labels >= 0) & (self.labels < width)

    def slice_rows(self, slice_columns: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        """Returns the positions of the examples of each slice, by the slice's name.

        Names are those of `stillhouse.components.evaluation`; an example with several values is in several slices.

        Args:
          slice_columns: for each kind of slice its columns, which are crossed.
        """
        rows: dict[str, list[int]] = {}
        for columns in map(sorted, slice_columns):
            for number, cells in enumerate(zip(*(self.slices[column] for column in columns), strict=True)):
                for values in itertools.product(*cells):
                    name = ", ".join(f"{column}={value}" for column, value in zip(columns, values, strict=True))
                    rows.setdefault(name, []).append(number)
        return {name: np.array(positions) for name, positions in rows.items()}


def read_predictions(folder: str) -> PredictionTable:
    """Returns the table that `PredictionsWriter` wrote into a folder."""
    path = os.path.join(folder, TABLE)
    with fileio.open(path, "rb") as file:
        table = open_parquet(pa.BufferReader(file.read()), path).read()
    described = json.loads(table.schema.metadata[METADATA.encode()])
    is_matrix = described["head"] != "regression"
    labels = _matrix(table.column(LABEL))
    return PredictionTable(
        head=described["head"],
        classes=described["classes"],
        labels=labels if described["head"] == "multi_label" else labels[:, 0],
        models={
            name.removeprefix(MODEL): _matrix(table.column(name)) if is_matrix else _matrix(table.column(name))[:, 0]
            for name in table.column_names
            if name.startswith(MODEL)
        },
        slices={
            name.removeprefix(SLICE): table.column(name).to_pylist()
            for name in table.column_names
            if name.startswith(SLICE)
        },
        queries=np.array(table.column(QUERY).to_pylist()) if QUERY in table.column_names else None,
    )


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    values = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    return values.reshape(len(column), -1)
