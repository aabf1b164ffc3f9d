"""Settings -> TFX pipeline: the DAG."""

from ml_metadata.proto import metadata_store_pb2
from tfx.components import SchemaGen, StatisticsGen, Transform
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2
from tfx.types import BaseChannel

from stillhouse.components.blessing import Blessing
from stillhouse.components.dark_knowledge import DarkKnowledge
from stillhouse.components.distribution_validator import DistributionValidator
from stillhouse.components.ensemble import Ensemble
from stillhouse.components.evaluation import STUDENT, metric_name
from stillhouse.components.evaluator import Evaluator
from stillhouse.components.example_validator import ExampleValidator
from stillhouse.components.imported_teacher import ImportedTeacher
from stillhouse.components.last_pushed import LastPushed
from stillhouse.components.predictions import Predictions
from stillhouse.components.pseudo_labels import PseudoLabels
from stillhouse.components.pusher import Pusher
from stillhouse.components.pusher.executor import teacher_folder
from stillhouse.components.report import ComparedModel, Report
from stillhouse.components.serving_check import ServingCheck
from stillhouse.components.soft_targets import SoftTargets, ViewsOfExamples
from stillhouse.components.transfer_examples import TransferExamples
from stillhouse.modules.code_fingerprint import code_fingerprint
from stillhouse.modules.models.imported import SavedTeacher, fingerprint
from stillhouse.modules.settings import MASKED, OBJECTIVES, Schedule, Settings, Shift, Start, Student, WeightedEnsemble
from stillhouse.modules.training.config import DistillationConfig, MaskingConfig, first_stage_of
from stillhouse.pipelines.dag.baseline import add_baseline
from stillhouse.pipelines.dag.eval_config import baseline_gate, drop_gate, eval_config, fidelity_rule
from stillhouse.pipelines.dag.example_gen import (
    earlier_spans_example_gen,
    example_gen,
    newest_span_example_gen,
    transfer_example_gen,
)
from stillhouse.pipelines.dag.folds import add_fold_teachers
from stillhouse.pipelines.dag.nodes import Dag, PipelinePaths

ONE_TEACHER = WeightedEnsemble(weights=[1.0])
SOFT_TARGETS_ALONE = Schedule(start=1.0, end=1.0)  # as alpha


def teacher_names(settings: Settings) -> list[str]:
    """Returns the names of the teachers' nodes."""
    return [f"Teacher-{number}" for number in range(1, len(settings.all_teachers()) + 1)]


def student_names(settings: Settings) -> list[str]:
    """Returns the names of the nodes of students: those of the rounds before the last, and the last."""
    pseudo_labels = settings.student.distillation.pseudo_labels
    rounds = pseudo_labels.rounds if pseudo_labels else 1
    return [*(f"Student-{number}" for number in range(1, rounds)), STUDENT]


def saved_teachers(settings: Settings, saved_models: dict[str, str]) -> dict[str, SavedTeacher]:
    """Returns, by the names of their nodes, the teachers that exist already; `saved_models` tells where they are."""
    return {
        name: SavedTeacher(name, saved_models[teacher.saved_model], teacher.signature, teacher.output, teacher.outputs)
        for name, teacher in zip(teacher_names(settings), settings.all_teachers(), strict=True)
        if teacher.saved_model
    }


def create_pipeline(settings: Settings, paths: PipelinePaths) -> Pipeline:
    """Returns the distillation pipeline of the settings.

    ExampleGen (NewestSpan) -> StatisticsGen -> SchemaGen -> ExampleValidator (, Drift) -> Transform (-> Pretraining) ->
    Teacher-1..N (, Teacher-1.fold-1...) -> SoftTargets (-> PseudoLabels -> Student-1 -> SoftTargets-2 ...) -> Student,
    Baseline -> Evaluator, Predictions -> Blessing, ServingCheck -> Pusher -> Report.
    """
    dag = Dag(settings, paths)
    _add_data(dag)
    _add_pretraining(dag)
    teachers = _add_teachers(dag)
    students, transfer = _add_students(dag, teachers)
    baseline = add_baseline(dag, transfer) if settings.evaluation.gates.baseline else None
    _add_comparison(dag, teachers, baseline, students)
    return Pipeline(
        pipeline_name=settings.name,
        pipeline_root=paths.root,
        components=dag.nodes,
        enable_cache=True,
        metadata_connection_config=sqlite(paths.metadata_path),
        beam_pipeline_args=list(paths.beam_options),
    )


