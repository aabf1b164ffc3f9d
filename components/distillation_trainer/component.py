"""The stock Trainer takes one `base_model`; this one takes N teachers."""

from collections.abc import Sequence
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import json_utils

from components.distillation_trainer.executor import Executor
from components.numbered_inputs import numbered, with_numbered_inputs


class DistillationTrainerSpec(types.ComponentSpec):
    """Inputs and outputs as the stock Trainer's, plus teacher_1 .. teacher_N."""

    PARAMETERS = {
        "run_fn": ExecutionParameter(type=str),
        "train_args": ExecutionParameter(type=trainer_pb2.TrainArgs),
        "eval_args": ExecutionParameter(type=trainer_pb2.EvalArgs),
        "custom_config": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
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
        teachers: Sequence[types.BaseChannel],
        custom_config: dict[str, Any],
    ):
        """Builds the node.

        Args:
          run_fn: import path of the training function.
          examples: transformed examples with the splits train and eval.
          transform_graph: the Transform's output.
          teachers: Model channels of at least one teacher.
          custom_config: JSON-able; `run_fn` finds in it, under "teachers", the SavedModels' folders.
        """
        spec_class = with_numbered_inputs(self.SPEC_CLASS, teacher=(len(teachers), standard_artifacts.Model))
        spec = spec_class(
            run_fn=run_fn,
            train_args=trainer_pb2.TrainArgs(splits=["train"]),
            eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
            custom_config=json_utils.dumps(custom_config),
            examples=examples,
            transform_graph=transform_graph,
            model=types.Channel(type=standard_artifacts.Model),
            model_run=types.Channel(type=standard_artifacts.ModelRun),
            **numbered("teacher", teachers),
        )
        super().__init__(spec=spec)
