"""How commands end: typed errors and full disks with exit code 2, an interruption with 130."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

import typer

from eocausal.errors import EocausalError
from eocausal.studies.printing import console

__all__ = ["guarded"]

P = ParamSpec("P")
INTERRUPTED = 130
MACHINE = {
    getattr(errno, name, 0)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EMFILE")
}
"""Errors of the machine that users can do something about: disk full, no permission, ..."""


def _stop(error: EocausalError) -> NoReturn:
    console(error=True).print(str(error), style="red", markup=False)
    raise typer.Exit(2) from error


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn typed errors and those of disks into exit code 2 and an interruption into 130."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except EocausalError as error:
            _stop(error)
        except OSError as error:
            if error.errno not in MACHINE:
                raise
            where = f" ({error.filename})" if error.filename else ""
            text = f"{error.strerror}{where}. Nothing is half written. Rerun the same command"
            console(error=True).print(f"{text} once that is mended.", style="red", markup=False)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            console(error=True).print("Interrupted. Rerun the same command to resume.")
            raise typer.Exit(INTERRUPTED) from None

    return wrapped
