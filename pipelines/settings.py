"""The settings file as pydantic models: the one place where a setting is named, typed, documented, defaulted."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from modules.errors import UserError

Hyperparameters = dict[str, Any]

# Metrics that are defined for two classes; they are computed for class 1 against class 0.
BINARY_METRICS = ("AUC", "AUCPrecisionRecall")
# What the gates may compare, by head; the first is the default.
METRICS = {
    "classification": ("SparseCategoricalAccuracy", "SparseCategoricalCrossentropy", *BINARY_METRICS),
    "multi_label": ("MultiLabelAccuracy", "MultiLabelCrossentropy", "MultiLabelAUC"),
    "regression": ("MeanAbsoluteError", "MeanSquaredError"),
}
# What every model is reported with, whatever the gates compare.
REPORTED_METRICS = {
    "classification": ("SparseCategoricalAccuracy", "SparseCategoricalCrossentropy"),
    "multi_label": ("MultiLabelAccuracy", "MultiLabelCrossentropy"),
    "regression": ("MeanAbsoluteError", "MeanSquaredError"),
}
# As modules.distillation.objectives has them, which cannot be imported here without TensorFlow; a test compares.
OBJECTIVES = {
    "classification": ("kl_divergence", "soft_cross_entropy", "logit_matching"),
    "multi_label": ("kl_divergence", "soft_cross_entropy", "logit_matching"),
    "regression": ("squared_error",),
}


class Section(BaseModel):
    """A part of the settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    """Where the examples are and what is predicted."""

    path: str = Field(description="Folder of the data; may hold {SPAN} and {VERSION}, of which the newest is taken.")
    format: Literal["csv", "tfrecord", "parquet"] = Field("csv", description="Format of the files in the folder.")
    label: str = Field(description="The label column.")
    splits: dict[str, int | str] = Field(
        {"train": 4, "eval": 1},
        description="The splits train and eval: shares of the examples (by hash), or a file pattern below the path.",
    )
    transfer: str | None = Field(
        None,
        description="Folder of more examples in the same format, without labels, that the student learns from too.",
    )
    spans: int = Field(1, ge=1, description="Newest spans to train on together; models are compared on the newest.")
    schema_file: str | None = Field(
        None, alias="schema", description="A curated schema (schema.pbtxt); without it, one is inferred from the data."
    )

    @field_validator("splits")
    @classmethod
    def _check_splits(cls, splits):
        if set(splits) != {"train", "eval"}:
            raise ValueError(f"found {', '.join(splits) or 'nothing'}; exactly train and eval are allowed")
        if len({type(value) for value in splits.values()}) > 1:
            raise ValueError("either both are shares (integers) or both are file patterns")
        if any(isinstance(value, int) and value < 1 for value in splits.values()):
            raise ValueError("shares are at least 1")
        return splits

    @field_validator("path")
    @classmethod
    def _check_path(cls, path):
        if "{VERSION}" in path and "{SPAN}" not in path:
            raise ValueError("{VERSION} needs {SPAN} before it")
        return path

    @model_validator(mode="after")
    def _check_spans(self):
        if self.spans > 1 and "{SPAN}" not in self.path:
            raise ValueError(f"data.spans is {self.spans}, but data.path has no {{SPAN}}")
        return self


