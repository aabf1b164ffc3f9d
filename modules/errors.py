"""Errors that one message explains; commands print them without a traceback."""

GATE_REFUSED = 3  # exit code of a run with a failed gate; not an error


class UserError(Exception):
    """Invalid settings, data or code of the user; the message names the fault and the remedy.

    Every other exception, except MachineError, is a defect and keeps its traceback.
    """

    exit_code = 2


class MachineError(UserError):
    """A fault of the machine, with valid settings: no space, no permission, another run in the same folder."""

    exit_code = 1
