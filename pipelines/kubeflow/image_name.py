"""Names of container images."""

import re

from stillhouse.modules.errors import UserError

IMAGE = re.compile(r"^(?P<name>[^\s@]+?)(?P<tag>:[\w][\w.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?$")


def check_image(image: str) -> str | None:
    """Returns what is doubtful about the name of an image, or None.

    Raises:
      UserError: it is no name of an image.
    """
    parts = IMAGE.match(image)
    if not parts:
        raise UserError(f"--image: found {image!r}; expected NAME:TAG or NAME@sha256:DIGEST")
    if not parts["tag"] and not parts["digest"]:
        return f"the image {image} has no tag: every node of the cluster may run another one; name a version"
    return None