class Strategy(Section):
    """How a training is distributed."""

    name: Literal[
        "auto",
        "one_device",
        "mirrored",
        "central_storage",
        "multi_worker_mirrored",
        "parameter_server",
        "tpu",
    ] = Field(
        "one_device",
        description="The tf.distribute strategy; auto: a TPU, mirrored over several GPUs, or one_device, as there is.",
    )
    devices: int | None = Field(
        None,
        ge=1,
        description="Replicas of mirrored and central_storage: GPUs, or logical CPU devices; default: all GPUs, or "
        "one CPU.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Worker processes of multi_worker_mirrored and parameter_server; default 2. They are started on "
        "this machine, unless TF_CONFIG says that this process belongs to a cluster already.",
    )
    parameter_servers: int | None = Field(
        None, ge=1, le=64, description="Processes that keep the variables of parameter_server; default 1."
    )
    tpu: str | None = Field(None, description="Name or grpc:// address of a TPU; default: the one of this machine.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values):
        of_processes = {
            "multi_worker_mirrored": {"workers": 2},
            "parameter_server": {"workers": 2, "parameter_servers": 1},
        }
        if isinstance(values, dict):
            return of_processes.get(values.get("name"), {}) | values
        return values

    @model_validator(mode="after")
    def _check_use(self):
        if self.name == "one_device" and (self.devices or 1) > 1:
            raise ValueError(f"devices is {self.devices}, but one_device has one; for more, name mirrored")
        uses = {
            "devices": ("one_device", "mirrored", "central_storage"),
            "workers": ("multi_worker_mirrored", "parameter_server"),
            "parameter_servers": ("parameter_server",),
            "tpu": ("tpu",),
        }
        for key, names in uses.items():
            if getattr(self, key) is not None and self.name not in names:
                raise ValueError(f"{key} is of no use with {self.name}; it is for {', '.join(names)}")
        return self


class Checkpoints(Section):
    """What a training leaves on the way, so that it can go on where it was stopped."""

    every_steps: int = Field(500, ge=1, description="Updates between checkpoints: the most that is lost.")
    keep: int = Field(2, ge=1, description="Checkpoints to keep; if the newest is damaged, the one before is taken.")


class Restarts(Section):
    """What happens when a process of a training dies."""

    most: int = Field(3, ge=0, description="Restarts of a training's processes before it is given up.")
    back_off_seconds: float = Field(1.0, ge=0, description="Wait before the first restart; doubled for each one more.")


class Memory(Section):
    """How a training that does not fit into memory is made to fit."""

    micro_batches: int = Field(
        1, ge=1, description="Parts of a batch that pass one after the other; their gradients make one update."
    )
    rematerialise: Literal["none", "auto"] | list[str] = Field(
        "none",
        description="Compute activations again in the backward pass: auto, with the cuts that need the least memory, "
        "or the layers after which to cut.",
    )
    activation_budget_mb: float | None = Field(
        None, gt=0, description="Memory for activations; auto takes the fewest segments that fit."
    )
    swap: Literal["none", "auto"] | list[str] = Field(
        "none",
        description="Let activations wait in the host's memory for the backward pass, where the device is not the host "
        "(GPU): auto, with the cuts of rematerialise: auto, or the layers after which to cut.",
    )

    @model_validator(mode="after")
    def _check_cuts(self):
        if self.activation_budget_mb is not None and self.rematerialise != "auto":
            raise ValueError("memory.activation_budget_mb is of use with memory.rematerialise: auto only")
        for name in ("rematerialise", "swap"):
            if getattr(self, name) == []:
                raise ValueError(f"memory.{name}: name at least one layer, or none")
        if "none" not in (self.rematerialise, self.swap):
            raise ValueError("memory: activations are computed again (rematerialise) or swapped (swap), not both")
        return self


class Parallelism(Section):
    """How a network is cut into stages, which work on different micro-batches at the same time."""

    stages: int = Field(1, ge=1, le=64, description="Stages, each on a device of its own; 1: the network in one piece.")
    replicas: int = Field(
        1, ge=1, le=64, description="Replicas of the stages, which share each batch: data parallelism beside it."
    )
    micro_batches: int | None = Field(
        None,
        ge=1,
        description="Parts of a replica's batch; default: the least from four times the stages that divides it.",
    )
    schedule: Literal["gpipe", "1f1b"] = Field(
        "gpipe",
        description="All forward, then all backward; or 1f1b, which keeps the activations of fewer micro-batches.",
    )
    balance: Literal["time", "memory"] | list[int] = Field(
        "time", description="What the largest stage has least of, as measured; or the numbers of layers of the stages."
    )
    memory_budget_mb: float | None = Field(None, gt=0, description="Memory that a stage may have.")
    rematerialise: bool = Field(False, description="Stages compute their activations again, as GPipe does.")
    processes: bool = Field(
        False, description="Each stage in a process of its own, on this machine or where TF_CONFIG says."
    )


class Ingestion(Section):
    """How the trainings read their examples. The defaults are the fast ones; 0 lets tf.data tune a number."""

    cache: Literal["auto", "memory", "disk", "none"] = Field(
        "auto",
        description="Where examples are kept between epochs; auto: memory if they fit in memory_share, else disk.",
    )
    memory_share: float = Field(
        0.25, gt=0, le=1, description="Share of the free memory that auto lets the decoded examples have."
    )
    cache_folder: str | None = Field(
        None, description="Folder of cache: disk, and of files that max_corrupt_records mended; default: below --root."
    )
    interleave_files: int = Field(0, ge=0, description="Files that are read at the same time.")
    interleave_block: int = Field(64, ge=1, description="Examples that are taken from a file before the next one.")
    shuffle_buffer: int = Field(
        10_000, ge=1, description="Examples of the shuffle buffer of disk and none; memory shuffles all of them."
    )
    parallel_calls: int = Field(0, ge=0, description="Batches that are parsed at the same time.")
    deterministic: bool = Field(True, description="The same seed, the same order; false takes whatever is ready first.")
    prefetch: int = Field(0, ge=0, description="Batches that are ready before they are asked for.")
    ram_budget_mb: int = Field(0, ge=0, description="Memory that tf.data's tuning may use; 0: half of the machine's.")
    sharding: Literal["batch", "file"] = Field(
        "batch",
        description="What workers of multi_worker_mirrored share: each global batch, so that weights equal those of "
        "one device, or the files, so that each reads only its own.",
    )
    max_corrupt_records: int = Field(
        0, ge=0, description="Damaged records to leave out; with more, the training stops and names the first."
    )
    service_workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that read and parse (and augment) for the training, by tf.data service; 0: it does that "
        "itself. They need deterministic: false.",
    )

    @model_validator(mode="after")
    def _check_service(self):
        if self.service_workers and self.deterministic:
            raise ValueError("service_workers: their batches come as they are ready; set deterministic: false")
        if self.service_workers and self.cache == "memory":
            raise ValueError("service_workers: they read files; set cache: disk, or none")
        return self


