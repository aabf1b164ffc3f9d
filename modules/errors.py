"""The one exception that means: the user can mend this, and the message says how."""


class UserError(Exception):
    """A mistake in the user's settings, data, code or environment, told in one sentence.

    Commands print the message without a traceback and exit with code 2. Everything else that is raised is a
    defect or an outage, and keeps its traceback.
    """
