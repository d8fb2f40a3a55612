"""Why the stack does not run."""


class Failure(Exception):
    """What went wrong and its remedy, in a sentence for the person at the terminal."""
