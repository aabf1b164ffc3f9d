"""Settings -> TFX pipeline: the DAG."""

import os
from dataclasses import dataclass, field

import tensorflow_model_analysis as tfma
from ml_metadata.proto import metadata_store_pb2
from tfx.components import (
    CsvExampleGen,
    ImportExampleGen,
    SchemaGen,
    StatisticsGen,
    Trainer,
    Transform,
)
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import example_gen_pb2, pusher_pb2, trainer_pb2
from tfx.types import BaseChannel

from components.blessing import Blessing
from components.blessing.gates import ROUNDING, Gate
from components.distillation_trainer import DistillationTrainer
from components.ensemble import Ensemble
from components.evaluation import BASELINE, CANDIDATE, LOWER_IS_BETTER, metric_name
from components.evaluator import Evaluator
from components.example_validator import ExampleValidator
from components.last_pushed import LastPushed
from components.parquet_example_gen import ParquetExampleGen
from components.pusher import Pusher
from components.report import ComparedModel, Report
from components.serving_check import ServingCheck
from modules.export import evaluation_label
from pipelines.code_fingerprint import code_fingerprint
from pipelines.settings import BINARY_METRICS, Data, Evaluation, Settings, Training

RUN_FN = "modules.training.run_fn"


@dataclass(frozen=True)
class Place:
    """Where a pipeline's artifacts, metadata and pushes go: what differs between runners."""

    root: str
    data_path: str
    push_path: str
    metadata_path: str
    schema_path: str | None = None
    # A push that was recorded but is gone from the push folder; naming it makes the Pusher run again.
    lost_push: str | None = None
    beam_options: list[str] = field(default_factory=list)


