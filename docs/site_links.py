"""Hook of mkdocs.yml: the README is the first page, and links out of docs/ lead to the code host.

The pages are written for the code host, where a link may name any file of the repository. Here such a link becomes one
to the code host, or bare text if mkdocs.yml has no repo_url. A link to a file that does not exist is a warning, which
`make docs` takes for an error, as it does for the links between pages.
"""

import logging
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LOG = logging.getLogger("mkdocs.hooks.site_links")
DOCS = Path(__file__).parent
REPOSITORY = DOCS.parent
INDEX = "index.md"
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"`[^`\n]+`|\[(?P<text>(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the README as the first page."""
    files.append(File.generated(config, INDEX, content=(REPOSITORY / "README.md").read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns the page with its links as the site needs them; code blocks stay as they are."""
    folder = REPOSITORY if page.file.src_uri == INDEX else (DOCS / page.file.src_uri).parent

    def replace(match: re.Match[str]) -> str:
        return match[0] if match["target"] is None else _link(match, folder, page.file.src_uri, config.repo_url or "")

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(replace, part) for part in parts)


def _link(match: re.Match[str], folder: Path, page: str, repo_url: str) -> str:
    text, (target, mark, anchor) = match["text"], match["target"].partition("#")
    if not target or "://" in target or target.startswith("mailto:"):
        return match[0]
    file = (folder / target).resolve()
    if not file.exists():
        LOG.warning("%s: found a link to %s; expected an existing file; correct it", page, target)
        return match[0]
    if DOCS in file.parents and file.suffix != ".py":
        return f"[{text}]({file.relative_to(DOCS).as_posix()}{mark}{anchor})"
    if not repo_url:
        return text
    kind = "tree" if file.is_dir() else "blob"
    return f"[{text}]({repo_url.rstrip('/')}/{kind}/main/{file.relative_to(REPOSITORY).as_posix()}{mark}{anchor})"
