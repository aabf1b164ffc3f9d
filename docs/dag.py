"""Draws the DAGs of the recipes, as Mermaid, into docs/recipes.md: python docs/dag.py.

What every pipeline has (statistics, schema, comparisons) is left out.
"""

import re
import tempfile
from pathlib import Path

from stillhouse.modules.settings import Settings, load_settings
from stillhouse.pipelines.cli.init import EXAMPLES, RECIPES
from stillhouse.pipelines.dag.create import create_pipeline
from stillhouse.pipelines.local.paths import local_paths

PAGE = Path(__file__).parent / "recipes.md"
LEFT_OUT = re.compile(
    r"(\w*Statistics|StatisticsGen|SchemaGen|ExampleValidator|EarlierSpans|Drift|Skew|DarkKnowledge|LastPushed|Predictions"
    r"|Blessing|ServingCheck|Report|Evaluator)$"
)
BLOCK = "<!-- {name}: by docs/dag.py -->\n```mermaid\n{text}```\n"


def mermaid(settings: Settings) -> str:
    """Returns the DAG of a pipeline as Mermaid text."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = create_pipeline(settings, local_paths(settings, Path(folder))).components
    shown = [node.id for node in nodes if not LEFT_OUT.match(node.id)]
    lines = ["flowchart LR"]
    for node in nodes:
        if node.id in shown:
            upstream = sorted(above.id for above in node.upstream_nodes if above.id in shown)
            # The data reach every training; one arrow from the Transform to those that have no other is enough.
            others = [above for above in upstream if above not in ("Transform", "ExampleGen")]
            lines += [f"  {above} --> {node.id}" for above in others or upstream]
    return "\n".join(lines) + "\n"


def blocks() -> dict[str, str]:
    """Returns what stands in the page for each recipe."""
    return {name: BLOCK.format(name=name, text=mermaid(load_settings(EXAMPLES / f"{name}.yaml"))) for name in RECIPES}


def replace_blocks(page: Path, blocks: dict[str, str]) -> None:
    """Puts blocks into a page: each in the place of its mark and of the fenced block behind that, if there is one."""
    text = page.read_text(encoding="utf-8")
    for mark, block in blocks.items():
        pattern = re.escape(mark) + r"(```\w+\n.*?```\n)?"
        text = re.sub(pattern, lambda _, block=block: block, text, flags=re.DOTALL)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    replace_blocks(PAGE, {f"<!-- {name}: by docs/dag.py -->\n": block for name, block in blocks().items()})
