"""What goes wrong and can be shown to a person."""


class CodeSearchError(Exception):
    """One sentence: what was wrong, and the remedy where there is one; never a secret."""


class SourceError(CodeSearchError):
    """The repository or folder cannot be read."""


class EndpointError(CodeSearchError):
    """The endpoint cannot embed."""


class StoreError(CodeSearchError):
    """The index is not there, is of another model, is busy or cannot be written."""
