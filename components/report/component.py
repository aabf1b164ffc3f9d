"""What a person looks at before shipping a student: every model and every gate, as comparison.json and report.html."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from stillhouse.components.dark_knowledge.component import DarkKnowledgeReport
from stillhouse.components.numbered_inputs import numbered, with_numbered_inputs
from stillhouse.components.report.executor import Executor


class Comparison(types.Artifact):
    """A folder with comparison.json, and details.json, of which the page is made beside it."""

    TYPE_NAME = "stillhouse.Comparison"  # namespace and title, as Kubeflow wants it


class Page(types.Artifact):
    """A folder with report.html, which Kubeflow's pages show."""

    TYPE_NAME = "system.HTML"  # by this name they know it


@dataclass(frozen=True)
class ComparedModel:
    """A model of the comparison and where its metrics stand."""

    name: str
    role: str  # teacher, ensemble, round, baseline, student or pushed
    model: types.BaseChannel
    evaluation: types.BaseChannel
    side: str  # stillhouse.components.evaluation.CANDIDATE or BASELINE: which of the evaluation's models it is


class ReportSpec(types.ComponentSpec):
    """Inputs model_1.., evaluation_1.. are added, one pair per compared model."""

    PARAMETERS = {
        "pipeline": ExecutionParameter(type=str),
        "label": ExecutionParameter(type=str),
        "models": ExecutionParameter(type=str),
        "settings": ExecutionParameter(type=str),
        "commit": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "pushed_model": ChannelParameter(type=standard_artifacts.PushedModel),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "dark_knowledge": ChannelParameter(type=DarkKnowledgeReport, optional=True),
    }
    OUTPUTS = {"comparison": ChannelParameter(type=Comparison), "page": ChannelParameter(type=Page)}


class Report(base_component.BaseComponent):
    """Gathers metrics, sizes, latencies, decisions and the push of a run."""

    SPEC_CLASS = ReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        pipeline: str,
        label: str,
        models: Sequence[ComparedModel],
        examples: types.BaseChannel,
        blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        pushed_model: types.BaseChannel,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        anomalies: types.BaseChannel,
        settings: str,
        commit: str,
        code: str,
        dark_knowledge: types.BaseChannel | None = None,
    ):
        """Builds the node.

        Args:
          pipeline: its name.
          label: name of the label column.
          models: what is compared.
          examples: the raw ones.
          blessing, infra_blessing, pushed_model: what was decided about the student.
          statistics, schema, anomalies: of the examples.
          settings: as JSON.
          commit: of the version control that the pipeline stands in; "": none.
          code: fingerprint of the code, for the cache.
          dark_knowledge: what the soft targets of classes reveal, if that was looked into.
        """
        spec_class = with_numbered_inputs(
            self.SPEC_CLASS,
            model=(len(models), standard_artifacts.Model),
            evaluation=(len(models), standard_artifacts.ModelEvaluation),
        )
        super().__init__(
            spec=spec_class(
                pipeline=pipeline,
                label=label,
                models=json.dumps([{"name": m.name, "role": m.role, "side": m.side} for m in models]),
                settings=settings,
                commit=commit,
                code=code,
                statistics=statistics,
                schema=schema,
                anomalies=anomalies,
                dark_knowledge=dark_knowledge,
                examples=examples,
                blessing=blessing,
                infra_blessing=infra_blessing,
                pushed_model=pushed_model,
                comparison=types.Channel(type=Comparison),
                page=types.Channel(type=Page),
                **numbered("model", [model.model for model in models]),
                **numbered("evaluation", [model.evaluation for model in models]),
            )
        )