class Optimizer(Section):
    """The optimiser and its learning rate."""

    name: Literal["adam", "adamw", "nadam", "rmsprop", "sgd"] = Field("adam", description="A tf_keras optimiser.")
    learning_rate: float = Field(0.001, gt=0, description="The (initial) learning rate.")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: decays to zero over all updates of the training."
    )


class Training(Section):
    """What every training has."""

    hyperparameters: Hyperparameters = Field({}, description="Keyword arguments of the task's build function.")
    epochs: int = Field(10, ge=1, description="Passes over the train split.")
    batch_size: int = Field(64, ge=1, description="Examples in an update, over all replicas.")
    seed: int = Field(1, ge=0, description="Seed of initial weights, shuffling and dropout.")
    optimizer: Optimizer = Field(Optimizer(), description="The optimiser.")
    strategy: Strategy = Field(Strategy(), description="How the training is distributed.")
    loop: Literal["fit", "custom"] = Field("fit", description="Keras fit, or a loop of our own around strategy.run.")
    checkpoints: Checkpoints = Field(Checkpoints(), description="What is left on the way, to go on from.")
    restarts: Restarts = Field(Restarts(), description="What happens when a process of the training dies.")
    memory: Memory = Field(Memory(), description="How a training that does not fit into memory is made to fit.")
    parallelism: Parallelism = Field(Parallelism(), description="How the network is cut into stages.")
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="What layers compute in; weights and losses are float32. mixed_float16 scales the loss.",
    )
    builder: str | None = Field(
        None, description="Function of the task module; default: build_teacher, or build_student for the student."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the hard term.")
    augment: bool = Field(False, description="Change the training inputs by the task's augment(features, seed).")
    warm_start: bool = Field(
        False, description="Start from the weights of the last pushed version, if it has the same shape."
    )

    @model_validator(mode="after")
    def _check_parallelism(self):
        if self.parallelism.stages > 1:
            if self.strategy.name != "one_device":
                raise ValueError(
                    f"parallelism.stages: stages do not go together with strategy.name: {self.strategy.name}; for "
                    "replicas of them set parallelism.replicas"
                )
            if self.memory != Memory():
                raise ValueError(
                    "memory is for a network in one piece; parallelism has micro_batches and rematerialise of its own"
                )
        elif self.parallelism != Parallelism():
            raise ValueError("parallelism: its settings are of use with at least 2 stages")
        return self


class Teacher(Training):
    """One teacher, several that differ by their seed, or one that exists already."""

    copies: int = Field(1, ge=1, le=100, description="So many teachers of this kind, with seeds seed, seed + 1, ...")
    shard_copies: bool = Field(False, description="Each copy sees an equal part of the train split, instead of all.")
    weight: float = Field(1.0, gt=0, description="Weight of each of them in the ensemble.")
    saved_model: str | None = Field(
        None, description="A SavedModel trained elsewhere, from transformed features to logits; nothing is trained."
    )
    signature: str = Field("logits", description="Signature of saved_model.")
    output: str | None = Field(None, description="Output of the signature; default: the only one.")
    outputs: Literal["auto", "logits", "probabilities"] = Field(
        "auto", description="What saved_model gives; probabilities are turned into logits. auto looks at the outputs."
    )

    @model_validator(mode="after")
    def _check_source(self):
        kept = {"saved_model", "signature", "output", "outputs", "weight"}
        of_no_use = (kept - {"weight"}) if self.saved_model is None else set(Teacher.model_fields) - kept
        unused = self.model_fields_set & of_no_use
        if unused:
            which = "needs saved_model" if self.saved_model is None else "is of no use with saved_model"
            raise ValueError(f"{', '.join(sorted(unused))} {which}")
        if self.shard_copies and self.copies < 2:
            raise ValueError("shard_copies needs at least 2 copies")
        return self


class Ensemble(Section):
    """How several teachers are combined to one."""

    combination: Literal["arithmetic", "geometric", "logits"] = Field(
        "arithmetic", description="Mean of the softened distributions, their geometric mean, or mean of the logits."
    )


class Schedule(Section):
    """A value that changes over the epochs; a plain number is the same in all of them."""

    start: float = Field(description="The value in the first epoch.")
    end: float = Field(description="The value in the last epoch.")
    schedule: Literal["linear", "cosine"] = Field("linear", description="The way from one to the other.")


def _constant(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"start": value, "end": value}
    if not isinstance(value, (dict, Schedule)):
        raise ValueError("a number, or {start, end, schedule}")
    return value


Scheduled = Annotated[Schedule, BeforeValidator(_constant)]


class Hint(Section):
    """A hidden layer of the student, guided by one of a teacher."""

    teacher: int = Field(1, ge=1, description="Number of the teacher; copies count one by one.")
    teacher_layer: str = Field(description="Name of the teacher's layer.")
    student_layer: str = Field(description="Name of the student's layer.")
    kind: Literal["mean_squared", "cosine"] = Field("mean_squared", description="FitNets' hint, or DistilBERT's.")
    weight: float = Field(1.0, gt=0, description="Weight of the hint beside the objective.")
    projection: bool | None = Field(
        None,
        description="Whether a learned projection bridges the widths of the two layers; default: if they differ.",
    )


class Distillation(Section):
    """How the student learns from the teachers: L = (1 - alpha) hard + alpha T² soft, plus hints."""

    objective: str | None = Field(
        None,
        description="The soft term: kl_divergence, soft_cross_entropy or logit_matching, for a regression "
        "squared_error, or the import path of a function; default: the first that fits the head.",
    )
    temperature: Scheduled = Field(
        Schedule(start=4.0, end=4.0), description="T > 0, by which logits are divided in the soft term, or a schedule."
    )
    alpha: Scheduled = Field(
        Schedule(start=0.9, end=0.9),
        description="Weight of the soft term, 0 to 1; the hard term has 1 - alpha; or a schedule.",
    )
    hints: list[Hint] = Field([], description="Hidden layers to be guided by teachers' layers.")
    targets: Literal["cached", "online"] = Field(
        "cached", description="Ask the teachers once and write down what they say, or ask them in every step."
    )
    targets_dtype: Literal["float32", "float16"] = Field("float32", description="Of the logits that are written down.")
    teacher_batch_size: int = Field(512, ge=1, description="Examples that teachers are asked about at a time.")
    dark_knowledge: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0, 2.0, 5.0, 10.0],
        description="Temperatures at which to look into the soft targets of classes; [] does not.",
    )

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, schedule):
        if min(schedule.start, schedule.end) <= 0:
            raise ValueError("greater than 0")
        return schedule

    @field_validator("alpha")
    @classmethod
    def _check_alpha(cls, schedule):
        if min(schedule.start, schedule.end) < 0 or max(schedule.start, schedule.end) > 1:
            raise ValueError("between 0 and 1")
        return schedule


