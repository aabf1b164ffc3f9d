"""The fingerprint of the model that was checked: it travels from every check to the push, which pushes nothing else.

The Evaluator, the Blessing and the ServingCheck note it in their outputs; Blessing and Pusher compare.
"""

from collections.abc import Iterable

from tfx import types

from stillhouse.modules.errors import MachineError

FINGERPRINT = "model_fingerprint"  # custom property of evaluations and blessings


def note_fingerprint(artifact: types.Artifact, fingerprint: str) -> None:
    """Writes into a check's output which model it is about; "" writes nothing."""
    if fingerprint:
        artifact.set_string_custom_property(FINGERPRINT, fingerprint)


def checked_fingerprint(model: types.Artifact, checks: Iterable[types.Artifact]) -> str:
    """Returns the fingerprint that all checks of the model have noted; "": none has, as stock components do not.

    Raises:
      MachineError: they have checked different files.
    """
    noted = {artifact.get_string_custom_property(FINGERPRINT) for artifact in checks} - {""}
    if len(noted) > 1:
        raise MachineError(f"{model.uri}: the model has changed between its checks; {remedy(model)}")
    return next(iter(noted), "")


def remedy(model: types.Artifact) -> str:
    """Returns what to do about a model whose files have changed."""
    return f"delete {model.uri} and run again, which trains the model anew"
