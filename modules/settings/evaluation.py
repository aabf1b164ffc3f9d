"""How models are compared, what the student has to pass, and where it is shipped."""

from pydantic import Field, model_validator

from stillhouse.modules.settings.section import Section

# Metrics that are defined for two classes; they are computed for class 1 against class 0.
BINARY_METRICS = ("AUC", "AUCPrecisionRecall")
# Metrics over the candidates of each query, ranked by the probability of class 1.
RANKING_METRICS = ("MeanReciprocalRank", "PrecisionAtOne")
# What the gates may compare, by head; the first is the default.
METRICS = {
    "classification": ("SparseCategoricalAccuracy", "SparseCategoricalCrossentropy", *BINARY_METRICS, *RANKING_METRICS),
    "multi_label": ("MultiLabelAccuracy", "MultiLabelCrossentropy", "MultiLabelAUC"),
    "regression": ("MeanAbsoluteError", "MeanSquaredError"),
}
# What every model is reported with, whatever the gates compare.
REPORTED_METRICS = {
    "classification": ("SparseCategoricalAccuracy", "SparseCategoricalCrossentropy"),
    "multi_label": ("MultiLabelAccuracy", "MultiLabelCrossentropy"),
    "regression": ("MeanAbsoluteError", "MeanSquaredError"),
}


class TeacherGate(Section):
    """The student against the teacher, or against the ensemble of several."""

    max_drop: float = Field(0.03, ge=0, description="Allowed loss of the metric overall.")
    max_drop_per_slice: float | None = Field(None, ge=0, description="Allowed loss on each slice; none: not checked.")
    min_slice_examples: int = Field(30, ge=1, description="Slices with fewer eval examples are not judged.")


class BaselineGate(Section):
    """The student against the same network trained on hard labels only."""

    min_gain: float = Field(0.0, description="Asked gain of the metric overall; 0: at least as good.")


class PushedGate(Section):
    """The student against the version that was pushed last."""

    max_drop: float = Field(0.0, ge=0, description="Allowed loss of the metric overall.")
    max_drop_per_slice: float | None = Field(None, ge=0, description="Allowed loss on each slice; none: not checked.")
    min_slice_examples: int = Field(30, ge=1, description="Slices with fewer eval examples are not judged.")


class Gates(Section):
    """What the student has to pass; a gate that is null is left out."""

    teacher: TeacherGate = Field(TeacherGate(), description="Against the teacher or the ensemble.")
    baseline: BaselineGate | None = Field(BaselineGate(), description="Against the undistilled twin.")
    pushed: PushedGate | None = Field(PushedGate(), description="Against the last pushed version.")


class Evaluation(Section):
    """How models are compared."""

    metric: str | None = Field(
        None,
        description="The metric of the gates; default: the first that fits the head. The AUCs are for two classes, the "
        "ranks want a query.",
    )
    query: str | None = Field(
        None,
        description="Raw column that says which candidates belong to one query; class 1 is the relevant one. Then "
        "MeanReciprocalRank and PrecisionAtOne are computed too.",
    )
    slices: list[str | list[str]] = Field([], description="Raw columns by whose values to slice; a list crosses them.")
    confidence_intervals: bool = Field(
        False,
        description="Compute intervals of 95 % of every metric, by TFMA's jackknife; an Evaluator then takes several "
        "times as long.",
    )
    gates: Gates = Field(Gates(), description="What the student has to pass.")

    @model_validator(mode="after")
    def _check_query(self):
        if self.metric in RANKING_METRICS and self.query is None:
            raise ValueError(f"metric: {self.metric} ranks the candidates of each query; set query to their column")
        return self


class Push(Section):
    """Where a student that passed is shipped."""

    path: str = Field(description="Folder that gets a new version (a number) with each push; TensorFlow Serving's.")