class Student(Training):
    """The student."""

    omit_classes: list[int] = Field(
        [], description="Class ids left out of the student's (and baseline's) training (Hinton's omitted digit)."
    )
    distillation: Distillation = Field(Distillation(), description="How it learns from the teachers.")


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
        description="The metric of the gates; default: the first that fits the head. The AUCs are for two classes.",
    )
    slices: list[str | list[str]] = Field([], description="Raw columns by whose values to slice; a list crosses them.")
    gates: Gates = Field(Gates(), description="What the student has to pass.")


class Push(Section):
    """Where a student that passed is shipped."""

    path: str = Field(description="Folder that gets a new version (a number) with each push; TensorFlow Serving's.")


class Beam(Section):
    """How Beam runs the data steps."""

    options: list[str] = Field([], description="Beam pipeline options, such as --runner=FlinkRunner.")


class Volume(Section):
    """A volume that every container sees."""

    claim: str = Field(description="Name of the PersistentVolumeClaim.")
    mount: str = Field(pattern="^/", description="Where it is mounted.")


class Resources(Section):
    """What a container gets; 0 leaves it to the cluster."""

    cpu_request: float = Field(0.0, ge=0, description="Cores that are kept free for it.")
    cpu_limit: float = Field(0.0, ge=0, description="Cores that it may use.")
    memory_request_gb: float = Field(0.0, ge=0, description="Gigabytes that are kept free for it.")
    memory_limit_gb: float = Field(0.0, ge=0, description="Gigabytes that it may use.")
    gpus: int = Field(0, ge=0, description="GPUs.")
    gpu_type: str = Field("nvidia.com/gpu", description="Kind of the GPUs, as the cluster's resource is called.")
    node_selector: dict[str, str] = Field({}, description="Labels of the nodes that it may run on.")


