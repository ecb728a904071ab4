"""An index in a folder: immutable parts, and a manifest that names them and is replaced in one step.

    manifest.json           format, version, structure and weights of the codes, the parts with a checksum of each file
    000007-1f2e3d4c/        a part: rows.npy, ids.npy, offsets.npy, keys.npy, order.npy, mapped into memory when opened
    000007-1f2e3d4c/removed-000009.npy      which of its ids were removed

A process that dies while it writes leaves the manifest as it was, and files that no manifest names: the next commit
takes them away. One process may write at a time; a second one is refused at its next commit.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from maxaffine.code.files import header, read_header
from maxaffine.errors import FileFormatError, InputError
from maxaffine.search.kinds import KINDS
from maxaffine.search.layout import Layout
from maxaffine.search.part import ARRAYS, Part
from maxaffine.types import __version__

FORMAT = 1
NAME, KEY = "manifest.json", "maxaffine-index"


@dataclass(frozen=True, eq=False)
class State:
    """What an index holds at one time; `generation` counts the commits."""

    layout: Layout
    weights: str | None
    kind: str
    parts: tuple[Part, ...] = ()
    next_id: int = 0
    generation: int = 0

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)


def create(folder: Path, state: State) -> State:
    """Write a new index, into a folder that is empty or not there yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise FileFormatError(f"cannot write {folder}: {error.strerror}") from None
    if taken:
        raise FileFormatError(f"{folder} is not empty; open the index in it, or name a new folder")
    return _commit(folder, None, replace(state, parts=tuple(replace(part, name="") for part in state.parts)))


def commit(folder: Path, old: State, new: State) -> State:
    """Make `new` what the folder holds, completely or not at all: the state with its parts mapped from the files."""
    try:
        found = _manifest(folder)["generation"]
    except FileFormatError as error:
        raise FileFormatError(f"{error}; nothing was changed") from None
    if found != old.generation:
        raise InputError(f"{folder} was changed by another process since it was opened; open it again")
    return _commit(folder, old, new)


def read(folder: Path, verify: bool) -> State:
    """What the last commit left. Raises FileFormatError for a folder without an index and for damaged files."""
    about = _manifest(folder)
    while True:
        try:
            return _state(folder, about, verify)
        except FileFormatError:
            newer = _manifest(folder)
            if newer["generation"] == about["generation"]:
                raise
            about = newer  # another process has committed since, and taken parts away


def _state(folder: Path, about: dict[str, Any], verify: bool) -> State:
    try:
        signature, weights = read_header(about["codes"], str(folder))
        names = [units.name for units in signature]
        layout = Layout(signature, tuple(names.index(name) for name in about["operators"]))
        if about["kind"] not in KINDS or about["width"] != layout.width:
            raise ValueError("its kind or the width of its rows is not known")
        parts = tuple(_read_part(folder, entry, verify) for entry in about["parts"])
        return State(layout, weights, about["kind"], parts, about["next_id"], about["generation"])
    except FileFormatError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{folder} is damaged: {_line(error)}; build the index again") from None


def _commit(folder: Path, old: State | None, new: State) -> State:
    generation = new.generation + 1
    before = {part.name: part for part in old.parts} if old else {}
    fresh: list[Path] = []
    try:
        known = _manifest(folder)["parts"] if old else []
        entries = {entry["name"]: entry for entry in known}
        written = [_write_part(folder, part, before, entries, generation, fresh) for part in new.parts]
        about = {
            "format": FORMAT,
            "version": __version__,
            "codes": header(new.layout.signature, new.weights),
            "operators": [new.layout.signature[i].name for i in new.layout.places],
            "kind": new.kind,
            "width": new.layout.width,
            "next_id": new.next_id,
            "generation": generation,
            "parts": written,
        }
        text = json.dumps({KEY: about, "checksum": _digest(about)}, indent=1).encode()
        _written(folder / f".{NAME}.part", lambda file: file.write(text))
        _settle(folder)
        os.replace(folder / f".{NAME}.part", folder / NAME)
    except OSError as error:
        for path in fresh:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        held = f"; the index still holds the {len(old)} codes committed before" if old else ""
        raise FileFormatError(f"cannot write {folder}: {error.strerror or _line(error)}{held}") from None
    _settle(folder)
    _clear(folder, written)
    parts = tuple(
        part if part.name else _read_part(folder, entry, verify=False)
        for part, entry in zip(new.parts, written, strict=True)
    )
    return replace(new, parts=parts, generation=generation)


