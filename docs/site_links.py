"""Hook of mkdocs.yml: README, CONTRIBUTING and CHANGELOG are pages too; links out of docs/ lead to the code host.

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
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}  # by their files
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"`[^`\n]+`|\[(?P<text>(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that stand at the top of the repository."""
    for page, name in PAGES.items():
        files.append(File.generated(config, page, content=(REPOSITORY / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns the page with its links as the site needs them; code blocks stay as they are."""
    folder = REPOSITORY if page.file.src_uri in PAGES else (DOCS / page.file.src_uri).parent

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
    for name, source in PAGES.items():
        if file == REPOSITORY / source:
            return f"[{text}]({name}{mark}{anchor})"
    if not repo_url:
        return text
    kind = "tree" if file.is_dir() else "blob"
    return f"[{text}]({repo_url.rstrip('/')}/{kind}/main/{file.relative_to(REPOSITORY).as_posix()}{mark}{anchor})"
