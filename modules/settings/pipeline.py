"""A pipeline: the whole settings file, and the rules between its sections."""

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from stillhouse.modules.settings.baseline import Baseline
from stillhouse.modules.settings.data import Beam, Data, Ingestion, Shard
from stillhouse.modules.settings.distillation import OBJECTIVES, Student
from stillhouse.modules.settings.evaluation import BOUNDED_METRICS, METRICS, Evaluation, Push
from stillhouse.modules.settings.kubeflow import Kubeflow
from stillhouse.modules.settings.pretraining import Pretraining
from stillhouse.modules.settings.scaling import CLUSTER_STRATEGIES
from stillhouse.modules.settings.section import Section
from stillhouse.modules.settings.training import Ensemble, Teacher, Training, WeightedEnsemble

PRETRAINING_NAME = r"[A-Za-z0-9_]+"  # it becomes part of a node's


class Settings(Section):
    """Top level of a settings file."""

    name: str = Field(
        pattern=r"^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$",
        description="Name of the pipeline: lower-case letters, digits and hyphens; at most 50 characters.",
    )
    task: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$",
        description="Import path of the task module; the settings file's folder is searched first.",
    )
    head: Literal["classification", "multi_label", "regression"] = Field(
        "classification",
        description="Kind of label: one class of several, several labels at once, or a number.",
    )
    data: Data
    preprocessing: dict[str, Any] = Field(
        {},
        description='Values passed to the task\'s preprocessing_fn as custom_config["preprocessing"].',
    )
    pretraining: dict[str, Pretraining] = Field(
        {}, description="Networks that other training jobs start from, by name; an entry may use earlier ones."
    )
    teachers: list[Teacher] = Field(min_length=1, description="Teachers, one entry per kind.")
    ensemble: Ensemble = Field(Ensemble(), description="How the outputs of several teachers are combined.")
    student: Student
    baseline: Baseline = Field(
        Baseline(), description="How the student's network is trained without teachers, to compare with."
    )
    ingestion: Ingestion = Field(Ingestion(), description="How training jobs read their examples.")
    evaluation: Evaluation = Field(Evaluation(), description="How models are evaluated and compared.")
    push: Push
    beam: Beam = Field(Beam(), description="How Beam runs the data steps.")
    kubeflow: Kubeflow = Field(Kubeflow(), description="How the pipeline runs on Kubeflow Pipelines.")

    @model_validator(mode="after")
    def _check_combinations(self):
        distillation, student = self.student.distillation, self.student
        metrics, objectives = METRICS[self.head], OBJECTIVES[self.head]
        if self.evaluation.metric not in (None, *metrics):
            raise ValueError(
                f"evaluation.metric: found {self.evaluation.metric!r}; expected for the head {self.head} one of: "
                f"{', '.join(metrics)}"
            )
        objective = distillation.objective
        if objective is not None and objective not in objectives and "." not in objective:
            raise ValueError(
                f"student.distillation.objective: found {objective!r}; expected for the head {self.head} one of: "
                f"{', '.join(objectives)}, or the import path of a function"
            )
        if self.head == "regression" and self.ensemble.combination == "geometric":
            raise ValueError("ensemble.combination: geometric is not valid for regression; set arithmetic")
        if self.head == "regression" and any(t.label_smoothing for t in [*self.teachers, student]):
            raise ValueError("label_smoothing: not valid for regression; remove it")
        clusters = {t.strategy.name for t in self.trainings()} & set(CLUSTER_STRATEGIES)
        if self.ingestion.service_workers and clusters:
            raise ValueError(f"ingestion.service_workers: not supported with {', '.join(sorted(clusters))}; set 0")
        if self.head != "classification" and student.omit_classes:
            raise ValueError(
                f"student.omit_classes: only valid with head: classification, found {self.head}; remove it"
            )
        if self.head != "classification":
            unfit = {"pseudo_labels": distillation.pseudo_labels, "head_per_teacher": distillation.head_per_teacher}
            for name in (name for name, value in unfit.items() if value):
                raise ValueError(
                    f"student.distillation.{name}: only valid with head: classification, found {self.head}; remove it"
                )
            if self.evaluation.query:
                raise ValueError(
                    f"evaluation.query: only valid with head: classification, found {self.head}; remove it"
                )
        for name in ("pseudo_labels", "pretraining"):
            if getattr(distillation, name) and self.data.transfer is None:
                raise ValueError(f"student.distillation.{name}: needs unlabelled examples; set data.transfer")
        if distillation.head_per_teacher and len(self.all_teachers()) < 2:
            raise ValueError("student.distillation.head_per_teacher: needs at least 2 teachers; found 1")
        self._check_starts()
        self._check_validation()
        self._check_baseline()
        if student.strategy.name == "parameter_server" and distillation.targets == "online":
            raise ValueError(
                "student.distillation.targets: online is not valid with parameter_server (TensorFlow loads no teacher "
                "onto parameter servers); set cached or another student.strategy"
            )
        teachers = self.all_teachers()
        for hint in distillation.hints:
            if hint.teacher > len(teachers):
                raise ValueError(
                    f"student.distillation.hints: found teacher {hint.teacher}; expected at most {len(teachers)}"
                )
            if teachers[hint.teacher - 1].saved_model:
                raise ValueError(
                    f"student.distillation.hints: teacher {hint.teacher} is a saved_model, whose hidden layers are "
                    "not accessible; remove the hint"
                )
        self._check_cached_targets()
        self._check_limits()
        return self

    def _check_cached_targets(self) -> None:
        distillation = self.student.distillation
        if distillation.targets_top and self.head != "classification":
            raise ValueError(
                f"student.distillation.targets_top: only valid with head: classification, found {self.head}; remove it"
            )
        if distillation.targets_top and self.objective == "logit_matching":
            raise ValueError(
                "student.distillation.targets_top: not valid with objective: logit_matching, which needs every logit; "
                "remove one of them"
            )
        if distillation.targets_dtype == "int8" and self.head == "regression":
            raise ValueError(
                "student.distillation.targets_dtype: int8 is not valid for regression (each number would need its own "
                "scale); set float32 or float16"
            )
        if distillation.folds is None:
            return
        if self.student.has_cached_views():
            raise ValueError(
                "student.distillation.folds: not valid with student.augment, mixup, noise or swap (the fold belongs to "
                "the unchanged example); remove one of them"
            )
        for number, teacher in enumerate(self.teachers):
            reasons = {
                "saved_model": (teacher.saved_model, "it cannot be trained without a fold"),
                "shard_copies": (teacher.shard_copies, "each copy sees only its own part"),
                "warm_start": (teacher.warm_start, "the pushed model has seen the examples of every fold"),
            }
            for key, (is_set, reason) in reasons.items():
                if is_set:
                    raise ValueError(
                        f"student.distillation.folds: not valid with teachers[{number}].{key} ({reason}); remove one "
                        "of them"
                    )

    def _check_limits(self) -> None:
        """Refuses limits that no student can fail."""
        gates, bounded = self.evaluation.gates, self.metric in BOUNDED_METRICS
        for name, gate in {"teacher": gates.teacher, "pushed": gates.pushed}.items():
            no_limit = self.evaluation.slices and gate and "max_drop_per_slice" not in gate.model_fields_set
            if self.head == "regression" and no_limit:
                raise ValueError(
                    f"evaluation.gates.{name}.max_drop_per_slice: slices of a regression need a limit in the unit of "
                    f"{self.metric}; set it, or null for none"
                )
            drops = {key: getattr(gate, key) for key in ("max_drop", "max_drop_per_slice")} if gate else {}
            for key, drop in drops.items():
                if bounded and drop is not None and drop >= 1:
                    raise ValueError(
                        f"evaluation.gates.{name}.{key}: found {drop:g}, but {self.metric} is between 0 and 1, so that "
                        "no student can fail; expected less than 1"
                    )
        if gates.baseline and bounded and not -1 < gates.baseline.min_gain <= 1:
            raise ValueError(
                f"evaluation.gates.baseline.min_gain: found {gates.baseline.min_gain:g}, but {self.metric} is between "
                "0 and 1; expected more than -1 and at most 1, or baseline: null for no gate"
            )
        if gates.fidelity and self.head == "regression":
            raise ValueError("evaluation.gates.fidelity: not valid with head: regression; remove it")

    def _check_baseline(self) -> None:
        """Refuses what is not valid together with the student's settings."""
        baseline, student = self.baseline, self.student
        if baseline.mixup and student.omit_classes:
            raise ValueError("baseline.mixup: not valid with student.omit_classes, which it would mix in; remove it")
        if student.swap and student.omit_classes and student.has_cached_views():
            raise ValueError(
                "student.swap: not valid with student.omit_classes and cached targets (values would come from omitted "
                "examples); remove one of them, or set student.distillation.targets: online"
            )
        first = student.distillation.pretraining
        if first and first.optimizer.average and student.strategy.name == "parameter_server":
            raise ValueError(
                "student.distillation.pretraining.optimizer.average: not supported with student.strategy.name: "
                "parameter_server; remove it"
            )
        if baseline.label_smoothing and self.head == "regression":
            raise ValueError("baseline.label_smoothing: not valid for regression; remove it")
        if baseline.optimizer and baseline.optimizer.average and student.strategy.name == "parameter_server":
            raise ValueError(
                "baseline.optimizer.average: not supported with student.strategy.name: parameter_server; remove it"
            )

    def _check_validation(self) -> None:
        if "validation" in self.data.splits:
            return
        stopped_early: dict[str, Any] = {f"pretraining.{name}": entry for name, entry in self.pretraining.items()}
        stopped_early |= {f"teachers[{number}]": teacher for number, teacher in enumerate(self.teachers)}
        for key_path, training in (stopped_early | {"student": self.student, "baseline": self.baseline}).items():
            if training.early_stopping:
                raise ValueError(f"{key_path}.early_stopping: needs a validation split; add it to data.splits")

    def _check_starts(self) -> None:
        existing_names: list[str] = []
        for name, pretraining in self.pretraining.items():
            key_path = f"pretraining.{name}"
            if not re.fullmatch(PRETRAINING_NAME, name):
                raise ValueError(f"{key_path}: found {name!r}; expected letters, digits and underscores")
            start, distillation = pretraining.start, pretraining.distillation
            named = {
                f"{key_path}.start.pretraining": start.pretraining if start else None,
                f"{key_path}.distillation.teacher": distillation.teacher if distillation else None,
            }
            for key, value in named.items():
                if value and value not in existing_names:
                    raise ValueError(
                        f"{key}: found {value!r}; expected an earlier entry: {', '.join(existing_names) or 'none'}"
                    )
            existing_names.append(name)
        trainings: dict[str, Training] = {
            f"teachers[{number}]": teacher for number, teacher in enumerate(self.teachers)
        }
        for key_path, training in (trainings | {"student": self.student}).items():
            if training.start and training.start.pretraining not in existing_names:
                raise ValueError(
                    f"{key_path}.start.pretraining: found {training.start.pretraining!r}; expected an entry of "
                    f"pretraining: {', '.join(existing_names) or 'none'}"
                )

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
        defaults = {Teacher: "build_teacher", Pretraining: "build_language_model"}
        return training.builder or defaults.get(type(training), "build_student")

    def baseline_training(self) -> Training:
        """Returns how the student's network is trained without teachers."""
        return self.baseline.training_of(self.student)

    def trainings(self) -> list[Training]:
        """Returns every training job's settings; a teacher's copies share one entry."""
        return [*self.pretraining.values(), *self.teachers, self.student]

    def builders(self) -> set[str]:
        """Returns the names of the task's functions that build networks."""
        return {self.builder_of(training) for training in self.trainings()}

    def weighted_ensemble(self) -> WeightedEnsemble:
        """Returns the teachers' combination, with the weight of each of `all_teachers`."""
        weights = [teacher.weight for teacher in self.all_teachers()]
        return WeightedEnsemble(weights=weights, combination=self.ensemble.combination)

    def shards(self) -> list[Shard | None]:
        """Returns the part of the train split for each of `all_teachers`; None: all of it."""
        return [
            Shard(index=copy, of=teacher.copies) if teacher.shard_copies else None
            for teacher in self.teachers
            for copy in range(teacher.copies)
        ]

    def all_teachers(self) -> list[Teacher]:
        """Returns one entry per teacher; each copy is an entry with its own seed."""
        return [
            teacher.model_copy(update={"copies": 1, "shard_copies": False, "seed": teacher.seed + copy})
            for teacher in self.teachers
            for copy in range(teacher.copies)
        ]

    def devices(self) -> int:
        """Returns the largest number of devices that a training job needs in one process."""
        trainings = self.trainings()
        stages = [1 if training.parallelism.processes else training.parallelism.stages for training in trainings]
        return max([training.strategy.devices or 1 for training in trainings] + stages)
