"""Settings -> TFX pipeline: the DAG."""

from dataclasses import dataclass, field

from ml_metadata.proto import metadata_store_pb2
from tfx.components import SchemaGen, StatisticsGen, Trainer, Transform
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2, trainer_pb2
from tfx.types import BaseChannel

from components.blessing import Blessing
from components.blessing.gates import Gate
from components.dark_knowledge import DarkKnowledge
from components.distillation_trainer import DistillationTrainer
from components.ensemble import Ensemble
from components.evaluation import BASELINE, CANDIDATE
from components.evaluator import Evaluator
from components.example_validator import ExampleValidator
from components.imported_teacher import ImportedTeacher
from components.last_pushed import LastPushed
from components.pusher import Pusher
from components.pusher.executor import teacher_folder
from components.report import ComparedModel, Report
from components.serving_check import ServingCheck
from components.soft_targets import SoftTargets
from components.transfer_examples import TransferExamples
from modules.distillation.imported import SavedTeacher, fingerprint
from pipelines.code_fingerprint import code_fingerprint
from pipelines.eval_config import baseline_gate, drop_gate, eval_config
from pipelines.example_gen import example_gen, newest_span_example_gen, transfer_example_gen
from pipelines.settings import Settings, Training

RUN_FN = "modules.training.run_fn"


@dataclass(frozen=True)
class Place:
    """Where a pipeline's artifacts, metadata and pushes go: what differs between runners."""

    root: str
    data_path: str
    push_path: str
    metadata_path: str
    schema_path: str | None = None
    transfer_path: str | None = None
    saved_models: dict[str, str] = field(default_factory=dict)  # where each teachers[].saved_model is
    # A push that was recorded but is gone from the push folder; naming it makes the Pusher run again.
    lost_push: str | None = None
    beam_options: list[str] = field(default_factory=list)
    checkpoints: str | None = None  # folder of trainings that are under way; None: they start over
    cache: str | None = None  # folder of ingestion.cache: disk


def teacher_names(settings: Settings) -> list[str]:
    """Returns the names of the teachers' nodes."""
    return [f"Teacher-{number}" for number in range(1, len(settings.all_teachers()) + 1)]


def saved_teachers(settings: Settings, saved_models: dict[str, str]) -> dict[str, SavedTeacher]:
    """Returns, by the names of their nodes, the teachers that exist already; `saved_models` tells where they are."""
    return {
        name: SavedTeacher(name, saved_models[of.saved_model], of.signature, of.output, of.outputs)
        for name, of in zip(teacher_names(settings), settings.all_teachers(), strict=True)
        if of.saved_model
    }


