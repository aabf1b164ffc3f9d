"""Reading what TFMA wrote into an evaluation artifact."""

import re
from dataclasses import dataclass, field

import tensorflow_model_analysis as tfma

OVERALL = ""  # the slice of all examples
EXAMPLES = "example_count"
STUDENT = "Student"  # the name of the model that is judged; its classes give the order of all
MISSING = "(missing)"  # the value of a slice column in examples that have none
# What the classes of metrics are called in comparison.json; others are their class names in snake case.
METRIC_NAMES = {
    "SparseCategoricalAccuracy": "accuracy",
    "SparseCategoricalCrossentropy": "loss",
    "MultiLabelAccuracy": "accuracy",
    "MultiLabelCrossentropy": "loss",
    "MultiLabelAUC": "auc",
    "MeanSquaredError": "loss",
    "ExampleCount": EXAMPLES,
    "AUC": "auc",
    "AUCPrecisionRecall": "auc_precision_recall",
}
LOWER_IS_BETTER = ("SparseCategoricalCrossentropy", "MultiLabelCrossentropy", "MeanSquaredError", "MeanAbsoluteError")


def metric_name(class_name: str) -> str:
    """Returns the short name of a metric class: "accuracy" of "SparseCategoricalAccuracy"."""
    return METRIC_NAMES.get(class_name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", class_name).lower()


@dataclass(frozen=True)
class ModelMetrics:
    """Metrics of one model: {slice: {metric: value}}, slices as "label=3", OVERALL for all examples."""

    slices: dict[str, dict[str, float]] = field(default_factory=dict)
    # Of 95 %, likewise: {slice: {metric: (lower, upper)}}. A slice that is too small for them has none.
    intervals: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)

    @property
    def overall(self) -> dict[str, float]:
        """Metrics over all examples."""
        return self.slices[OVERALL]


def _slice_name(key) -> str:
    return ", ".join(f"{column}={value}" for column, value in key)


def read_evaluation(path: str) -> dict[str, ModelMetrics]:
    """Returns {name of the model: metrics} of the evaluation artifact in `path`; a single model's name is ""."""
    names = [spec.name for spec in tfma.load_eval_result(path).config.model_specs]
    return {name: _model_metrics(tfma.load_eval_result(path, model_name=name)) for name in names}


def read_student(path: str) -> ModelMetrics:
    """Returns the student's metrics of the evaluation artifact in `path`, which a stock Evaluator may have written."""
    metrics = read_evaluation(path)
    return next(metrics[name] for name in (STUDENT, tfma.CANDIDATE_KEY, "") if name in metrics)


def _model_metrics(result: tfma.EvalResult) -> ModelMetrics:
    slices, intervals = {}, {}
    for key, outputs in result.slicing_metrics:
        values, bounds = {}, {}
        for sub_keys in outputs.values():
            for metrics in sub_keys.values():
                for name, value in metrics.items():
                    if name.endswith("_diff"):
                        continue
                    if "doubleValue" in value:
                        values[name] = float(value["doubleValue"])  # "NaN" where it is undefined
                    elif "boundedValue" in value:
                        bounded = value["boundedValue"]
                        # A bound that is zero is left out of the message.
                        values[name] = float(bounded.get("value", 0.0))
                        bounds[name] = (float(bounded.get("lowerBound", 0.0)), float(bounded.get("upperBound", 0.0)))
        slices[_slice_name(key)], intervals[_slice_name(key)] = values, bounds
    return ModelMetrics(slices, intervals)
