"""A SavedModel that exists already, as a teacher like any other."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.imported_teacher.executor import Executor, ImportedTeacherParameters
from stillhouse.modules.models.imported import SavedTeacher


class ImportedTeacher(base_component.BaseComponent):
    """Gives a SavedModel on transformed features the signatures of our models; probabilities become logits."""

    SPEC_CLASS = declare(
        "ImportedTeacherSpec",
        ImportedTeacherParameters,
        inputs={
            "examples": standard_artifacts.Examples,
            "transform_graph": standard_artifacts.TransformGraph,
        },
        outputs={"model": standard_artifacts.Model},
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        teacher: SavedTeacher,
        fingerprint: str,
        examples: BaseChannel,
        transform_graph: BaseChannel,
        label: str,
        head: str,
    ):
        """Builds the node.

        Args:
          teacher: the SavedModel.
          fingerprint: of the SavedModel's files, for the cache.
          examples: the transformed ones, by which it tells logits from probabilities.
          transform_graph: the Transform's output.
          label: name of the label.
          head: classification, multi_label or regression.
        """
        parameters = ImportedTeacherParameters(teacher=teacher, fingerprint=fingerprint, label=label, head=head)
        super().__init__(spec=fill(type(self), parameters, examples=examples, transform_graph=transform_graph))
