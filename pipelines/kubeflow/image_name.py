"""Names of container images, by the grammar of distribution/reference: [HOST[:PORT]/]PATH[:TAG][@DIGEST]."""

import re

from stillhouse.modules.errors import UserError

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
# A first part without a dot, a port or the name localhost is part of the path, as Docker reads it.
_HOST = rf"(localhost|{_LABEL}(\.{_LABEL})+|{_LABEL}(?=:))(:[0-9]+)?|\[[0-9a-fA-F:]+\](:[0-9]+)?"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?P<name>(({_HOST})/)?{_PART}(/{_PART})*)(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
    r"(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
MAX_NAME = 255  # characters, without tag and digest


def check_image(image: str) -> str | None:
    """Returns what is doubtful about the name of an image, or None.

    Raises:
      UserError: it is no name of an image.
    """
    parts = _IMAGE.fullmatch(image)
    if not parts:
        raise UserError(
            f"--image: found {image!r}; expected [HOST/]NAME:TAG or [HOST/]NAME@sha256:DIGEST: NAME in lower-case "
            "letters and digits with single . _ / or - between, TAG of at most 128 letters, digits, . _ and -"
        )
    if len(parts["name"]) > MAX_NAME:
        raise UserError(f"--image: found a name of {len(parts['name'])} characters; expected at most {MAX_NAME}")
    if not parts["tag"] and not parts["digest"]:
        return f"the image {image} has no tag: every node of the cluster may run another one; name a version"
    return None
