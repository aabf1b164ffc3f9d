"""What a training has: network, optimiser, epochs; teachers and their ensemble."""

from typing import Any, Literal

from pydantic import Field, model_validator

from stillhouse.modules.settings.scaling import Checkpoints, Memory, Parallelism, Restarts, Strategy
from stillhouse.modules.settings.section import Section

Hyperparameters = dict[str, Any]


class Optimizer(Section):
    """The optimiser and its learning rate."""

    name: Literal["adam", "adamw", "nadam", "rmsprop", "sgd"] = Field("adam", description="A tf_keras optimiser.")
    learning_rate: float = Field(0.001, gt=0, description="The (initial) learning rate.")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: decays to zero over all updates of the training."
    )


class Start(Section):
    """A pre-trained network whose weights a training starts from, layer by layer, by their names."""

    pretraining: str = Field(description="Name of the pre-training.")
    layers: dict[str, str] = Field(
        {},
        description="Layers that start at one of another name, as {own: pre-trained}; the others start at that of "
        "their own name, or at random if there is none.",
    )


class TrainingSettings(Section):
    """The settings that a training takes along as they are, into the process that trains."""

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
        None, description="Function of the task module; default: build_teacher, build_student or build_language_model."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the hard term.")
    augment: bool = Field(False, description="Change the training inputs by the task's augment(features, seed).")


class Training(TrainingSettings):
    """What every training has."""

    warm_start: bool = Field(
        False, description="Start from the weights of the last pushed version, if it has the same shape."
    )
    start: Start | None = Field(None, description="A pre-trained network to start from.")

    @model_validator(mode="after")
    def _check_start(self):
        if self.start and self.warm_start:
            raise ValueError("start and warm_start: a training starts from one of them")
        return self

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
        # A file may spell out defaults, as that which a run leaves behind does.
        fields = Teacher.model_fields
        unused = {name for name in self.model_fields_set & of_no_use if getattr(self, name) != fields[name].default}
        if unused:
            which = "needs saved_model" if self.saved_model is None else "is of no use with saved_model"
            raise ValueError(f"{', '.join(sorted(unused))} {which}")
        if self.shard_copies and self.copies < 2:
            raise ValueError("shard_copies needs at least 2 copies")
        return self


Combination = Literal["arithmetic", "geometric", "logits"]


class Ensemble(Section):
    """How several teachers are combined to one."""

    combination: Combination = Field(
        "arithmetic", description="Mean of the softened distributions, their geometric mean, or mean of the logits."
    )


class WeightedEnsemble(Section):
    """The teachers of one training: `Ensemble`, and the weight of each of them."""

    weights: list[float]  # they need not sum to 1
    combination: Combination = "arithmetic"