def _write_part(
    folder: Path, part: Part, before: dict[str, Part], entries: dict[str, Any], generation: int, fresh: list[Path]
) -> dict[str, Any]:
    """Write what the folder lacks of a part; its entry in the manifest."""
    if part.name:
        entry = dict(entries[part.name])
        if part.removed is not before[part.name].removed:
            entry["removed"] = _write_removed(folder / part.name, part, generation, fresh)
        return entry
    name = f"{generation:06d}-{secrets.token_hex(4)}"
    place = folder / name
    fresh.append(place)
    place.mkdir()
    files = {array: _save(place / f"{array}.npy", getattr(part, array)) for array in ARRAYS}
    entry = {"name": name, "ids": len(part.ids), "rows": len(part.rows), "files": files, "removed": None}
    if part.removed is not None:
        entry["removed"] = _write_removed(place, part, generation, fresh)
    _settle(place)
    return entry


def _write_removed(place: Path, part: Part, generation: int, fresh: list[Path]) -> dict[str, str]:
    path = place / f"removed-{generation:06d}.npy"
    fresh.append(path)
    return {"file": path.name, "checksum": _save(path, part.removed)}


def _read_part(folder: Path, entry: dict[str, Any], verify: bool) -> Part:
    place, removed = folder / entry["name"], entry["removed"]
    arrays = {array: _load(place / f"{array}.npy", entry["files"][array], verify) for array in ARRAYS}
    if (len(arrays["ids"]), len(arrays["rows"])) != (entry["ids"], entry["rows"]):
        raise FileFormatError(f"{place} is damaged: it does not hold as many rows as the manifest says")
    gone = _load(place / removed["file"], removed["checksum"], verify) if removed else None
    return Part(**arrays, removed=None if gone is None else np.array(gone), name=entry["name"])


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    if not path.is_file():
        raise FileFormatError(f"{folder} holds no index of codes ({NAME} is missing)")
    try:
        content = json.loads(path.read_text())
        about = content[KEY]
        if about["format"] != FORMAT:
            made = f"format {about['format']} of maxaffine {about['version']}"
            raise FileFormatError(f"{path} has {made}, this version reads {FORMAT}; update maxaffine")
        if content["checksum"] != _digest(about):
            raise ValueError("its checksum is another one")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} is damaged: {_line(error)}; build the index again") from None
    return about


def _save(path: Path, array: Any) -> str:
    return _written(path, lambda file: np.lib.format.write_array(file, np.asarray(array), allow_pickle=False))


def _written(path: Path, write: Any) -> str:
    """Write a file and see it to the disk: the checksum of its bytes."""
    with path.open("wb") as file:
        hashing = _Hashing(file)
        write(hashing)
        file.flush()
        os.fsync(file.fileno())
    return hashing.state.hexdigest()


class _Hashing:
    """A file that hashes what goes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.state = file, hashlib.blake2b(digest_size=16)

    def write(self, data: bytes) -> int:
        self.state.update(data)
        return self.file.write(data)


def _load(path: Path, checksum: str, verify: bool) -> NDArray[Any]:
    if not path.is_file():
        raise FileFormatError(f"{path} is missing; build the index again")
    if verify:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        if found != checksum:
            raise FileFormatError(
                f"{path} is damaged: its bytes are not those that were written; build the index again"
            )
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise FileFormatError(f"{path} is damaged: {_line(error)}; build the index again") from None


def _clear(folder: Path, written: list[dict[str, Any]]) -> None:
    """Take away what the manifest does not name. What cannot be deleted now is, after the next commit."""
    kept = {entry["name"]: {entry["removed"]["file"]} if entry["removed"] else set() for entry in written}
    for path in folder.glob("*-*"):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
        else:
            for old in path.glob("removed-*.npy"):
                if old.name not in kept[path.name]:
                    old.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """See the names in a folder to the disk, where folders can be opened and synced (not on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):  # some file systems cannot; the files themselves are safe
        os.fsync(handle)
    os.close(handle)


def _digest(about: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16).hexdigest()


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
