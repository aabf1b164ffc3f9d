"""The stock Trainer takes one `base_model`; this one takes N teachers, or their soft targets."""

from collections.abc import Sequence
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import json_utils

from stillhouse.components.base import CODE, fingerprint_of, number_inputs
from stillhouse.components.distillation_trainer.executor import Executor


class DistillationTrainerSpec(types.ComponentSpec):
    """Inputs and outputs as the stock Trainer's, plus soft targets or teacher_1 .. teacher_N, and transfer examples."""

    PARAMETERS = {
        "run_fn": ExecutionParameter(type=str),
        "train_args": ExecutionParameter(type=trainer_pb2.TrainArgs),
        "eval_args": ExecutionParameter(type=trainer_pb2.EvalArgs),
        "custom_config": ExecutionParameter(type=str),
        CODE: ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
        "soft_targets": ChannelParameter(type=standard_artifacts.Examples, optional=True),
        "transfer_examples": ChannelParameter(type=standard_artifacts.Examples, optional=True),
        "base_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
    }


class DistillationTrainer(base_component.BaseComponent):
    """Trains a student from teachers by the same run_fn as every Trainer."""

    SPEC_CLASS = DistillationTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        run_fn: str,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        custom_config: dict[str, Any],
        teachers: Sequence[types.BaseChannel] = (),
        soft_targets: types.BaseChannel | None = None,
        transfer_examples: types.BaseChannel | None = None,
        base_model: types.BaseChannel | None = None,
        eval_splits: Sequence[str] = ("eval",),
    ):
        """Builds the node.

        Args:
          run_fn: import path of the training function.
          examples: transformed examples with the splits train and `eval_splits`.
          transform_graph: the Transform's output.
          custom_config: JSON-able; the executor adds where the inputs below are.
          teachers: Model channels; under "teachers" `run_fn` finds the SavedModels' folders.
          soft_targets: instead of teachers, what SoftTargets wrote; its folder, under "soft_targets".
          transfer_examples: transformed examples without labels; a file pattern, under "transfer_files", or, if the
            configuration has "matched", under "matched_files".
          base_model: the model to start from, as the stock Trainer's.
          eval_splits: the splits whose files are `eval_files`.
        """
        spec_class, numbered_teachers = number_inputs(self.SPEC_CLASS, {"teacher": teachers})
        spec = spec_class(
            run_fn=run_fn,
            train_args=trainer_pb2.TrainArgs(splits=["train"]),
            eval_args=trainer_pb2.EvalArgs(splits=list(eval_splits)),
            custom_config=json_utils.dumps(custom_config),
            examples=examples,
            transform_graph=transform_graph,
            soft_targets=soft_targets,
            transfer_examples=transfer_examples,
            base_model=base_model,
            model=types.Channel(type=standard_artifacts.Model),
            model_run=types.Channel(type=standard_artifacts.ModelRun),
            **numbered_teachers,
            **{CODE: fingerprint_of(type(self))},
        )
        super().__init__(spec=spec)
