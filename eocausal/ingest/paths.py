"""Folders, files and glob patterns become a list of files."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from eocausal.errors import SceneError

__all__ = ["list_paths"]


def list_paths(
    items: Sequence[str | Path],
    *,
    whole: Callable[[Path], bool],
    inside: Callable[[Path], list[str]],
    far: Callable[[str], bool],
) -> list[str]:
    """List what paths lead to, sorted, each once.

    Parameters
    ----------
    items
        Paths, glob patterns and addresses.
    whole
        Whether a path is wanted as it is.
    inside
        Lists what is wanted of a folder.
    far
        Whether an item is an address, which is kept as it is.

    Raises
    ------
    SceneError
        If a path leads nowhere.
    """
    found: list[str] = []
    for item in items:
        text, path = str(item), Path(item)
        if far(text):
            found.append(text)
        elif whole(path):
            found.append(str(path.absolute()))
        elif path.is_dir():
            found += inside(path.absolute())
        elif glob.has_magic(text):
            matches = (Path(p).absolute() for p in glob.glob(text, recursive=True))
            found += [str(p) for p in matches if whole(p)]
        else:
            raise SceneError(
                f"There is no file or folder {text}.",
                cause="The path is wrong, or the file was moved.",
                next_step="Check the path; relative paths start at the working directory.",
            )
    return sorted(set(found))
