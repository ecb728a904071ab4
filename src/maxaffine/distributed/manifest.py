"""What a folder is: manifest.json with format, version, the fingerprint of network and plane, and how far it is."""

import json
from pathlib import Path
from typing import Any

from maxaffine.distributed.job import FILE, Setup, fresh
from maxaffine.distributed.library import arrow, parquet
from maxaffine.errors import FileFormatError
from maxaffine.types import __version__

FORMAT = 1
NAME, UNITS = "manifest.json", "units.parquet"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest. Raises FileFormatError when there is none, or of a format that is not known."""
    try:
        content = json.loads((folder / NAME).read_text())
        version, found, _, _ = (content[key] for key in ("version", "format", "fingerprint", "complete"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{folder} holds no partition ({NAME}: {_reason(error)})") from None
    if found != FORMAT:
        raise FileFormatError(
            f"{folder} has format {found} of maxaffine {version}, this version reads {FORMAT}; update maxaffine"
        )
    return content


def write_manifest(folder: Path, setup: Setup, complete: bool, cells: int = 0) -> None:
    """Write it, the last file of a folder that is begun and the last of one that is finished."""
    content = {
        "format": FORMAT,
        "version": __version__,
        "fingerprint": setup.fingerprint,
        "parts": setup.count,
        "operators": list(setup.operators),
        "outputs": list(setup.out),
        "corners": setup.plane.corners.tolist(),
        "complete": complete,
    } | ({"cells": cells} if complete else {})
    with fresh(folder / NAME) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def write_units(folder: Path, setup: Setup) -> None:
    """units.parquet: which unit of which operator each reduced unit is, for readers without this library."""
    pa, net = arrow(), setup.job.net
    names = [setup.operators[i] for i in net.operator.tolist()]
    columns = {"reduced": list(range(net.units)), "operator": names, "unit": net.unit.tolist()}
    schema = pa.schema([("reduced", pa.int32()), ("operator", pa.string()), ("unit", pa.int64())])
    with fresh(folder / UNITS) as file:
        parquet().write_table(pa.table(columns, schema=schema), file)


def check_folder(folder: Path, fingerprint: str) -> bool:
    """Whether the folder holds this job, begun or finished; False where it is empty or does not exist.

    Raises FileFormatError when it holds anything else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise FileFormatError(f"cannot write to {folder}: {_reason(error)}") from None
    if NAME not in names:
        others = sorted(n for n in names if n not in (FILE, UNITS) and not n.endswith(".tmp"))
        if others:
            raise FileFormatError(f"{folder} holds other files ({others[0]}); give a new or an empty folder")
        return False
    content = read_manifest(folder)
    if content["fingerprint"] != fingerprint:
        raise FileFormatError(f"{folder} holds the partition of another network or plane; give a new folder")
    if content["version"] != __version__:
        raise FileFormatError(
            f"{folder} was made by maxaffine {content['version']}, this is {__version__}; open it with "
            "PartitionFiles.open if it is finished, or give a new folder"
        )
    return True


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__} {error}"
