"""Settings of evaluation, gates and push."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillhouse.modules.settings.section import Section

Column = Annotated[str, Field(min_length=1)]
# Metrics between 0 and 1, of which no student can lose more.
BOUNDED_METRICS = (
    "SparseCategoricalAccuracy", "AUC", "AUCPrecisionRecall", "MeanReciprocalRank", "PrecisionAtOne",
    "MultiLabelAccuracy", "MultiLabelAUC",
)  # fmt: skip
# Metrics that are defined for two classes; they are computed for class 1 against class 0.
BINARY_METRICS = ("AUC", "AUCPrecisionRecall")
# Metrics over the candidates of each query, ranked by the probability of class 1.
RANKING_METRICS = ("MeanReciprocalRank", "PrecisionAtOne")
# Metrics for the gates, by head; the first is the default.
METRICS = {
    "classification": ("SparseCategoricalAccuracy", "SparseCategoricalCrossentropy", *BINARY_METRICS, *RANKING_METRICS),
    "multi_label": ("MultiLabelAccuracy", "MultiLabelCrossentropy", "MultiLabelAUC"),
    "regression": ("MeanAbsoluteError", "MeanSquaredError"),
}
# Metrics reported for every model, whatever the gates compare.
REPORTED_METRICS = {
    "classification": ("SparseCategoricalAccuracy", "SparseCategoricalCrossentropy"),
    "multi_label": ("MultiLabelAccuracy", "MultiLabelCrossentropy"),
    "regression": ("MeanAbsoluteError", "MeanSquaredError"),
}


Confidence = Annotated[
    float | None,
    Field(
        gt=0.5,
        lt=1,
        description="Confidence at which the limits must hold: the lower end of the paired interval has to clear them; "
        "null: the measured change has to.",
    ),
]


class _DropGate(Section):
    """The student may be worse than the other model by a limited drop, overall and on each slice."""

    max_drop: float = Field(0.0, ge=0, description="Maximum drop of the metric over all examples.")
    max_drop_per_slice: float | None = Field(
        0.1, ge=0, description="Maximum drop on each slice of evaluation.slices; null: not checked."
    )
    min_slice_examples: int = Field(
        30, ge=1, description="Minimum number of eval examples of a slice; smaller slices are not judged."
    )
    undefined_slices: Literal["fail", "skip"] = Field(
        "fail",
        description="Whether slices on which the metric is undefined (AUC of one class) fail the gate, or are skipped "
        "and named.",
    )
    allow_no_slice: bool = Field(
        False, description="Pass although slices are set and none could be judged (too small, or skipped)."
    )
    confidence: Confidence = None


class TeacherGate(_DropGate):
    """The student against the teacher, or against the ensemble of several."""

    max_drop: float = Field(0.03, ge=0, description="Maximum drop of the metric over all examples.")


class BaselineGate(Section):
    """The student against the same network trained on hard labels only."""

    min_gain: float = Field(0.0, description="Minimum gain of the metric over all examples; 0: at least as good.")
    confidence: Confidence = None


class PushedGate(_DropGate):
    """The student against the version that was pushed last."""


class FidelityGate(Section):
    """How closely the student has to reproduce the teacher's, or the ensemble's, predictions."""

    min_agreement: float | None = Field(
        None, gt=0, le=1, description="Minimum share of eval examples with the same predicted class; null: not checked."
    )
    min_agreement_per_slice: float | None = Field(
        None, gt=0, le=1, description="The same on each slice with enough examples; null: not checked."
    )
    max_kl: float | None = Field(
        None,
        gt=0,
        description="Maximum mean Kullback-Leibler divergence of the student's probabilities from the teacher's, in "
        "nats; null: not checked.",
    )
    min_slice_examples: int = Field(
        30, ge=1, description="Minimum number of eval examples of a slice; smaller slices are not judged."
    )

    @model_validator(mode="after")
    def _check_limit(self):
        if self.min_agreement is None and self.min_agreement_per_slice is None and self.max_kl is None:
            raise ValueError("at least one limit: min_agreement, min_agreement_per_slice or max_kl")
        return self


class Gates(Section):
    """Conditions of the push; null removes a gate."""

    teacher: TeacherGate = Field(TeacherGate(), description="Comparison with the teacher or the ensemble.")
    baseline: BaselineGate | None = Field(BaselineGate(), description="Comparison with the baseline; null: none.")
    pushed: PushedGate | None = Field(PushedGate(), description="Comparison with the last pushed version; null: none.")
    fidelity: FidelityGate | None = Field(
        None, description="Agreement with the teacher or the ensemble, whatever the labels; null: none."
    )


class Evaluation(Section):
    """How models are evaluated and compared."""

    metric: str | None = Field(
        None,
        description="Metric of the gates; null: the first that is valid for the head. AUC metrics require two classes, "
        "ranking metrics a query.",
    )
    query: Column | None = Field(
        None,
        description="Raw column with the query of each candidate; class 1 is the relevant one. Adds MeanReciprocalRank "
        "and PrecisionAtOne; null: no ranking.",
    )
    slices: list[Column | Annotated[list[Column], Field(min_length=1)]] = Field(
        [],
        description="Raw columns that define slices by their values; a list of columns is crossed. Examples without a "
        "value form the slice COLUMN=(missing).",
    )
    confidence_intervals: bool = Field(
        False,
        description="Compute 95 % confidence intervals of every metric by TFMA's jackknife; multiplies the Evaluator's "
        "duration.",
    )
    gates: Gates = Field(Gates(), description="Conditions of the push.")

    @model_validator(mode="after")
    def _check_slices(self):
        slices = [tuple(sorted(columns)) for columns in self.slice_columns()]
        for columns in slices:
            if slices.count(columns) > 1 or len(set(columns)) < len(columns):
                raise ValueError(f"slices: found {', '.join(columns)} twice; name every column once")
        return self

    @model_validator(mode="after")
    def _check_query(self):
        if self.metric in RANKING_METRICS and self.query is None:
            raise ValueError(f"metric: {self.metric} needs a query; set query to its column")
        return self

    def slice_columns(self) -> list[list[str]]:
        """Returns the columns of each entry of `slices`."""
        return [[entry] if isinstance(entry, str) else entry for entry in self.slices]


class Push(Section):
    """Destination of a student that passes the gates."""

    path: str = Field(
        min_length=1, description="Folder that receives a numbered version per push, as TensorFlow Serving expects."
    )
