"""Errors that one sentence explains; commands print them without a traceback."""

GATE_REFUSED = 3  # exit code of a run whose student a gate refused; no error


class UserError(Exception):
    """A mistake in the user's settings, data or code; the message says what is at fault and what to do.

    Everything else that is raised, but for MachineError, is a defect and keeps its traceback.
    """

    exit_code = 2


class MachineError(UserError):
    """The settings are right, but the machine does not let us: no space, no permission, another run in the way."""

    exit_code = 1
