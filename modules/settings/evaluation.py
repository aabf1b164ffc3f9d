"""Settings of evaluation, gates and push."""

from pydantic import Field, model_validator

from stillhouse.modules.settings.section import Section

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


class TeacherGate(Section):
    """The student against the teacher, or against the ensemble of several."""

    max_drop: float = Field(0.03, ge=0, description="Maximum drop of the metric over all examples.")
    max_drop_per_slice: float | None = Field(None, ge=0, description="Maximum drop on each slice; null: not checked.")
    min_slice_examples: int = Field(
        30, ge=1, description="Minimum number of eval examples of a slice; smaller slices are not judged."
    )


class BaselineGate(Section):
    """The student against the same network trained on hard labels only."""

    min_gain: float = Field(0.0, description="Minimum gain of the metric over all examples; 0: at least as good.")


class PushedGate(Section):
    """The student against the version that was pushed last."""

    max_drop: float = Field(0.0, ge=0, description="Maximum drop of the metric over all examples.")
    max_drop_per_slice: float | None = Field(None, ge=0, description="Maximum drop on each slice; null: not checked.")
    min_slice_examples: int = Field(
        30, ge=1, description="Minimum number of eval examples of a slice; smaller slices are not judged."
    )


class Gates(Section):
    """Conditions of the push; null removes a gate."""

    teacher: TeacherGate = Field(TeacherGate(), description="Comparison with the teacher or the ensemble.")
    baseline: BaselineGate | None = Field(BaselineGate(), description="Comparison with the baseline; null: none.")
    pushed: PushedGate | None = Field(PushedGate(), description="Comparison with the last pushed version; null: none.")


class Evaluation(Section):
    """How models are evaluated and compared."""

    metric: str | None = Field(
        None,
        description="Metric of the gates; null: the first that is valid for the head. AUC metrics require two classes, "
        "ranking metrics a query.",
    )
    query: str | None = Field(
        None,
        description="Raw column with the query of each candidate; class 1 is the relevant one. Adds MeanReciprocalRank "
        "and PrecisionAtOne; null: no ranking.",
    )
    slices: list[str | list[str]] = Field(
        [], description="Raw columns that define slices by their values; a list of columns is crossed."
    )
    confidence_intervals: bool = Field(
        False,
        description="Compute 95 % confidence intervals of every metric by TFMA's jackknife; multiplies an Evaluator's "
        "duration.",
    )
    gates: Gates = Field(Gates(), description="Conditions of the push.")

    @model_validator(mode="after")
    def _check_query(self):
        if self.metric in RANKING_METRICS and self.query is None:
            raise ValueError(f"metric: {self.metric} needs a query; set query to its column")
        return self


class Push(Section):
    """Destination of a student that passes the gates."""

    path: str = Field(description="Folder that receives a numbered version per push, as TensorFlow Serving expects.")
