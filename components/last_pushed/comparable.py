"""Whether the gate `pushed` can compare the student with a version."""

from tensorflow.python.saved_model.loader_impl import parse_saved_model

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.models.export import LABELS_SIGNATURE, evaluation_label
from stillhouse.modules.pushes.versions import is_damaged


def check_comparable(version: str, label: str | None = None) -> None:
    """Checks that a version can be evaluated as the student is; reads signatures, not weights.

    Args:
      version: folder of the version.
      label: name of the label column; None: any.

    Raises:
      UserError: another system made it, or it has another label.
      MachineError: its files are not those that were pushed.
    """
    remedy = "set evaluation.gates.pushed: null, or move it away"
    if is_damaged(version):
        raise MachineError(
            f"{version}: the version is damaged (its files differ from its push record); restore it, make another one "
            f"the newest with `stillhouse rollback`, or {remedy}"
        )
    try:
        graphs = parse_saved_model(version).meta_graphs
    except (OSError, ValueError) as error:
        raise UserError(
            f"{version}: the newest version, but not a readable SavedModel ({error}); the gate `pushed` cannot compare "
            f"the student with it; {remedy}"
        ) from error
    signatures = [graph.signature_def[LABELS_SIGNATURE] for graph in graphs if LABELS_SIGNATURE in graph.signature_def]
    if not signatures:
        raise UserError(
            f"{version}: the newest version, but not made by stillhouse (it has no signature {LABELS_SIGNATURE}); the "
            f"gate `pushed` cannot compare the student with it; {remedy}"
        )
    expected = evaluation_label(label) if label else None
    if expected and expected not in signatures[0].outputs:
        raise UserError(
            f"{version}: the newest version, but of another label ({', '.join(signatures[0].outputs)}; expected "
            f"{expected}); the gate `pushed` cannot compare the student with it; {remedy}, or set another push.path"
        )
