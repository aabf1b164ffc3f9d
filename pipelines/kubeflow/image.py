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
    if "@" in image:
        raise UserError(f"--image: found {image}; expected NAME:TAG (the registry gives the digest after the push)")
    if not DOCKERFILE.is_file():
        raise UserError(f"{DOCKERFILE}: no such file; images are built from a checkout of stillhouse")
    base = f"{image}-base" if tasks else image
    check_image(base)  # with its suffix the tag may be too long
    commands = [f"docker build --tag {shlex.quote(base)} {shlex.quote(str(DOCKERFILE.parent))}"]
    if tasks:
        if not tasks.is_dir():
            raise UserError(f"--tasks: {tasks} is not a folder")
        if not str(tasks).isprintable():
            raise UserError(f"--tasks: found {str(tasks)!r}; expected a path without control characters; rename it")
        folder = f"./{tasks}" if str(tasks).startswith("-") else str(tasks)  # docker would take it for an option
        # The text is an argument of printf's, never its format, which reads % and \.
        commands.append(
            f"printf '%s\\n' {shlex.quote(f'FROM {base}')} 'COPY . /tasks' | "
            f"docker build --tag {shlex.quote(image)} --file - {shlex.quote(folder)}"
        )
    return [*commands, f"docker push {shlex.quote(image)}"]
