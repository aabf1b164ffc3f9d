"""The nodes of a pipeline as they are added one by one, and what all trainings of one have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tfx.components import Trainer
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.proto import trainer_pb2
from tfx.types import BaseChannel

from stillhouse.components.distillation_trainer import DistillationTrainer
from stillhouse.components.last_pushed import LastPushed
from stillhouse.modules.code_fingerprint import code_fingerprint
from stillhouse.modules.settings import Settings, Training, TrainingSettings
from stillhouse.modules.training.config import TrainingConfig

RUN_FN = "stillhouse.modules.training.launch.run_fn"
# Beam's own runner in this process. Without a word its DirectRunner looks for Prism first, a binary to download.
BEAM_OPTIONS = (
    "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    # This runner has no containers. Where no way is named by which workers get TFX, every executor packs TFX's sources
    # for them: two seconds and 48 MB in the temporary folder that nobody removes.
    "--sdk_container_image=none",
)


@dataclass(frozen=True)
class PipelinePaths:
    """Where a pipeline's artifacts, metadata and pushes go: what differs between runners."""

    root: str
    data_path: str
    push_path: str
    metadata_path: str
    schema_path: str | None = None
    transfer_path: str | None = None
    saved_models: dict[str, str] = field(default_factory=dict)  # where each teachers[].saved_model is
    beam_options: list[str] = field(default_factory=list)
    checkpoints: str | None = None  # folder of trainings that are under way; None: they start over
    cache: str | None = None  # folder of ingestion.cache: disk
    commit: str = ""  # of the version control that the pipeline stands in


@dataclass
class Dag:
    """The nodes so far, and the data that every training reads."""

    settings: Settings
    paths: PipelinePaths
    nodes: list[BaseComponent] = field(default_factory=list)
    raw: BaseChannel = field(init=False, repr=False)  # what ExampleGen gives
    evaluated: BaseChannel = field(init=False, repr=False)  # raw examples that models are compared on
    data: dict[str, BaseChannel] = field(default_factory=dict)  # transformed examples, transform_graph
    transfer: BaseChannel | None = None  # transformed examples without labels
    described: dict[str, BaseChannel] = field(default_factory=dict)  # by statistics, schema, anomalies, dark_knowledge
    fold_teachers: list[BaseChannel] = field(default_factory=list)  # models, teacher by teacher, each by fold
    pretrained: dict[str, BaseChannel] = field(default_factory=dict)  # models by the names in settings.pretraining

    def add(self, component: BaseComponent, name: str | None = None) -> dict[str, BaseChannel]:
        """Adds a node and returns its outputs."""
        self.nodes.append(component.with_id(name) if name else component)
        return dict(component.outputs)

    @property
    def eval_splits(self) -> list[str]:
        """The splits that a training job does not learn from."""
        return sorted(set(self.settings.data.splits) - {"train"})

    @cached_property
    def own_code(self) -> str:
        """Fingerprint of all code of ours that trains."""
        return code_fingerprint(RUN_FN.rpartition(".")[0])

    def config(self, name: str, role: str, training: Training, **changes) -> TrainingConfig:
        """Returns what a training needs; `changes` are in the place of what the settings say."""
        settings, paths = self.settings, self.paths
        builder = settings.builder_of(training)
        cache_folder = settings.ingestion.cache_folder or paths.cache
        other_builders = settings.builders() - {builder}
        task_code = code_fingerprint(settings.task, without=("preprocessing_fn", *other_builders))
        fields = {field: getattr(training, field) for field in TrainingSettings.model_fields}
        fields |= {
            "name": name,
            "role": role,
            "task": settings.task,
            "label": settings.data.label,
            "head": settings.head,
            "builder": builder,
            "ingestion": settings.ingestion.model_copy(update={"cache_folder": cache_folder}),
            "checkpoint_folder": f"{paths.checkpoints}/{name}" if paths.checkpoints else None,
            "start": training.start,
            "code": self.own_code + task_code,
        }
        return TrainingConfig.model_validate(fields | changes)

    def trainer(self, config: TrainingConfig, base_model: BaseChannel | None = None) -> BaseChannel:
        """Adds the stock Trainer and returns its model."""
        trainer = Trainer(
            run_fn=RUN_FN,
            custom_config=config.model_dump(mode="json"),
            base_model=base_model,
            train_args=trainer_pb2.TrainArgs(splits=["train"]),
            eval_args=trainer_pb2.EvalArgs(splits=self.eval_splits),
            examples=self.data["examples"],
            transform_graph=self.data["transform_graph"],
        )
        return self.add(trainer, config.name)["model"]

    def distillation_trainer(
        self,
        config: TrainingConfig,
        base_model: BaseChannel | None,
        transfer: BaseChannel | None,
        teachers: Sequence[BaseChannel] = (),
        soft_targets: BaseChannel | None = None,
    ) -> BaseChannel:
        """Adds a Trainer that has teachers, or their soft targets, or unlabelled examples, and returns its model."""
        trainer = DistillationTrainer(
            run_fn=RUN_FN,
            custom_config=config.model_dump(mode="json"),
            transfer_examples=transfer,
            base_model=base_model,
            teachers=teachers,
            soft_targets=soft_targets,
            eval_splits=self.eval_splits,
            **self.data,
        )
        return self.add(trainer, config.name)["model"]

    def start_of(self, name: str, training: Training, folder: str = "") -> BaseChannel | None:
        """Returns the model that a training starts from: pre-trained, pushed before, or none."""
        if training.start:
            return self.pretrained[training.start.pretraining]
        if not training.warm_start:
            return None
        pushed = LastPushed(self.paths.push_path, examples=self.raw, folder=folder)
        return self.add(pushed, f"WarmStart.{name}")["model"]