def create_pipeline(settings: Settings, place: Place) -> Pipeline:
    """Returns the distillation pipeline of the settings.

    ExampleGen (NewestSpan) -> StatisticsGen -> SchemaGen -> ExampleValidator -> Transform -> Teacher-1..N, Baseline
    -> SoftTargets -> Student -> Evaluators -> Blessing, ServingCheck -> Pusher -> Report.
    """
    nodes = []

    def add(component, name: str | None = None):
        nodes.append(component.with_id(name) if name else component)
        return component.outputs

    label, task, head, gates = settings.data.label, settings.task, settings.head, settings.evaluation.gates
    own_code = code_fingerprint(RUN_FN.rpartition(".")[0])

    # Data.
    examples = add(example_gen(settings.data, place.data_path))["examples"]
    evaluated = examples
    if settings.data.spans > 1:
        evaluated = add(newest_span_example_gen(settings.data, place.data_path))["examples"]
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
        custom_config={"code": code_fingerprint(task, without=tuple(settings.builders()))},
        disable_statistics=True,
    )
    transform.add_upstream_node(validator)
    transformed = add(transform)
    data = {"examples": transformed["transformed_examples"], "transform_graph": transformed["transform_graph"]}
    transfer = None
    if place.transfer_path:
        raw = add(transfer_example_gen(settings.data, place.transfer_path))["examples"]
        code = code_fingerprint("components.transfer_examples.executor")
        unlabelled = TransferExamples(examples=raw, transform_graph=data["transform_graph"], label=label, code=code)
        transfer = add(unlabelled)["transformed_examples"]

    # Teachers, and the student's twin that learns without them.
    def training(name: str, role: str, of: Training, **more) -> dict:
        config = of.model_dump(include=set(Training.model_fields) - {"warm_start"})
        config["builder"] = builder = settings.builder_of(of)
        ingestion = settings.ingestion.model_dump()
        ingestion["cache_folder"] = ingestion["cache_folder"] or place.cache
        others = settings.builders() - {builder}
        return (
            config
            | more
            | {
                "name": name,
                "checkpoint_folder": f"{place.checkpoints}/{name}" if place.checkpoints else None,
                "ingestion": ingestion,
                "role": role,
                "task": task,
                "label": label,
                "head": head,
                "code": own_code + code_fingerprint(task, without=("preprocessing_fn", *others)),
            }
        )

    def start_of(name: str, of: Training, folder: str = "") -> BaseChannel | None:
        if not of.warm_start:
            return None
        return add(LastPushed(place.push_path, examples=examples, folder=folder), f"WarmStart.{name}")["model"]

    def trainer(config: dict, base_model: BaseChannel | None = None) -> BaseChannel:
        split_args = {
            "train_args": trainer_pb2.TrainArgs(splits=["train"]),
            "eval_args": trainer_pb2.EvalArgs(splits=["eval"]),
        }
        made = Trainer(run_fn=RUN_FN, custom_config=config, base_model=base_model, **data, **split_args)
        return add(made, config["name"])["model"]

    names, teachers, existing = teacher_names(settings), [], saved_teachers(settings, place.saved_models)
    distillation = settings.student.distillation
    for number, (name, of, shard) in enumerate(
        zip(names, settings.all_teachers(), settings.shards(), strict=True), start=1
    ):
        if name in existing:
            imported = ImportedTeacher(
                teacher=existing[name],
                fingerprint=fingerprint(existing[name].path),
                label=label,
                head=head,
                code=code_fingerprint("modules.distillation.imported"),
                **data,
            )
            teachers.append(add(imported, name)["model"])
        else:
            hidden = sorted({hint.teacher_layer for hint in distillation.hints if hint.teacher == number})
            base_model = start_of(name, of, teacher_folder(number))
            teachers.append(trainer(training(name, "teacher", of, shard=shard, hidden_layers=hidden), base_model))
    omitted = {"omit_classes": settings.student.omit_classes}
    baseline = trainer(training("Baseline", "baseline", settings.student, **omitted)) if gates.baseline else None

    # Distillation.
    ensemble = {"weights": [of.weight for of in settings.all_teachers()], "combination": settings.ensemble.combination}
    looked_into = distillation.dark_knowledge if head == "classification" else []
    soft_targets = None
    if distillation.targets == "cached" or looked_into:
        writer = SoftTargets(
            teachers=teachers,
            transfer_examples=transfer,
            label=label,
            head=head,
            dtype=distillation.targets_dtype,
            batch_size=distillation.teacher_batch_size,
            code=code_fingerprint("components.soft_targets.executor"),
            **data,
        )
        soft_targets = add(writer)["soft_targets"]
    if looked_into:
        dark_knowledge = DarkKnowledge(
            soft_targets=soft_targets,
            label=label,
            temperatures=looked_into,
            ensemble=ensemble,
            code=code_fingerprint("components.dark_knowledge.executor"),
            **data,
        )
        add(dark_knowledge)
    learning = distillation.model_dump(include={"temperature", "alpha", "hints"})
    learning |= ensemble | {"objective": settings.objective}
    if "." in settings.objective:  # a user's own, whose code the cache has to see
        learning["code"] = code_fingerprint(settings.objective.rpartition(".")[0])
    asked = {"soft_targets": soft_targets} if distillation.targets == "cached" else {"teachers": teachers}
    student_trainer = DistillationTrainer(
        run_fn=RUN_FN,
        custom_config=training("Student", "student", settings.student, distillation=learning, **omitted),
        transfer_examples=transfer,
        base_model=start_of("Student", settings.student),
        **asked,
        **data,
    )
    student = add(student_trainer, "Student")["model"]

    # Comparisons.
    compared: list[ComparedModel] = []

    def evaluate(name: str, model: BaseChannel, gate: Gate | None = None, other: BaseChannel | None = None):
        evaluator = Evaluator(
            examples=evaluated,
            model=model,
            baseline_model=other,
            eval_config=eval_config(settings, gate),
            example_splits=["eval"],
        )
        return add(evaluator, name)

    if len(teachers) > 1:
        for name, model in zip(names, teachers, strict=True):
            evaluation = evaluate(f"Evaluator.{name}", model)["evaluation"]
            compared.append(ComparedModel(name, "teacher", model, evaluation, CANDIDATE))
        code = code_fingerprint("modules.export")
        joined = Ensemble(
            teachers=teachers,
            transform_graph=data["transform_graph"],
            label=label,
            head=head,
            ensemble=ensemble,
            code=code,
        )
        reference, reference_name, reference_role = add(joined)["model"], "Ensemble", "ensemble"
    else:
        reference, reference_name, reference_role = teachers[0], names[0], "teacher"

    gate = drop_gate("teacher", settings, gates.teacher)
    against_teacher = evaluate("Evaluator.teacher", student, gate, reference)
    passed = [(gate, against_teacher)]
    compared.append(ComparedModel(reference_name, reference_role, reference, against_teacher["evaluation"], BASELINE))
    if gates.baseline:
        gate = baseline_gate(settings)
        against = evaluate("Evaluator.baseline", student, gate, baseline)
        passed.append((gate, against))
        compared.append(ComparedModel("Baseline", "baseline", baseline, against["evaluation"], BASELINE))
    compared.append(ComparedModel("Student", "student", student, against_teacher["evaluation"], CANDIDATE))
    if gates.pushed:
        gate = drop_gate("pushed", settings, gates.pushed)
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
        examples=evaluated,
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
        teachers=teachers if any(teacher.warm_start for teacher in settings.teachers) else (),
    )
    pushed_model = add(pusher)["pushed_model"]
    report = Report(
        pipeline=settings.name,
        label=label,
        models=compared,
        examples=evaluated,
        blessing=blessing,
        infra_blessing=infra_blessing,
        pushed_model=pushed_model,
        settings=settings.model_dump_json(),
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
