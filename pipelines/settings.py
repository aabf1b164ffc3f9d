"""The settings file as pydantic models: the one place where a setting is named, typed, documented, defaulted."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from modules.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Hyperparameters = dict[str, Any]

# Metrics that are defined for two classes; they are computed for class 1 against class 0.
BINARY_METRICS = ("AUC", "AUCPrecisionRecall")


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


class Strategy(Section):
    """How a training is distributed."""

    name: Literal["one_device", "mirrored"] = Field("one_device", description="The tf.distribute strategy.")
    devices: int | None = Field(
        None, ge=1, description="Replicas of mirrored: GPUs, or logical CPU devices; default: all GPUs, or one CPU."
    )

    @model_validator(mode="after")
    def _check_devices(self):
        if self.name == "one_device" and (self.devices or 1) > 1:
            raise ValueError(f"devices is {self.devices}, but one_device has one; for more, name mirrored")
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


class Teacher(Training):
    """One teacher, or several that differ by their seed."""

    copies: int = Field(1, ge=1, le=100, description="So many teachers of this kind, with seeds seed, seed + 1, ...")


class Distillation(Section):
    """How the student learns from the teachers: L = (1 - alpha) hard + alpha T² soft."""

    objective: Literal["kl_divergence"] = Field("kl_divergence", description="The soft term.")
    temperature: float = Field(4.0, gt=0, description="T, by which logits are divided in the soft term.")
    alpha: Fraction = Field(0.9, description="Weight of the soft term; the hard term has 1 - alpha.")


class Student(Training):
    """The student."""

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

    metric: Literal["SparseCategoricalAccuracy", "SparseCategoricalCrossentropy", "AUC", "AUCPrecisionRecall"] = Field(
        "SparseCategoricalAccuracy", description="The metric of the gates; the AUCs are for two classes."
    )
    slices: list[str | list[str]] = Field([], description="Raw columns by whose values to slice; a list crosses them.")
    gates: Gates = Field(Gates(), description="What the student has to pass.")


class Push(Section):
    """Where a student that passed is shipped."""

    path: str = Field(description="Folder that gets a new version (a number) with each push; TensorFlow Serving's.")


class Beam(Section):
    """How Beam runs the data steps."""

    options: list[str] = Field([], description="Beam pipeline options, such as --runner=FlinkRunner.")


class Settings(Section):
    """A pipeline."""

    name: str = Field(
        pattern=r"^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$",
        description="Name of the pipeline: lower-case letters, digits and hyphens.",
    )
    task: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$",
        description="Import path of the task module; looked for beside the settings file first.",
    )
    data: Data
    teachers: list[Teacher] = Field(min_length=1, description="One entry per kind of teacher.")
    student: Student
    evaluation: Evaluation = Field(Evaluation(), description="How models are compared.")
    push: Push
    beam: Beam = Field(Beam(), description="How Beam runs the data steps.")

    def all_teachers(self) -> list[Teacher]:
        """Returns one entry per teacher to train: copies are spelt out, each with a seed of its own."""
        return [
            teacher.model_copy(update={"copies": 1, "seed": teacher.seed + copy})
            for teacher in self.teachers
            for copy in range(teacher.copies)
        ]

    def replicas(self) -> int:
        """Returns the largest number of replicas that any training wants."""
        return max(training.strategy.devices or 1 for training in [*self.teachers, self.student])


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