def _add_data(dag: Dag) -> None:
    settings, paths = dag.settings, dag.paths
    dag.raw = dag.evaluated = dag.add(example_gen(settings.data, paths.data_path))["examples"]
    if settings.data.spans > 1:
        dag.evaluated = dag.add(newest_span_example_gen(settings.data, paths.data_path))["examples"]
    statistics = dag.add(StatisticsGen(examples=dag.raw))["statistics"]
    if paths.schema_path:
        schema = dag.add(ImportSchemaGen(schema_file=paths.schema_path), "SchemaGen")["schema"]
    else:
        schema = dag.add(SchemaGen(statistics=statistics))["schema"]
    validator = ExampleValidator(statistics=statistics, schema=schema)
    anomalies = dag.add(validator)["anomalies"]
    dag.described = {"statistics": statistics, "schema": schema, "anomalies": anomalies}
    transform = Transform(
        examples=dag.raw,
        schema=schema,
        preprocessing_fn=f"{settings.task}.preprocessing_fn",
        custom_config={
            "code": code_fingerprint(settings.task, without=tuple(settings.builders())),
            "label": settings.data.label,
            "preprocessing": settings.preprocessing,
        },
        disable_statistics=True,
    )
    transform.add_upstream_node(validator)
    if settings.data.drift and "{SPAN}" in settings.data.path:
        transform.add_upstream_node(_add_drift(dag, settings.data.drift, statistics))
    transformed = dag.add(transform)
    dag.data = {"examples": transformed["transformed_examples"], "transform_graph": transformed["transform_graph"]}
    if paths.transfer_path:
        raw = dag.add(transfer_example_gen(settings.data, paths.transfer_path))["examples"]
        unlabelled = TransferExamples(
            examples=raw,
            transform_graph=dag.data["transform_graph"],
            label=settings.data.label,
        )
        if settings.data.skew:
            unlabelled.add_upstream_node(_add_skew(dag, settings.data.skew, raw, statistics))
        dag.transfer = dag.add(unlabelled)["transformed_examples"]


def _add_drift(dag: Dag, shift: Shift, statistics: BaseChannel) -> DistributionValidator:
    """Compares the newest span with those before it; `statistics` are of the whole window."""
    if dag.settings.data.spans > 1:
        statistics = dag.add(StatisticsGen(examples=dag.evaluated), "NewestStatistics")["statistics"]
    earlier = dag.add(earlier_spans_example_gen(dag.settings.data, dag.paths.data_path))["examples"]
    validator = DistributionValidator(
        examples=dag.evaluated,
        statistics=statistics,
        baseline_examples=earlier,
        baseline_statistics=dag.add(StatisticsGen(examples=earlier), "EarlierStatistics")["statistics"],
        splits=("train", "train"),
        between_spans=True,
        **dict(shift),
    )
    dag.described["drift"] = dag.add(validator, "Drift")["anomalies"]
    return validator


def _add_skew(dag: Dag, shift: Shift, unlabelled: BaseChannel, statistics: BaseChannel) -> DistributionValidator:
    """Compares the unlabelled examples with those of train."""
    validator = DistributionValidator(
        examples=unlabelled,
        statistics=dag.add(StatisticsGen(examples=unlabelled), "TransferStatistics")["statistics"],
        baseline_examples=dag.raw,
        baseline_statistics=statistics,
        splits=("transfer", "train"),
        between_spans=False,
        omitted=dag.settings.data.label,
        **dict(shift),
    )
    dag.described["skew"] = dag.add(validator, "Skew")["anomalies"]
    return validator


def _add_pretraining(dag: Dag) -> None:
    settings = dag.settings
    for name, pretraining in settings.pretraining.items():
        node = f"Pretraining.{name}"
        learners = [later.distillation for later in settings.pretraining.values() if later.distillation]
        hidden = {
            hint.teacher_layer
            for distillation in learners
            if distillation.teacher == name
            for hint in distillation.hints
        }
        masking = MaskingConfig(share=pretraining.mask_share, label=settings.data.label)
        more = {"head": MASKED, "label": pretraining.tokens, "masking": masking, "hidden_layers": sorted(hidden)}
        teachers = []
        if pretraining.distillation:
            teachers = [dag.pretrained[pretraining.distillation.teacher]]
            more["distillation"] = DistillationConfig(
                objective=OBJECTIVES[MASKED][0],
                temperature=pretraining.distillation.temperature,
                alpha=pretraining.distillation.alpha,
                hints=pretraining.distillation.hints,
                ensemble=ONE_TEACHER,
            )
        config = dag.config(node, "pretraining", pretraining, **more)
        start = dag.start_of(node, pretraining)
        dag.pretrained[name] = dag.distillation_trainer(config, start, dag.transfer, teachers=teachers)


