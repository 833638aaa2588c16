"""The one error that people see without a traceback."""


class UserError(Exception):
    """Something outside the program is wrong; the message names the file or parameter, what is
    wrong, and what to do.
    """