def create_pipeline(settings: Settings, place: Place) -> Pipeline:
    """Returns the distillation pipeline of the settings.

    ExampleGen -> StatisticsGen -> SchemaGen -> ExampleValidator -> Transform -> Teacher-1..N, Baseline, Student
    -> Evaluators -> Blessing, ServingCheck -> Pusher -> Report.
    """
    nodes = []

    def add(component, name: str | None = None):
        nodes.append(component.with_id(name) if name else component)
        return component.outputs

    label, task = settings.data.label, settings.task
    own_code = code_fingerprint(RUN_FN.rpartition(".")[0])

    examples = add(example_gen(settings.data, place.data_path))["examples"]
    statistics = add(StatisticsGen(examples=examples))["statistics"]
    if place.schema_path:
        schema = add(ImportSchemaGen(schema_file=place.schema_path), "SchemaGen")["schema"]
    else:
        schema = add(SchemaGen(statistics=statistics))["schema"]
    validator = ExampleValidator(statistics=statistics, schema=schema)
    add(validator)

    transform = Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn=f"{task}.preprocessing_fn",
        custom_config={"code": code_fingerprint(task, without=("build_teacher", "build_student"))},
        disable_statistics=True,
    )
    transform.add_upstream_node(validator)
    transformed = add(transform)
    data = {"examples": transformed["transformed_examples"], "transform_graph": transformed["transform_graph"]}

    def training(name: str, role: str, of: Training, distillation: dict | None = None) -> dict:
        other_builder = "build_student" if role == "teacher" else "build_teacher"
        return {
            "name": name,
            "role": role,
            "task": task,
            "label": label,
            "distillation": distillation,
            "code": own_code + code_fingerprint(task, without=("preprocessing_fn", other_builder)),
        } | of.model_dump(include=set(Training.model_fields))

    def trainer(config: dict) -> BaseChannel:
        split_args = {
            "train_args": trainer_pb2.TrainArgs(splits=["train"]),
            "eval_args": trainer_pb2.EvalArgs(splits=["eval"]),
        }
        return add(Trainer(run_fn=RUN_FN, custom_config=config, **data, **split_args), config["name"])["model"]

    teachers = settings.all_teachers()
    names = [f"Teacher-{i}" for i in range(1, len(teachers) + 1)]
    teacher_models = [
        trainer(training(name, "teacher", teacher)) for name, teacher in zip(names, teachers, strict=True)
    ]
    baseline_model = None
    gates = settings.evaluation.gates
    if gates.baseline:
        baseline_model = trainer(training("Baseline", "baseline", settings.student))
    distillation = settings.student.distillation.model_dump()
    student_trainer = DistillationTrainer(
        run_fn=RUN_FN,
        teachers=teacher_models,
        custom_config=training("Student", "student", settings.student, distillation),
        **data,
    )
    student = add(student_trainer, "Student")["model"]

    compared: list[ComparedModel] = []

    def evaluate(name: str, model: BaseChannel, gate: Gate | None = None, other: BaseChannel | None = None):
        config = eval_config(settings.evaluation, label, gate)
        evaluator = Evaluator(
            examples=examples, model=model, baseline_model=other, eval_config=config, example_splits=["eval"]
        )
        return add(evaluator, name)

    if len(teachers) > 1:
        for name, model in zip(names, teacher_models, strict=True):
            evaluation = evaluate(f"Evaluator.{name}", model)["evaluation"]
            compared.append(ComparedModel(name, "teacher", model, evaluation, CANDIDATE))
        code = code_fingerprint("modules.export")
        ensemble = Ensemble(teachers=teacher_models, transform_graph=data["transform_graph"], label=label, code=code)
        reference, reference_name, reference_role = add(ensemble)["model"], "Ensemble", "ensemble"
    else:
        reference, reference_name, reference_role = teacher_models[0], names[0], "teacher"

    gate = drop_gate("teacher", settings.evaluation, gates.teacher)
    against_teacher = evaluate("Evaluator.teacher", student, gate, reference)
    passed = [(gate, against_teacher)]
    compared.append(ComparedModel(reference_name, reference_role, reference, against_teacher["evaluation"], BASELINE))
    if gates.baseline:
        gate = Gate("baseline", **_metric(settings.evaluation), min_change=gates.baseline.min_gain)
        against = evaluate("Evaluator.baseline", student, gate, baseline_model)
        passed.append((gate, against))
        compared.append(ComparedModel("Baseline", "baseline", baseline_model, against["evaluation"], BASELINE))
    compared.append(ComparedModel("Student", "student", student, against_teacher["evaluation"], CANDIDATE))
    if gates.pushed:
        gate = drop_gate("pushed", settings.evaluation, gates.pushed)
        last_pushed = add(LastPushed(push_path=place.push_path, student=student))["model"]
        against = evaluate("Evaluator.pushed", student, gate, last_pushed)
        passed.append((gate, against))
        compared.append(ComparedModel("Pushed", "pushed", last_pushed, against["evaluation"], BASELINE))

    blessing = add(
        Blessing(
            model=student,
            gates=[gate for gate, _ in passed],
            evaluations=[outputs["evaluation"] for _, outputs in passed],
            blessings=[outputs["blessing"] for _, outputs in passed],
            code=code_fingerprint("components.blessing.executor"),
        )
    )["blessing"]
    serving_check = ServingCheck(
        model=student,
        examples=examples,
        evaluation=against_teacher["evaluation"],
        label=label,
        code=code_fingerprint("modules.serving"),
    )
    infra_blessing = add(serving_check)["blessing"]
    pusher = Pusher(
        model=student,
        model_blessing=blessing,
        infra_blessing=infra_blessing,
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=place.push_path)
        ),
        custom_config={"lost_push": place.lost_push} if place.lost_push else None,
    )
    pushed_model = add(pusher)["pushed_model"]
    report = Report(
        pipeline=settings.name,
        label=label,
        models=compared,
        examples=examples,
        blessing=blessing,
        infra_blessing=infra_blessing,
        pushed_model=pushed_model,
        code=code_fingerprint("components.report.executor"),
    )
    add(report)
    return Pipeline(
        pipeline_name=settings.name,
        pipeline_root=place.root,
        components=nodes,
        enable_cache=True,
        metadata_connection_config=sqlite(place.metadata_path),
        beam_pipeline_args=place.beam_options,
    )


