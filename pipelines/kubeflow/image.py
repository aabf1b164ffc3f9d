"""The commands that build the image of the containers."""

import shlex
from pathlib import Path

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.image_name import check_image

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


def build_commands(image: str, tasks: Path | None = None) -> list[str]:
    """Returns the commands: of the image, of one with the user's task modules in it, and of the push.

    Raises:
      UserError: the image's name or the folder is mistaken, or there is no checkout to build from.
    """
    check_image(image)
    if not DOCKERFILE.is_file():
        raise UserError(f"{DOCKERFILE}: no such file; images are built from a checkout of stillhouse")
    base = f"{image}-base" if tasks else image
    commands = [f"docker build --tag {shlex.quote(base)} {shlex.quote(str(DOCKERFILE.parent))}"]
    if tasks:
        if not tasks.is_dir():
            raise UserError(f"--tasks: {tasks} is not a folder")
        layer = f"FROM {base}\\nCOPY . /tasks\\n"
        commands.append(
            f"printf {shlex.quote(layer)} | docker build --tag {shlex.quote(image)} --file - {shlex.quote(str(tasks))}"
        )
    return [*commands, f"docker push {shlex.quote(image)}"]
