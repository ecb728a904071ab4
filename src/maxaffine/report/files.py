"""The files of a report (or of a slice): all of them are written at the end, each whole, or none."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from maxaffine.errors import InputError


@contextmanager
def staged(out: str | Path, what: str = "a report") -> Iterator[dict[str, bytes]]:
    """Yield a dict from file name to content; on leaving the block each entry becomes a file in ``out``.

    The folder is made and tried at once, before any long work. Each file is written beside its place and
    then
    renamed, so no reader ever sees half a file; if the block raises, nothing is left behind.

    Raises:
        InputError: ``out`` cannot be made or written to.
    """
    out = Path(out)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    contents: dict[str, bytes] = {}
    try:
        with _refusals(out, what):
            out.mkdir(parents=True, exist_ok=True)
            os.unlink(_beside(out, b""))
        yield contents
        with _refusals(out, what):
            written = [(_beside(out, content), out / name) for name, content in contents.items()]
            for path, place in written:
                os.replace(path, place)
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _refusals(out: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{out}: cannot write {what} there ({reason}); give another --out folder") from error


def _beside(out: Path, content: bytes) -> str:
    """Write a file under a temporary name in ``out`` and return its path; leave no file when that fails."""
    handle, path = tempfile.mkstemp(prefix=".", suffix=".part", dir=out)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(path, 0o644)  # mkstemp makes it private; a report is there to be shown
    except BaseException:
        os.unlink(path)
        raise
    return path
