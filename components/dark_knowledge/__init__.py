"""What the teachers know beyond the right answer."""

from stillhouse.components.dark_knowledge.component import DarkKnowledge, DarkKnowledgeReport

__all__ = ["DarkKnowledge", "DarkKnowledgeReport"]
