"""Runs the teachers once, so that any number of students, temperatures and objectives train without a teacher."""

from collections.abc import Sequence

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import BaseChannel, standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.soft_targets.executor import Executor, SoftTargetsParameters
from stillhouse.components.soft_targets.views import ViewsOfExamples


class SoftTargets(base_beam_component.BaseBeamComponent):
    """Writes the teachers' logits for the train split, and for transfer examples if there are any."""

    SPEC_CLASS = declare(
        "SoftTargetsSpec",
        SoftTargetsParameters,
        inputs={"examples": standard_artifacts.Examples, "transform_graph": standard_artifacts.TransformGraph},
        optional_inputs={"transfer_examples": standard_artifacts.Examples},
        outputs={"soft_targets": standard_artifacts.Examples},
    )
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        teachers: Sequence[BaseChannel],
        examples: BaseChannel,
        transform_graph: BaseChannel,
        label: str,
        head: str = "classification",
        dtype: str = "float32",
        batch_size: int = 512,
        transfer_examples: BaseChannel | None = None,
        views: ViewsOfExamples | None = None,
        top: int | None = None,
        folds: int | None = None,
        fold_teachers: Sequence[BaseChannel] = (),
    ):
        """Builds the node.

        Args:
          teachers: Model channels.
          examples: transformed examples with the split train.
          transform_graph: the Transform's output.
          label: name of the label feature.
          head: classification, multi_label or regression.
          dtype: float32, float16 or int8, of the logits in the files.
          batch_size: examples in a batch of the teachers' inference.
          transfer_examples: transformed examples without labels, with the split transfer.
          views: the views of the examples to ask about, written beside the targets; None: the examples as they are.
          top: number of largest logits in the files, per teacher and example; None: all.
          folds: number of folds of the train split; None: the teachers are asked about it.
          fold_teachers: with folds, Model channels of teachers that have not seen a fold: those of the first teacher,
            fold by fold, then those of the second, and so on.
        """
        if len(fold_teachers) != len(teachers) * (folds or 0):
            raise ValueError(f"found {len(fold_teachers)} fold teachers; expected one per teacher and fold")
        if folds and views:
            raise ValueError("folds: not valid with views: the fold is a hash of the unchanged example")
        super().__init__(
            spec=fill(
                type(self),
                SoftTargetsParameters(
                    label=label, head=head, dtype=dtype, batch_size=batch_size, views=views, top=top, folds=folds
                ),
                teacher=teachers,
                fold=fold_teachers,
                examples=examples,
                transfer_examples=transfer_examples,
                transform_graph=transform_graph,
            )
        )
