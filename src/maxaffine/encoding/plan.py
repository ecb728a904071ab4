"""What a folder of codes is to hold: manifest.json, the same in every run of the job."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from maxaffine.code import Signature
from maxaffine.code.files import read_header
from maxaffine.data.streams import digest
from maxaffine.distributed.job import fresh
from maxaffine.errors import FileFormatError, InputError
from maxaffine.types import __version__

FORMAT = 1
NAME, ENDING = "manifest.json", ".parquet"
SAID = {
    "codes": "another network, or with other weights",
    "operations": "another network",
    "data": "other data",
    "inputs": "other scaling of the rows",
    "rows": "another number of rows",
}
"""How a difference of what was begun is told; other differences by name and value."""


@dataclass(frozen=True)
class Plan:
    """What decides the bytes of a folder.

    codes: operators and fingerprints, as `code.files.header` writes them. operations: fingerprint of the network's
    graph, whose numbers (the limits of a hardtanh) are in none of those. data, inputs: of the rows as stored, and of
    how they become inputs. rows: N. batch, threads: of one run of the network, whose rounding may depend on them.
    shard: rows a shard, a multiple of batch. label_kind, named, classes: of the rows. options: of the caller, kept and
    not compared.
    """

    codes: str
    operations: str
    dtype: str
    device: str
    data: str
    inputs: str
    rows: int
    batch: int
    shard: int
    threads: int
    source: str
    label_kind: str
    named: bool
    classes: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.rows // self.shard)

    def range_of(self, number: int) -> tuple[int, int]:
        """First row of a shard and the one behind its last."""
        return number * self.shard, min(self.rows, (number + 1) * self.shard)

    def fingerprint(self) -> str:
        """Ties a shard to this job."""
        return digest([json.dumps(self._deciding(), sort_keys=True)])

    def network(self, name: str) -> tuple[Signature, str | None]:
        """Operators and the fingerprint of the weights. Raises FileFormatError."""
        return read_header(self.codes, name)

    def _deciding(self) -> dict[str, Any]:
        content = asdict(self)
        for left_out in ("options", "source"):
            del content[left_out]
        codes = json.loads(self.codes)
        return content | {"codes": [codes["structure"], codes["weights"]]}


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"codes-{number:06d}{ENDING}"


def read_plan(folder: Path) -> tuple[Plan, dict[str, Any]]:
    """The plan of a folder and all that its manifest says. Raises FileFormatError."""
    try:
        content = json.loads((folder / NAME).read_text())
        if content["format"] != FORMAT:
            made = f"format {content['format']} of maxaffine {content['version']}"
            raise FileFormatError(f"{folder} has {made}, this version reads {FORMAT}; update maxaffine")
        kept = {field.name: content["plan"][field.name] for field in fields(Plan)}
        dict(kept["options"].items())  # of the caller, not compared, but a mapping
        plan = Plan(**{**kept, "codes": json.dumps(kept["codes"]), "classes": tuple(kept["classes"])})
        if content["fingerprint"] != plan.fingerprint():
            raise FileFormatError(f"{folder / NAME} was changed; take a new folder")
        return plan, content
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{folder} holds no codes ({NAME}: {_reason(error)})") from None


def write_plan(folder: Path, plan: Plan, result: Mapping[str, Any] | None = None) -> None:
    """Write the manifest: first when a job begins, and last, with its result, when it is finished."""
    about = {"format": FORMAT, "version": __version__, "fingerprint": plan.fingerprint()}
    about |= {"complete": result is not None, "plan": asdict(plan) | {"codes": json.loads(plan.codes)}}
    with fresh(folder / NAME) as file:
        file.write((json.dumps(about | (dict(result) if result else {}), indent=1) + "\n").encode())


def begin(folder: Path, plan: Plan, given: Mapping[str, int | None]) -> Plan:
    """Begin a job in a folder, or the plan as it was begun there.

    given: batch, shard and threads where the caller asks for one; what was begun with others decides otherwise.
    Raises FileFormatError when the folder holds anything else, InputError for a shard that is no multiple of a batch.
    """
    nearest = -(-plan.shard // plan.batch) * plan.batch
    if given["shard"] and given["batch"] and plan.shard != nearest:
        raise InputError(f"shard={plan.shard} is no multiple of batch={plan.batch}; give {nearest}")
    plan = replace(plan, shard=nearest)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise FileFormatError(f"cannot write to {folder}: {_reason(error)}") from None
    if NAME not in names:
        other = next((n for n in names if not (n.startswith(".") and n.endswith(".tmp"))), None)
        if other:
            raise FileFormatError(f"{folder} holds other files ({other}); give a new or an empty folder")
        write_plan(folder, plan)
        return plan
    begun, content = read_plan(folder)
    if content["version"] != __version__:
        advice = "read it with read_codes if it is finished, or give a new folder"
        raise FileFormatError(f"{folder} was begun by maxaffine {content['version']}, this is {__version__}; {advice}")
    kept = {name: getattr(begun, name) for name, value in given.items() if value is None}
    _same(folder, begun, replace(plan, **kept))
    return begun


def _same(folder: Path, begun: Plan, wanted: Plan) -> None:
    before, now = begun._deciding(), wanted._deciding()
    for name, value in before.items():
        if now[name] != value:
            what = SAID.get(name, f"{name}={value}, not {now[name]}")
            raise FileFormatError(f"{folder} was begun with {what}; give the same again, or a new folder")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__} {error}"
