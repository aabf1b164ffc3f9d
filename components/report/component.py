"""What a person looks at before shipping a student: every model and every gate, as comparison.json and report.html."""

from collections.abc import Sequence
from dataclasses import dataclass

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.dark_knowledge.component import DarkKnowledgeReport
from stillhouse.components.report.executor import ComparedRow, Executor, ReportParameters


class Comparison(types.Artifact):
    """A folder with comparison.json, and details.json, of which the page is made beside it."""

    TYPE_NAME = "stillhouse.Comparison"  # namespace and title, as Kubeflow wants it


class Page(types.Artifact):
    """A folder with report.html, which Kubeflow's pages show."""

    TYPE_NAME = "system.HTML"  # by this name they know it


@dataclass(frozen=True)
class ComparedModel:
    """A model of the comparison."""

    name: str
    role: str  # teacher, ensemble, round, baseline, student or pushed
    model: types.BaseChannel


class Report(base_component.BaseComponent):
    """Gathers metrics, sizes, latencies, decisions and the push of a run."""

    # Inputs model_1.. are added.
    SPEC_CLASS = declare(
        "ReportSpec",
        ReportParameters,
        inputs={
            "examples": standard_artifacts.Examples,
            "evaluation": standard_artifacts.ModelEvaluation,
            "blessing": standard_artifacts.ModelBlessing,
            "infra_blessing": standard_artifacts.InfraBlessing,
            "pushed_model": standard_artifacts.PushedModel,
            "predictions": standard_artifacts.InferenceResult,
            "statistics": standard_artifacts.ExampleStatistics,
            "schema": standard_artifacts.Schema,
            "anomalies": standard_artifacts.ExampleAnomalies,
        },
        optional_inputs={
            "dark_knowledge": DarkKnowledgeReport,
            "drift": standard_artifacts.ExampleAnomalies,
            "skew": standard_artifacts.ExampleAnomalies,
        },
        outputs={"comparison": Comparison, "page": Page},
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        pipeline: str,
        label: str,
        models: Sequence[ComparedModel],
        examples: types.BaseChannel,
        evaluation: types.BaseChannel,
        blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        pushed_model: types.BaseChannel,
        predictions: types.BaseChannel,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        anomalies: types.BaseChannel,
        gate_metric: str,
        settings: str,
        commit: str,
        dark_knowledge: types.BaseChannel | None = None,
        drift: types.BaseChannel | None = None,
        skew: types.BaseChannel | None = None,
    ):
        """Builds the node.

        Args:
          pipeline: its name.
          label: name of the label column.
          models: what is compared.
          examples: the raw ones.
          evaluation: of all models.
          blessing, infra_blessing, pushed_model: what was decided about the student.
          predictions: of all models.
          statistics, schema, anomalies: of the examples.
          gate_metric: short name of the metric of the gates.
          settings: as JSON.
          commit: of the version control that the pipeline stands in; "": none.
          dark_knowledge: what the soft targets of classes reveal, if that was looked into.
          drift, skew: of the newest span from those before it, and of the unlabelled examples from train.
        """
        rows = [ComparedRow(name=model.name, role=model.role) for model in models]
        parameters = ReportParameters(
            pipeline=pipeline, label=label, models=rows, gate_metric=gate_metric, settings=settings, commit=commit
        )
        super().__init__(
            spec=fill(
                type(self),
                parameters,
                examples=examples,
                evaluation=evaluation,
                blessing=blessing,
                infra_blessing=infra_blessing,
                pushed_model=pushed_model,
                predictions=predictions,
                statistics=statistics,
                schema=schema,
                anomalies=anomalies,
                dark_knowledge=dark_knowledge,
                drift=drift,
                skew=skew,
                model=[model.model for model in models],
            )
        )
