"""Codes in files: one packed column an operator, structure and weights in the metadata; nothing in a file executes."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maxaffine.code.packing import bytes_of, pack, unpack
from maxaffine.code.signature import Signature, Units
from maxaffine.errors import FileFormatError, MissingExtraError
from maxaffine.types import __version__, flat

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
KEY = "maxaffine-codes"


class Contents(NamedTuple):
    """What a file of codes holds: values (N, *units) of each operator, and the fingerprint of the weights."""

    signature: Signature
    values: tuple[Tensor, ...]
    count: int
    weights: str | None


def save(code: Contents, path: Path) -> None:
    """Write the codes; see `Code.save`."""
    writer = _of_ending(_WRITERS, path)
    part = path.with_name(f".{path.name}.part")
    try:
        writer(code, part)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise FileFormatError(f"cannot write {path}: {error}") from None


def load(path: Path) -> Contents:
    """Read the codes; see `Code.load`."""
    reader = _of_ending(_READERS, path)
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file")
    try:
        return reader(path)
    except FileFormatError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise FileFormatError(f"{path} is damaged: {_line(error)}; write the codes again") from None


def checksum(about: str, packed: Mapping[str, Tensor]) -> str:
    """32 hexadecimal digits of what the metadata say of the codes, and of the packed codes."""
    state = hashlib.blake2b(about.encode(), digest_size=16)
    for column in packed.values():
        state.update(np.ascontiguousarray(column.numpy()).data)
    return state.hexdigest()


def header(signature: Signature, weights: str | None) -> str:
    """What the metadata of a file says of its codes, as JSON."""
    units = [[u.name, u.kind, u.pieces, list(u.shape)] for u in signature]
    about = {"format": FORMAT, "version": __version__, "units": units, "in_shape": list(signature.in_shape)}
    return json.dumps(about | {"structure": signature.digest(), "weights": weights})


def read_header(text: str, name: str) -> tuple[Signature, str | None]:
    """Signature and weights from the metadata of a file. Raises FileFormatError."""
    try:
        about = json.loads(text)
        if about["format"] != FORMAT:
            made = f"format {about['format']} of maxaffine {about['version']}"
            raise FileFormatError(f"{name} has {made}, this version reads {FORMAT}; update maxaffine")
        units = tuple(Units(str(n), str(k), int(r), _shape(shape)) for n, k, r, shape in about["units"])
        signature, weights = Signature(units, _shape(about["in_shape"])), about["weights"]
        if signature.digest() != about["structure"] or type(weights) not in (str, type(None)):
            raise FileFormatError(f"{name} is damaged: its structure is not the one it was written with")
    except FileFormatError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{name} is damaged: {_line(error)} in what it says of its codes") from None
    return signature, weights


def columns(code: Contents) -> dict[str, Tensor]:
    """The packed code of each operator, (N, bytes) uint8 on the CPU."""
    return {
        units.name: pack(flat(value), units.pieces).cpu()
        for units, value in zip(code.signature, code.values, strict=True)
    }


def from_columns(
    signature: Signature, weights: str | None, packed: Mapping[str, Tensor], count: int, name: str = "the file"
) -> Contents:
    """The inverse of `columns`. Raises FileFormatError when a column is missing, too short or holds no piece."""
    for units in signature:
        shape = tuple(packed[units.name].shape) if units.name in packed else None
        if shape != (count, bytes_of(units)):
            raise FileFormatError(f"{name} is damaged: {units.name!r} has {shape}, not {(count, bytes_of(units))}")
    values = tuple(unpack(packed[units.name], units) for units in signature)
    for units, value in zip(signature, values, strict=True):
        if value.numel() and int(value.max()) >= units.pieces:
            raise FileFormatError(f"{name} is damaged: {units.name!r} holds piece {int(value.max())}")
    return Contents(signature, values, count, weights)


def _metadata(code: Contents, packed: Mapping[str, Tensor]) -> dict[str, str]:
    about = header(code.signature, code.weights)
    return {KEY: about, "count": str(code.count), "checksum": checksum(about, packed)}


def _check(about: str, packed: Mapping[str, Tensor], wanted: str, name: str) -> None:
    if checksum(about, packed) != wanted:
        raise FileFormatError(f"{name} is damaged: its codes are not those that were written; write them again")


def _shape(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _of_ending(table: Mapping[str, Callable[..., Any]], path: Path) -> Callable[..., Any]:
    if path.suffix not in table:
        raise FileFormatError(f"codes are saved as {' or '.join(table)}, got {path.name!r}")
    return table[path.suffix]


# ---- safetensors ------------------------------------------------------------------------------------------


def _write_safetensors(code: Contents, path: Path) -> None:
    packed = columns(code)
    tensors = {str(i): column.contiguous() for i, column in enumerate(packed.values())}
    save_file(tensors, path, metadata=_metadata(code, packed))


def _read_safetensors(path: Path) -> Contents:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if KEY not in metadata:
        raise FileFormatError(f"{path.name} is a safetensors file, but not one that Code.save wrote")
    signature, weights = read_header(metadata[KEY], path.name)
    packed = {units.name: tensors[str(i)] for i, units in enumerate(signature)}
    _check(metadata[KEY], packed, metadata["checksum"], path.name)
    return from_columns(signature, weights, packed, int(metadata["count"]), path.name)


# ---- Parquet ----------------------------------------------------------------------------------------------


def arrow_column(packed: Tensor) -> "pa.Array":
    """(N, bytes) uint8 as fixed-size binaries, without a copy."""
    import pyarrow as pa

    rows = np.ascontiguousarray(packed.numpy())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(rows)])


def from_arrow(column: Any) -> Tensor:
    """Fixed-size binaries as (N, bytes) uint8, a copy."""
    array, width = column.combine_chunks(), column.type.byte_width
    chunks = array.chunks if column.num_chunks != 1 and not width else [array]
    found = [np.frombuffer(c.buffers()[1], np.uint8)[c.offset * width : (c.offset + len(c)) * width] for c in chunks]
    return torch.from_numpy(np.concatenate(found).reshape(-1, width).copy())


def _write_parquet(code: Contents, path: Path) -> None:
    pa, parquet = _arrow()
    packed = columns(code)
    table = pa.table({name: arrow_column(column) for name, column in packed.items()})
    table = table.replace_schema_metadata(_metadata(code, packed))
    parquet.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)


def _read_parquet(path: Path) -> Contents:
    pa, parquet = _arrow()
    try:
        table = parquet.read_table(path)
    except pa.ArrowException as error:
        raise FileFormatError(f"{path} is damaged: {_line(error)}; write the codes again") from None
    metadata = table.schema.metadata or {}
    if KEY.encode() not in metadata:
        raise FileFormatError(f"{path.name} is a Parquet file, but not one that Code.save wrote")
    about = metadata[KEY.encode()].decode()
    signature, weights = read_header(about, path.name)
    packed = {name: from_arrow(table[name]) for name in table.column_names}
    _check(about, packed, metadata[b"checksum"].decode(), path.name)
    return from_columns(signature, weights, packed, int(metadata[b"count"]), path.name)


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError('Parquet files need pyarrow: pip install "maxaffine[search]"') from None
    return pyarrow, parquet


_WRITERS: dict[str, Callable[[Contents, Path], None]] = {".safetensors": _write_safetensors, ".parquet": _write_parquet}
_READERS: dict[str, Callable[[Path], Contents]] = {".safetensors": _read_safetensors, ".parquet": _read_parquet}
