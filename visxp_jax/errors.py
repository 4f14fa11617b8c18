"""The one exception that stands for a user's mistake or bad input."""


class VisxpError(ValueError):
    """Bad input: says what must hold, what came, and what to do, in one line.

    Command line programs print the message without a traceback and exit with code 2.
    """
