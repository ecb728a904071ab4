"""Where the files of a data set lie, and what to do when they do not."""

from itertools import product
from pathlib import Path

from maxaffine.errors import FileFormatError, InputError

# What browsers and download tools append to the name of a file that has not arrived whole.
UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".aria2", ".tmp")


def folder_of(name: str, root: Path | None, inside: str) -> Path:
    """Return root/inside where it exists (torchvision's layout), else root itself.

    Raises:
        InputError: no root is given.
        FileFormatError: root is no folder.
    """
    if root is None:
        raise InputError(f"load({name!r}): give root=, the folder that holds {inside}")
    if not root.is_dir():
        raise FileFormatError(f"{root}: no such folder; root= is the folder that holds {inside}")
    return root / inside if (root / inside).is_dir() else root


def need(folder: Path, names: tuple[str, ...], advice: str) -> Path:
    """Return the first of some names of a file that exists in a folder.

    Raises:
        FileFormatError: there is none, or its download was interrupted; the message says what to do.
    """
    paths = [folder / name for name in names]
    found = next((path for path in paths if path.is_file()), None)
    if found is not None:
        return found
    for path, ending in product(paths, UNFINISHED):
        if path.with_name(path.name + ending).exists():
            raise FileFormatError(f"{path}{ending}: an interrupted download; delete it and fetch {path.name} again")
    raise FileFormatError(f"{folder / names[0]}: no such file; {advice}")
