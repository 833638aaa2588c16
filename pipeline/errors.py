"""The one error that is shown without a traceback."""


class UserError(Exception):
    """A file, parameter or machine is wrong; the message says which, why, and what to do."""
