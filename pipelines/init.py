"""A new task: module, settings file and data that run as they are."""

import keyword
import re
from pathlib import Path

import jinja2

from modules.errors import UserError

NAME = re.compile(r"[a-z][a-z0-9_]{0,48}[a-z0-9]|[a-z]")


def write_task(name: str, folder: Path) -> list[Path]:
    """Writes NAME_task.py, NAME.yaml and data/NAME/NAME.csv below `folder` and returns their paths.

    Raises:
      UserError: the name is none that a module and a pipeline can have, or one of the files exists.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UserError(f"{name}: a task's name has lower-case letters, digits and underscores, a letter first")
    module = f"{name}_task"
    paths = [folder / f"{module}.py", folder / f"{name}.yaml", folder / "data" / name / f"{name}.csv"]
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        raise UserError(f"{', '.join(existing)}: exists already; choose another name, or remove it")

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    values = {"name": name, "module": module, "pipeline": name.replace("_", "-")}
    texts = [
        templates.get_template("task.py.jinja").render(values),
        templates.get_template("settings.yaml.jinja").render(values),
        _example_csv(),
    ]
    for path, text in zip(paths, texts, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return paths


def _example_csv() -> str:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    frame = data.frame.rename(columns=lambda column: column.replace(" ", "_"))
    frame["diagnosis"] = data.target_names[frame.pop("target")]
    return frame.to_csv(index=False)
