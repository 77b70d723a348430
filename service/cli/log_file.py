"""What the verbs take as a log: the name of a file that need not be there."""

from pathlib import Path

import rich_click as click


class LogFile(click.ParamType[Path]):
    """The path of a log, its real one where links are on the way."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        from service.ops.values import log_file

        try:
            path = log_file(str(value))
            is_directory = path.is_dir()
        except ValueError as error:
            self.fail(f"{str(value)!r} is refused: {error}", param, ctx)
        except OSError as error:
            self.fail(f"{str(value)!r}: {error.strerror}", param, ctx)
        if is_directory:
            self.fail(f"{path} is a directory", param, ctx)
        return path
