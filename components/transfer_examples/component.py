"""The stock Transform wants every column of its schema, the label too; transfer data has no label."""

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import BaseChannel, standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.transfer_examples.executor import Executor, TransferExamplesParameters


class TransferExamples(base_beam_component.BaseBeamComponent):
    """Applies the Transform's graph to examples without labels: raw ones in, transformed ones out, split transfer."""

    SPEC_CLASS = declare(
        "TransferExamplesSpec",
        TransferExamplesParameters,
        inputs={"examples": standard_artifacts.Examples, "transform_graph": standard_artifacts.TransformGraph},
        outputs={"transformed_examples": standard_artifacts.Examples},
    )
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, examples: BaseChannel, transform_graph: BaseChannel, label: str):
        """Builds the node; `examples` has the split transfer, `label` names the column that they lack."""
        parameters = TransferExamplesParameters(label=label)
        super().__init__(spec=fill(type(self), parameters, examples=examples, transform_graph=transform_graph))
