"""Settings of a training job (network, optimiser, epochs), of teachers and of their ensemble."""

from typing import Any, Literal

from pydantic import Field, model_validator

from stillhouse.modules.settings.input_changes import InputChanges
from stillhouse.modules.settings.scaling import Checkpoints, Memory, Parallelism, Restarts, Strategy
from stillhouse.modules.settings.section import Section

Hyperparameters = dict[str, Any]


class Optimizer(Section):
    """Optimiser and learning rate."""

    name: Literal["adam", "adamw", "nadam", "rmsprop", "sgd"] = Field(
        "adam", description="Name of a tf_keras optimiser."
    )
    learning_rate: float = Field(0.001, gt=0, description="Initial learning rate.")
    schedule: Literal["constant", "cosine", "exponential"] = Field(
        "constant",
        description="Learning rate over all updates; cosine, exponential: from learning_rate to final_learning_rate.",
    )
    final_learning_rate: float | None = Field(
        None,
        ge=0,
        description="Learning rate after the last update; null: 0 with cosine. exponential requires one; a larger one "
        "than learning_rate makes a learning-rate range test (Smith 2017).",
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="Fraction of all updates over which the learning rate rises from 0; 0: none."
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        description="Decoupled weight decay, times the learning rate in each update, of all weights but biases and "
        "normalisation; null: none, or adamw's 0.004.",
    )
    clip_norm: float | None = Field(
        None, gt=0, description="Maximum norm of all gradients of an update together; null: no clipping."
    )
    average: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Momentum of an exponential moving average of the weights, validated and exported in their place; "
        "null: none.",
    )

    @model_validator(mode="after")
    def _check_schedule(self):
        if self.schedule == "constant" and self.final_learning_rate is not None:
            raise ValueError("final_learning_rate: not valid with schedule: constant; set cosine or exponential")
        if self.schedule == "exponential" and not self.final_learning_rate:
            raise ValueError("final_learning_rate: schedule: exponential needs one above 0; set it")
        return self


class Start(Section):
    """Initialisation from a pre-trained network, layer by layer, by layer name."""

    pretraining: str = Field(description="Name of the pre-training entry.")
    layers: dict[str, str] = Field(
        {},
        description="Names that differ, as {own layer: pre-trained layer}; other layers start from the layer of the "
        "same name, or at random without one.",
    )


class TrainingSettings(InputChanges):
    """Settings of a training job that are passed unchanged to its process."""

    hyperparameters: Hyperparameters = Field({}, description="Keyword arguments of the task's build function.")
    epochs: int = Field(10, ge=1, description="Number of passes over the train split.")
    batch_size: int = Field(64, ge=1, description="Examples per update, over all replicas.")
    seed: int = Field(1, ge=0, description="Random seed of initial weights, shuffling and dropout.")
    optimizer: Optimizer = Field(Optimizer(), description="Optimiser and learning rate.")
    strategy: Strategy = Field(Strategy(), description="Distribution over devices and processes.")
    loop: Literal["fit", "custom"] = Field(
        "fit", description="Training loop: Keras fit, or stillhouse's own around strategy.run."
    )
    checkpoints: Checkpoints = Field(Checkpoints(), description="Checkpoint interval and number kept.")
    restarts: Restarts = Field(Restarts(), description="Restarts of a process that dies or hangs.")
    memory: Memory = Field(Memory(), description="Ways to reduce the memory of training.")
    parallelism: Parallelism = Field(Parallelism(), description="Pipeline stages and their replicas.")
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="Data type of computations; weights and losses are float32; mixed_float16 scales the loss.",
    )
    builder: str | None = Field(
        None, description="Function of the task module; null: build_teacher, build_student or build_language_model."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Label smoothing of the hard term; 0: none. Not valid for regression."
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="Weights that are exported: those of the epoch that the validation split likes best, or of the "
        "last; without data.splits.validation always the last.",
    )
    early_stopping: int | None = Field(
        None,
        ge=1,
        description="Number of epochs without a better one on the validation split after which training ends; null: "
        "trains all epochs. Requires data.splits.validation.",
    )


class Training(TrainingSettings):
    """Settings of every training job."""

    warm_start: bool = Field(
        False, description="Start from the weights of the last pushed version if shapes and vocabularies are unchanged."
    )
    start: Start | None = Field(None, description="Pre-trained network to start from; null: random weights.")

    @model_validator(mode="after")
    def _check_start(self):
        if self.start and self.warm_start:
            raise ValueError("start, warm_start: exclusive; remove one of them")
        return self

    @model_validator(mode="after")
    def _check_average(self):
        if self.optimizer.average and self.strategy.name == "parameter_server":
            raise ValueError("optimizer.average: not supported with strategy.name: parameter_server; remove it")
        return self

    @model_validator(mode="after")
    def _check_parallelism(self):
        if self.parallelism.stages > 1:
            if self.strategy.name != "one_device":
                raise ValueError(
                    f"parallelism.stages: not valid with strategy.name: {self.strategy.name}; for replicas of the "
                    "stages set parallelism.replicas"
                )
            if self.memory != Memory():
                raise ValueError(
                    "memory: not valid with parallelism.stages above 1; set parallelism.micro_batches and "
                    "parallelism.rematerialise instead"
                )
        elif self.parallelism != Parallelism():
            raise ValueError("parallelism: only valid with stages of at least 2; set stages or remove the rest")
        return self


class Teacher(Training):
    """One teacher, several that differ in their seed, or an existing model."""

    copies: int = Field(
        1, ge=1, le=100, description="Number of teachers from this entry, with the seeds seed, seed + 1, ..."
    )
    shard_copies: bool = Field(
        False, description="Train each copy on an equal part of the train split; requires at least 2 copies."
    )
    weight: float = Field(1.0, gt=0, description="Weight of each of these teachers in the ensemble.")
    saved_model: str | None = Field(
        None,
        description="Path of a SavedModel from transformed features to logits, used without training; null: train one.",
    )
    signature: str = Field("logits", description="Signature of saved_model to call.")
    output: str | None = Field(None, description="Output of the signature; null: its only output.")
    outputs: Literal["auto", "logits", "probabilities"] = Field(
        "auto",
        description="Kind of saved_model's outputs; auto: detected from values; probabilities become logits.",
    )

    @model_validator(mode="after")
    def _check_source(self):
        saved_model_fields = {"saved_model", "signature", "output", "outputs", "weight"}
        fields = Teacher.model_fields
        invalid = (saved_model_fields - {"weight"}) if self.saved_model is None else set(fields) - saved_model_fields
        # A file may spell out defaults, as that which a run leaves behind does.
        unused = {name for name in self.model_fields_set & invalid if getattr(self, name) != fields[name].default}
        if unused:
            names = ", ".join(sorted(unused))
            if self.saved_model is None:
                raise ValueError(f"{names}: needs saved_model; set it or remove {names}")
            raise ValueError(f"{names}: not valid with saved_model; remove {names}")
        if self.shard_copies and self.copies < 2:
            raise ValueError("shard_copies: needs at least 2 copies; raise copies or remove shard_copies")
        return self


Combination = Literal["arithmetic", "geometric", "logits"]


class Ensemble(Section):
    """How the outputs of several teachers are combined."""

    combination: Combination = Field(
        "arithmetic", description="Arithmetic or geometric mean of the softened distributions, or mean of the logits."
    )


class WeightedEnsemble(Section):
    """The ensemble of a training job: combination, and the weight of each teacher."""

    weights: list[float]  # they need not sum to 1
    combination: Combination = "arithmetic"
