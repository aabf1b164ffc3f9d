"""Shows pipelines/examples/plain_tfx.py in docs/api.md: python docs/example.py."""

from pathlib import Path

from dag import replace_blocks

PAGE = Path(__file__).parent / "api.md"
SOURCE = Path(__file__).parents[1] / "pipelines" / "examples" / "plain_tfx.py"
MARK = "<!-- plain_tfx: by docs/example.py -->\n"


def block() -> str:
    """Returns what stands in the page: the file from its imports to the function that a command line calls."""
    lines = SOURCE.read_text(encoding="utf-8").partition("def main()")[0].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("from tfx"))
    return f"{MARK}```python\n" + "\n".join(lines[first:]).strip() + "\n```\n"


if __name__ == "__main__":
    replace_blocks(PAGE, {MARK: block()})
