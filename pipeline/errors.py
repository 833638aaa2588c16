"""The one error that is shown without a traceback, and how messages count."""


class UserError(Exception):
    """A file, parameter or machine is wrong; the message says which, why, and what to do."""


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 image` or `2 classes`."""
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"