class Retries(Section):
    """What happens when a container fails."""

    most: int = Field(2, ge=0, description="Times that it is started again.")
    back_off_seconds: float = Field(30.0, gt=0, description="Wait before the first time.")
    factor: float = Field(2.0, ge=1, description="By which the wait grows.")
    most_back_off_seconds: float = Field(600.0, gt=0, description="Longest wait.")


class Kubeflow(Section):
    """How the pipeline runs on Kubeflow Pipelines."""

    pipeline_root: str = Field(
        "minio://mlpipeline/v2/artifacts", description="Where artifacts are kept: minio://, s3:// or gs://."
    )
    cache: bool = Field(True, description="Take what has not changed from earlier runs.")
    retries: Retries = Field(Retries(), description="What happens when a container fails.")
    resources: dict[str, Resources] = Field(
        {}, description="By node (Teacher-1), kind of node (Teacher, Evaluator), or default."
    )
    volumes: list[Volume] = Field([], description="Volumes that every container sees.")
    checkpoints: str | None = Field(
        None, description="Folder for checkpoints, on a volume or gs://, so that a retry goes on where it stopped."
    )


class Settings(Section):
    """A pipeline."""

    name: str = Field(
        pattern=r"^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$",
        description="Name of the pipeline: lower-case letters, digits and hyphens, 50 at the most.",
    )
    task: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$",
        description="Import path of the task module; looked for beside the settings file first.",
    )
    head: Literal["classification", "multi_label", "regression"] = Field(
        "classification",
        description="What the label is: one class of several, labels that may hold together, a number.",
    )
    data: Data
    teachers: list[Teacher] = Field(min_length=1, description="One entry per kind of teacher.")
    ensemble: Ensemble = Field(Ensemble(), description="How several teachers are combined to one.")
    student: Student
    ingestion: Ingestion = Field(Ingestion(), description="How the trainings read their examples.")
    evaluation: Evaluation = Field(Evaluation(), description="How models are compared.")
    push: Push
    beam: Beam = Field(Beam(), description="How Beam runs the data steps.")
    kubeflow: Kubeflow = Field(Kubeflow(), description="How the pipeline runs on Kubeflow Pipelines.")

    @model_validator(mode="after")
    def _check_combinations(self):
        distillation, student = self.student.distillation, self.student
        metrics, objectives = METRICS[self.head], OBJECTIVES[self.head]
        if self.evaluation.metric not in (None, *metrics):
            raise ValueError(
                f"evaluation.metric: found {self.evaluation.metric!r}; allowed for the head {self.head}: "
                f"{', '.join(metrics)}"
            )
        objective = distillation.objective
        if objective is not None and objective not in objectives and "." not in objective:
            raise ValueError(
                f"student.distillation.objective: found {objective!r}; allowed for the head {self.head}: "
                f"{', '.join(objectives)}, or the import path of a function"
            )
        if self.head == "regression" and self.ensemble.combination == "geometric":
            raise ValueError("ensemble.combination: geometric is for distributions; numbers have arithmetic")
        if self.head == "regression" and any(t.label_smoothing for t in [*self.teachers, student]):
            raise ValueError("label_smoothing: a regression has none")
        clusters = {t.strategy.name for t in [*self.teachers, student]} & {"multi_worker_mirrored", "parameter_server"}
        if self.ingestion.service_workers and clusters:
            raise ValueError(
                f"ingestion.service_workers: the workers of {', '.join(sorted(clusters))} read for themselves"
            )
        if self.head != "classification" and student.omit_classes:
            raise ValueError(f"student.omit_classes: the head {self.head} has no classes to omit")
        if student.augment and distillation.targets == "cached":
            raise ValueError(
                "student.augment: cached targets are those of the unchanged inputs; set "
                "student.distillation.targets: online"
            )
        if student.strategy.name == "parameter_server" and distillation.targets == "online":
            raise ValueError(
                "student.distillation.targets: TensorFlow does not load teachers onto parameter servers; set cached, "
                "or another student.strategy"
            )
        teachers = self.all_teachers()
        for hint in distillation.hints:
            if hint.teacher > len(teachers):
                raise ValueError(
                    f"student.distillation.hints: there is no teacher {hint.teacher}, only {len(teachers)}"
                )
            if teachers[hint.teacher - 1].saved_model:
                raise ValueError(
                    f"student.distillation.hints: teacher {hint.teacher} is a saved_model, whose hidden layers are "
                    "not seen"
                )
        return self

    @property
    def metric(self) -> str:
        """The metric of the gates."""
        return self.evaluation.metric or METRICS[self.head][0]

    @property
    def objective(self) -> str:
        """The soft term of the distillation."""
        return self.student.distillation.objective or OBJECTIVES[self.head][0]

    def builder_of(self, training: Training) -> str:
        """Returns the name of the task's function that builds the network of a training."""
        return training.builder or ("build_teacher" if isinstance(training, Teacher) else "build_student")

    def builders(self) -> set[str]:
        """Returns the names of all functions of the task that build networks."""
        return {self.builder_of(training) for training in [*self.teachers, self.student]}

    def shards(self) -> list[dict[str, int] | None]:
        """Returns, for each of `all_teachers`, the part {index, of} of the train split that it sees; None: all."""
        return [
            {"index": copy, "of": teacher.copies} if teacher.shard_copies else None
            for teacher in self.teachers
            for copy in range(teacher.copies)
        ]

    def all_teachers(self) -> list[Teacher]:
        """Returns one entry per teacher: copies are spelt out, each with a seed of its own."""
        return [
            teacher.model_copy(update={"copies": 1, "shard_copies": False, "seed": teacher.seed + copy})
            for teacher in self.teachers
            for copy in range(teacher.copies)
        ]

    def devices(self) -> int:
        """Returns the largest number of devices that any training wants in one process."""
        trainings = [*self.teachers, self.student]
        stages = [1 if of.parallelism.processes else of.parallelism.stages for of in trainings]
        return max([training.strategy.devices or 1 for training in trainings] + stages)


