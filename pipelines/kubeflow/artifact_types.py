"""The classes of artifacts whose types travel in a PipelineSpec by their titles."""

from stillhouse.components.dark_knowledge.component import DarkKnowledgeReport
from stillhouse.components.report.component import Comparison, Page

# TFX knows its own types.
OWN = {kind.TYPE_NAME: f"{kind.__module__}.{kind.__qualname__}" for kind in (Comparison, DarkKnowledgeReport, Page)}