def _add_teachers(dag: Dag) -> list[BaseChannel]:
    settings = dag.settings
    existing, teachers = saved_teachers(settings, dag.paths.saved_models), []
    for number, (name, teacher, shard) in enumerate(
        zip(teacher_names(settings), settings.all_teachers(), settings.shards(), strict=True), start=1
    ):
        if name in existing:
            imported = ImportedTeacher(
                teacher=existing[name],
                fingerprint=fingerprint(existing[name].path),
                label=settings.data.label,
                head=settings.head,
                **dag.data,
            )
            teachers.append(dag.add(imported, name)["model"])
            continue
        hints = settings.student.distillation.hints
        hidden = sorted({hint.teacher_layer for hint in hints if hint.teacher == number})
        config = dag.config(name, "teacher", teacher, shard=shard, hidden_layers=hidden)
        teachers.append(dag.trainer(config, dag.start_of(name, teacher, teacher_folder(number))))
        dag.fold_teachers += add_fold_teachers(dag, name, teacher, hidden)
    return teachers


def _add_students(dag: Dag, teachers: list[BaseChannel]) -> tuple[dict[str, BaseChannel], BaseChannel | None]:
    """Returns the students by their names (of the rounds, and the last one) and the last one's unlabelled examples."""
    settings, students = dag.settings, {}
    distillation = settings.student.distillation
    rounds = student_names(settings)
    for number, name in enumerate(rounds, start=1):
        suffix = "" if number == 1 else f"-{number}"
        ensemble = settings.weighted_ensemble() if number == 1 else ONE_TEACHER
        looked_into = distillation.dark_knowledge if number == 1 and settings.head == "classification" else []
        teacher_inputs: dict = {"teachers": teachers}
        if distillation.targets == "cached" or looked_into:
            soft_targets = _add_soft_targets(dag, teachers, suffix, _views_of(dag))
            if distillation.targets == "cached":
                teacher_inputs = {"soft_targets": soft_targets}
        if looked_into:
            dark_knowledge = DarkKnowledge(
                soft_targets=soft_targets,
                label=settings.data.label,
                temperatures=looked_into,
                ensemble=ensemble,
                **dag.data,
            )
            dag.described["dark_knowledge"] = dag.add(dark_knowledge)["dark_knowledge"]
        transfer = dag.transfer
        if distillation.pseudo_labels and transfer:
            pseudo_labels = PseudoLabels(
                soft_targets=soft_targets,
                transfer_examples=transfer,
                label=settings.data.label,
                rule=distillation.pseudo_labels.model_dump(exclude={"rounds"}),
                ensemble=ensemble,
                **dag.data,
            )
            outputs = dag.add(pseudo_labels, f"PseudoLabels{suffix}")
            transfer, teacher_inputs = outputs["pseudo_labelled"], {"soft_targets": outputs["targets"]}
            ensemble = ONE_TEACHER
        # Of the rounds only the last student has the seed of the settings.
        student = settings.student.model_copy(update={"seed": settings.student.seed + len(rounds) - number})
        students[name] = _add_student(dag, name, student, ensemble, transfer, teacher_inputs)
        teachers = [students[name]]
    return students, transfer


def _views_of(dag: Dag) -> ViewsOfExamples | None:
    """Returns the views that teachers are asked about beforehand; None: the examples as they are."""
    settings, student = dag.settings, dag.settings.student
    if not student.has_cached_views():
        return None
    without = ("preprocessing_fn", *settings.builders())
    return ViewsOfExamples(
        **student.input_changes().model_dump(),
        count=student.number_of_views(),
        seed=student.seed,
        task=settings.task,
        code=code_fingerprint(settings.task, without=without) if student.augment else "",
    )


def _add_soft_targets(dag: Dag, teachers: list[BaseChannel], suffix: str, views: ViewsOfExamples | None) -> BaseChannel:
    settings, distillation = dag.settings, dag.settings.student.distillation
    writer = SoftTargets(
        teachers=teachers,
        transfer_examples=dag.transfer,
        label=settings.data.label,
        head=settings.head,
        dtype=distillation.targets_dtype,
        batch_size=distillation.teacher_batch_size,
        views=views,
        top=distillation.targets_top,
        folds=distillation.folds,
        fold_teachers=dag.fold_teachers,
        **dag.data,
    )
    return dag.add(writer, f"SoftTargets{suffix}")["soft_targets"]