class _Loader(yaml.SafeLoader):
    """The safe loader, which also takes 1e-3 for a number as YAML 1.2 does; YAML 1.1 wants 1.0e-3."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _section_at(location: tuple) -> type[BaseModel] | None:
    """Returns the section that holds the key at `location`, if it is one."""
    section = Settings
    for key in location[:-1]:
        if isinstance(key, int):
            continue
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        if key not in fields:
            return None
        kinds = [fields[key].annotation, *getattr(fields[key].annotation, "__args__", ())]
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not sections:
            return None
        section = sections[0]
    return section


def _path_of(location: tuple) -> str:
    path = ""
    for key in location:
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
    return path


def _explain(error: dict) -> str:
    """Returns one line for an error of pydantic's: the key's path, what was found, what is allowed."""
    location = error["loc"]
    if not location:  # a combination of settings, whose message names them
        return error["msg"].removeprefix("Value error, ")
    section = _section_at(location)
    fields = {field.alias or name: field for name, field in section.model_fields.items()} if section else {}
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), fields, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{_path_of(location)}: unknown key{hint} (allowed here: {', '.join(fields)})"
    description = f" ({fields[location[-1]].description})" if location[-1] in fields else ""
    if error["type"] == "missing":
        return f"{_path_of(location)}: missing{description}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{_path_of(location)}: found {error['input']!r}; allowed: {message}{description}"


def parse_settings(raw: Any, source: str) -> Settings:
    """Returns the settings in the mapping `raw`; `source` is named in errors.

    Raises:
      UserError: one line per mistake, with the key's path, what was found and what is allowed.
    """
    if not isinstance(raw, dict):
        raise UserError(f"{source}: expected a mapping of settings, found {type(raw).__name__}")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors()]
        raise UserError("\n".join(f"{source}: {line}" for line in lines)) from error


def apply_override(raw: dict, override: str) -> None:
    """Sets one key in `raw` by "key.path=value"; the value is YAML, list items are numbered: teachers.0.epochs=5.

    Raises:
      UserError: the override is no key=value, or its path runs through something that is no section.
    """
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise UserError(f"--set {override}: expected KEY=VALUE, such as student.epochs=5")
    try:
        parsed = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not YAML: {error}") from error
    *parents, last = path.replace("[", ".").replace("]", "").split(".")
    target: Any = raw
    for done, key in enumerate(parents, start=1):
        if isinstance(target, list) and key.isdigit() and int(key) < len(target):
            target = target[int(key)]
        elif isinstance(target, dict):
            if target.get(key) is None:
                target[key] = {}
            target = target[key]
        else:
            raise UserError(f"--set {override}: there is no {'.'.join(parents[:done])} in the settings")
    if isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = parsed
    elif isinstance(target, dict):
        target[last] = parsed
    else:
        raise UserError(f"--set {override}: there is no {path} in the settings")


def load_settings(path: Path, overrides: list[str] | None = None) -> Settings:
    """Reads the settings file `path` and applies `overrides` ("key.path=value").

    Raises:
      UserError: the file cannot be read, is no YAML, or its settings are mistaken.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    for override in overrides or []:
        if not isinstance(raw, dict):
            break
        apply_override(raw, override)
    return parse_settings(raw, str(path))
