"""What TFMA computes, and the gates on it."""

from tensorflow_model_analysis.proto import config_pb2

from stillhouse.components import multi_label_metrics, ranking_metrics
from stillhouse.components.blessing.gates import FidelityRule, Gate
from stillhouse.components.evaluation import EXAMPLES, LOWER_IS_BETTER, metric_name
from stillhouse.modules.models.export import evaluation_label
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import (
    BINARY_METRICS,
    RANKING_METRICS,
    REPORTED_METRICS,
    BaselineGate,
    PushedGate,
    Settings,
    TeacherGate,
)


def drop_gate(name: str, other: str, settings: Settings, limits: TeacherGate | PushedGate) -> Gate:
    """Returns the gate of `limits` against the model named `other`."""
    per_slice = limits.max_drop_per_slice
    return Gate(
        name,
        other,
        **_metric(settings),
        min_change=-limits.max_drop,
        min_change_per_slice=None if per_slice is None else -per_slice,
        min_slice_examples=limits.min_slice_examples,
        undefined_slices=limits.undefined_slices,
        allow_no_slice=limits.allow_no_slice,
        slice_columns=settings.evaluation.slice_columns(),
        confidence=limits.confidence,
    )


def baseline_gate(other: str, settings: Settings, limits: BaselineGate) -> Gate:
    """Returns the gate against the undistilled twin, the model named `other`."""
    return Gate("baseline", other, **_metric(settings), min_change=limits.min_gain, confidence=limits.confidence)


def fidelity_rule(other: str, settings: Settings) -> FidelityRule | None:
    """Returns the rule of the fidelity to the model named `other`; None: no such gate is set."""
    limits = settings.evaluation.gates.fidelity
    if limits is None:
        return None
    return FidelityRule(other, **limits.model_dump(), slice_columns=settings.evaluation.slice_columns())


def _metric(settings: Settings) -> dict:
    return {"metric": metric_name(settings.metric), "lower_is_better": settings.metric in LOWER_IS_BETTER}


def eval_config(settings: Settings) -> config_pb2.EvalConfig:
    """Returns TFMA's configuration: loss, accuracy (or error), example count, and the metric of the gates.

    A binary metric is computed for class 1.
    """
    head, evaluation = settings.head, settings.evaluation
    count = config_pb2.MetricConfig(class_name="ExampleCount", config=f'{{"name": "{EXAMPLES}"}}')
    plain: list[config_pb2.MetricConfig] = []
    binary: list[config_pb2.MetricConfig] = []
    ranking: list[config_pb2.MetricConfig] = []
    reported = [*REPORTED_METRICS[head], *(RANKING_METRICS if evaluation.query else ())]
    for name in dict.fromkeys([*reported, settings.metric]):
        module = multi_label_metrics.__name__ if head == "multi_label" else ""
        if name in RANKING_METRICS:
            module = ranking_metrics.__name__
        metric = config_pb2.MetricConfig(class_name=name, module=module, config=f'{{"name": "{metric_name(name)}"}}')
        kind = binary if name in BINARY_METRICS else ranking if name in RANKING_METRICS else plain
        kind.append(metric)
    specs = [config_pb2.MetricsSpec(metrics=[count, *plain])]
    if binary:
        class_one = config_pb2.BinarizationOptions(class_ids={"values": [1]})
        specs.append(config_pb2.MetricsSpec(metrics=binary, binarize=class_one))
    if ranking:
        specs.append(config_pb2.MetricsSpec(metrics=ranking, query_key=evaluation.query))
    slices = [config_pb2.SlicingSpec(feature_keys=columns) for columns in evaluation.slice_columns()]
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name="serving_default",
                prediction_key=HEADS[head].prediction_key,
                label_key=evaluation_label(settings.data.label),
            )
        ],
        slicing_specs=[config_pb2.SlicingSpec(), *slices],
        metrics_specs=specs,
        options=config_pb2.Options(
            include_default_metrics={"value": False},
            # By leaving out a twentieth of the examples in turn; a slice with too few has none.
            compute_confidence_intervals={"value": evaluation.confidence_intervals},
            confidence_intervals={"method": config_pb2.ConfidenceIntervalOptions.JACKKNIFE},
        ),
    )
