"""How expressions fail: BadExpression as a definition is read, ExpressionFailed as a run meets its values."""

from service.errors import TailraceError


class BadExpression(ValueError):
    """A text that is no expression; ``column`` counts from 1 in the whole string."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"column {column}: {message}")
        self.column = column


class ExpressionFailed(TailraceError):
    """An expression has no result in this run: its step fails with ``code``."""

    code = "expression_failed"


class MissingValue(ExpressionFailed):
    """A template looks up a value that is not there; ``path`` is the look-up as it was written."""

    code = "missing_value"

    def __init__(self, path: str) -> None:
        super().__init__(f"There is no value at {path}.")
        self.path = path


class ExpressionTooMuch(ExpressionFailed):
    """An expression would make more text or take more steps than one may."""

    code = "expression_too_much"
