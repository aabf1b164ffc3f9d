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
    ):
        """Builds the node.

        Args:
          teachers: Model channels.
          examples: transformed examples with the split train.
          transform_graph: the Transform's output.
          label: name of the label feature.
          head: classification, multi_label or regression.
          dtype: float32 or float16, of the logits in the files.
          batch_size: examples in a batch of the teachers' inference.
          transfer_examples: transformed examples without labels, with the split transfer.
          views: the views of the examples to ask about, written beside the targets; None: the examples as they are.
        """
        super().__init__(
            spec=fill(
                type(self),
                SoftTargetsParameters(label=label, head=head, dtype=dtype, batch_size=batch_size, views=views),
                teacher=teachers,
                examples=examples,
                transfer_examples=transfer_examples,
                transform_graph=transform_graph,
            )
        )
