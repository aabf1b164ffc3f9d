"""Errors that one message explains; commands print them without a traceback."""

from collections.abc import Sequence

GATE_REFUSED = 3  # exit code of a run with a failed gate; not an error


MAX_NAMED = 10


def listed(faults: Sequence[str]) -> str:
    """Returns faults for the end of a message, each on a line of its own; of many the first, and how many more."""
    more = [f"and {len(faults) - MAX_NAMED} more"] if len(faults) > MAX_NAMED else []
    return "".join(f"\n  {fault}" for fault in [*faults[:MAX_NAMED], *more])


class UserError(Exception):
    """Invalid settings, data or code of the user; the message names the fault and the remedy.

    Every other exception, except MachineError, is a defect and keeps its traceback.
    """

    exit_code = 2


class MachineError(UserError):
    """A fault of the machine, with valid settings: no space, no permission, another run in the same folder."""

    exit_code = 1