def _add_student(
    dag: Dag,
    name: str,
    student: Student,
    ensemble: WeightedEnsemble,
    transfer: BaseChannel | None,
    teacher_inputs: dict,
) -> BaseChannel:
    settings, distillation = dag.settings, student.distillation
    module = settings.objective.rpartition(".")[0]  # of a user's own, whose code the cache has to see
    learning = DistillationConfig(
        objective=settings.objective,
        temperature=distillation.temperature,
        alpha=distillation.alpha,
        hints=distillation.hints,
        head_per_teacher=distillation.head_per_teacher,
        ensemble=ensemble,
        code=code_fingerprint(module) if module else "",
    )
    omitted = {"omit_classes": student.omit_classes}
    base_model = dag.start_of(name, student)
    start = {}
    if distillation.pretraining:
        stage = student.model_copy(update=dict(distillation.pretraining))
        soft = learning.model_copy(update={"alpha": SOFT_TARGETS_ALONE})
        first = dag.config(first_stage_of(name), "pretraining", stage, distillation=soft, **omitted)
        base_model = dag.distillation_trainer(first, base_model, transfer, **teacher_inputs)
        start, transfer = {"start": Start(pretraining=first.name)}, None
    config = dag.config(name, "student", student, distillation=learning, **omitted, **start)
    return dag.distillation_trainer(config, base_model, transfer, **teacher_inputs)


def _add_comparison(
    dag: Dag, teachers: list[BaseChannel], baseline: BaseChannel | None, students: dict[str, BaseChannel]
) -> None:
    settings, paths, limits = dag.settings, dag.paths, dag.settings.evaluation.gates
    label = settings.data.label
    student = students[STUDENT]
    if len(teachers) > 1:
        compared = [
            ComparedModel(name, "teacher", model) for name, model in zip(teacher_names(settings), teachers, strict=True)
        ]
        joined = Ensemble(
            teachers=teachers,
            transform_graph=dag.data["transform_graph"],
            label=label,
            head=settings.head,
            ensemble=settings.weighted_ensemble(),
        )
        reference = ComparedModel("Ensemble", "ensemble", dag.add(joined)["model"])
    else:
        (name,) = teacher_names(settings)
        compared, reference = [], ComparedModel(name, "teacher", teachers[0])
    compared.append(reference)
    compared += [ComparedModel(name, "round", students[name]) for name in list(students)[:-1]]
    gates = [drop_gate("teacher", reference.name, settings, limits.teacher)]
    if limits.baseline and baseline:
        gates.append(baseline_gate("Baseline", settings, limits.baseline))
        compared.append(ComparedModel("Baseline", "baseline", baseline))
    compared.append(ComparedModel(STUDENT, "student", student))
    if limits.pushed:
        gates.append(drop_gate("pushed", "Pushed", settings, limits.pushed))
        last_pushed = dag.add(LastPushed(push_path=paths.push_path, student=student))["model"]
        compared.append(ComparedModel("Pushed", "pushed", last_pushed))

    models, names = [each.model for each in compared], [each.name for each in compared]
    evaluation = dag.add(Evaluator(models, names, dag.evaluated, eval_config(settings)))["evaluation"]
    predictions = dag.add(
        Predictions(
            models=models,
            names=names,
            examples=dag.evaluated,
            label=label,
            head=settings.head,
            slice_columns=[column for columns in settings.evaluation.slice_columns() for column in columns],
            query=settings.evaluation.query,
        )
    )["predictions"]
    blessing = dag.add(
        Blessing(
            model=student,
            gates=gates,
            evaluation=evaluation,
            predictions=predictions,
            fidelity=fidelity_rule(reference.name, settings),
        )
    )["blessing"]
    serving_check = ServingCheck(
        model=student,
        examples=dag.evaluated,
        evaluation=evaluation,
        label=label,
    )
    infra_blessing = dag.add(serving_check)["blessing"]
    pusher = Pusher(
        model=student,
        model_blessing=blessing,
        infra_blessing=infra_blessing,
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=paths.push_path)
        ),
        evaluation=evaluation,
        teachers=teachers if any(teacher.warm_start for teacher in settings.teachers) else (),
    )
    pushed_model = dag.add(pusher)["pushed_model"]
    report = Report(
        pipeline=settings.name,
        label=label,
        models=compared,
        examples=dag.evaluated,
        evaluation=evaluation,
        blessing=blessing,
        infra_blessing=infra_blessing,
        pushed_model=pushed_model,
        predictions=predictions,
        gate_metric=metric_name(settings.metric),
        settings=settings.model_dump_json(by_alias=True),
        commit=paths.commit,
        **dag.described,
    )
    dag.add(report)


def sqlite(path: str) -> metadata_store_pb2.ConnectionConfig:
    """Returns the connection to a metadata store in the file `path`, which is made when it is first used."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = path
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return config