def sqlite(path: str) -> metadata_store_pb2.ConnectionConfig:
    """Returns the connection to a metadata store in the file `path`, which is made when it is first used."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = path
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return config


def example_gen(data: Data, path: str):
    """Returns the ExampleGen of the data's format and splits; `path` is the folder, {SPAN} and {VERSION} included."""
    base, pattern = path, ""
    if "{SPAN}" in path:
        fixed = path[: path.index("{SPAN}")]
        base = os.path.dirname(fixed)
        pattern = path[len(base) + 1 :] + "/"
    if all(isinstance(value, str) for value in data.splits.values()):
        splits = [
            example_gen_pb2.Input.Split(name=name, pattern=pattern + files) for name, files in data.splits.items()
        ]
        output_config = None
    else:
        splits = [example_gen_pb2.Input.Split(name="all", pattern=f"{pattern}*")]
        shares = [
            example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=share) for name, share in data.splits.items()
        ]
        output_config = example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=shares))
    arguments = {
        "input_base": base,
        "input_config": example_gen_pb2.Input(splits=splits),
        "output_config": output_config,
    }
    if data.format == "csv":
        return CsvExampleGen(**arguments).with_id("ExampleGen")
    if data.format == "tfrecord":
        return ImportExampleGen(**arguments).with_id("ExampleGen")
    return ParquetExampleGen(**arguments).with_id("ExampleGen")


def _metric(evaluation: Evaluation) -> dict:
    return {
        "metric": metric_name(evaluation.metric),
        "lower_is_better": evaluation.metric in LOWER_IS_BETTER,
    }


def drop_gate(name: str, evaluation: Evaluation, limits) -> Gate:
    """Returns the gate of `limits` (a TeacherGate or PushedGate of the settings)."""
    per_slice = limits.max_drop_per_slice
    return Gate(
        name,
        **_metric(evaluation),
        min_change=-limits.max_drop,
        min_change_per_slice=None if per_slice is None else -per_slice,
        min_slice_examples=limits.min_slice_examples,
    )


def eval_config(evaluation: Evaluation, label: str, gate: Gate | None) -> tfma.EvalConfig:
    """Returns TFMA's configuration: accuracy, loss, example count, the settings' metric with the gate's threshold.

    The threshold of the gate is on the change against the baseline model, over all examples. A binary metric is
    computed for class 1.
    """
    names = dict.fromkeys(["SparseCategoricalAccuracy", "SparseCategoricalCrossentropy", evaluation.metric])
    plain = [tfma.MetricConfig(class_name="ExampleCount", config='{"name": "example_count"}')]
    binary = []
    for name in names:
        metric = tfma.MetricConfig(class_name=name, config=f'{{"name": "{metric_name(name)}"}}')
        if gate and name == evaluation.metric:
            # A plain `threshold` would hold for every slice; the empty slicing spec is that of all examples.
            overall = metric.per_slice_thresholds.add(slicing_specs=[tfma.SlicingSpec()])
            change = overall.threshold.change_threshold
            least = gate.min_change - ROUNDING
            if gate.lower_is_better:
                change.direction, change.absolute.value = tfma.MetricDirection.LOWER_IS_BETTER, -least
            else:
                change.direction, change.absolute.value = tfma.MetricDirection.HIGHER_IS_BETTER, least
        (binary if name in BINARY_METRICS else plain).append(metric)
    specs = [tfma.MetricsSpec(metrics=plain)]
    if binary:
        class_one = tfma.BinarizationOptions(class_ids={"values": [1]})
        specs.append(tfma.MetricsSpec(metrics=binary, binarize=class_one))
    slices = [[columns] if isinstance(columns, str) else columns for columns in evaluation.slices]
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name="serving_default", prediction_key="probabilities", label_key=evaluation_label(label)
            )
        ],
        slicing_specs=[tfma.SlicingSpec(), *(tfma.SlicingSpec(feature_keys=columns) for columns in slices)],
        metrics_specs=specs,
        options=tfma.Options(include_default_metrics={"value": False}),
    )
