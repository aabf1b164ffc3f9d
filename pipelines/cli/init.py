"""A new task: module, settings file and data that run as they are; or a recipe, its settings and data."""

import keyword
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jinja2

from stillhouse.modules.atomic import new_folder, remove, remove_leftovers, write_text
from stillhouse.modules.errors import UserError
from stillhouse.pipelines.example_data import docstrings, few_digits, packages

EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Recipe:
    """A recipe whose settings file is among the examples."""

    data: str  # folder of its data set, as data/prepare.py calls it
    write: Callable[[Path], dict[str, int]]  # writes that


RECIPES = {
    "distilbert": Recipe("questions", docstrings.write_sample),
    "noisy-student": Recipe("few_digits", few_digits.write),
    "pretrained-teacher": Recipe("packages", packages.write),
    "tmkd": Recipe("questions", docstrings.write_sample),
}
NAME = re.compile(r"[a-z][a-z0-9_]{0,48}[a-z0-9]|[a-z]")


def write_task(name: str, folder: Path) -> list[Path]:
    """Writes NAME_task.py, NAME.yaml and data/NAME/NAME.csv below `folder` and returns their paths.

    Raises:
      UserError: the name is none that a module and a pipeline can have, one of the files exists, or they cannot be
        written; then none is left.
    """
    _check_name(name)
    module = f"{name}_task"
    paths = [folder / f"{module}.py", folder / f"{name}.yaml", folder / "data" / name / f"{name}.csv"]
    _refuse_existing(paths)

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("stillhouse.pipelines"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    values = {"name": name, "module": module, "pipeline": name.replace("_", "-")}
    texts = [
        templates.get_template("task.py.jinja").render(values),
        templates.get_template("settings.yaml.jinja").render(values),
        _example_csv(),
    ]
    with _all_or_none(paths):
        for path, text in zip(paths, texts, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
    return paths


def write_recipe(recipe_name: str, name: str, folder: Path) -> list[Path]:
    """Writes NAME.yaml, the settings of a recipe, and its example data in data/NAME; returns their paths.

    Raises:
      UserError: there is no such recipe, the name is none that a pipeline can have, one of the files exists, or they
        cannot be written; then none is left.
    """
    if recipe_name not in RECIPES:
        raise UserError(f"--recipe: found {recipe_name}; expected one of: {', '.join(RECIPES)}")
    _check_name(name)
    settings, data = folder / f"{name}.yaml", folder / "data" / name
    _refuse_existing([settings, data])
    recipe = RECIPES[recipe_name]
    text = (EXAMPLES / f"{recipe_name}.yaml").read_text(encoding="utf-8")
    # As they stand in the example: how it is run, its name, where its data are and where it is pushed.
    text = re.sub(r"^#   .*stillhouse run .*$", f"#   stillhouse run {name}.yaml", text, count=1, flags=re.MULTILINE)
    text = re.sub(rf"^name: {recipe_name}$", f"name: {name.replace('_', '-')}", text, flags=re.MULTILINE)
    text = text.replace(f"data/{recipe.data}/", f"data/{name}/").replace(f"serving/{recipe_name}", f"serving/{name}")
    remove_leftovers(data)
    with _all_or_none([data, settings]):
        with new_folder(data) as unfinished:
            recipe.write(Path(unfinished))
        write_text(settings, text)
    return [settings, data]


@contextmanager
def _all_or_none(paths: list[Path]) -> Iterator[None]:
    """Removes files and folders again, which did not exist before, where writing one of them fails."""
    try:
        yield
    except OSError as error:
        for path in paths:
            remove(path)
        raise UserError(f"{error.filename or paths[0].parent}: cannot be written: {error.strerror}") from error


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UserError(f"{name}: a task's name has lower-case letters, digits and underscores, a letter first")


def _refuse_existing(paths: list[Path]) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        raise UserError(f"{', '.join(existing)}: exists already; choose another name, or remove it")


def _example_csv() -> str:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    frame = data.frame.rename(columns=lambda column: column.replace(" ", "_"))
    frame["diagnosis"] = data.target_names[frame.pop("target")]
    return frame.to_csv(index=False)
