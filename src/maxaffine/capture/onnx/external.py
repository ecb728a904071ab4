"""The bytes of an ONNX file and of the weights beside it: read from the folder of the model alone, never more."""

import gzip
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from maxaffine.errors import FileFormatError

LARGEST = 2**31  # bytes: protobuf holds no larger message


def read_bytes(path: Path) -> bytes:
    """The whole file, unpacked if its name ends in .gz. Raises FileFormatError."""
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            data = file.read(LARGEST)  # a small file can unpack to more than fits
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FileFormatError(f"{path} is not a whole gzip file: {line_of(error)}") from None
    except (OSError, ValueError) as error:
        raise FileFormatError(f"cannot read {path}: {line_of(error)}") from None
    if len(data) == LARGEST:
        raise FileFormatError(f"{path} unpacks to more than {LARGEST} bytes, which no ONNX file has")
    return data


def load_external(tensors: Iterable[Any], path: Path, external: int) -> None:
    """Fill in the tensors whose bytes lie in another file of the folder of the model at `path`.

    external: the value of `data_location` that says so. Raises FileFormatError.
    """
    for tensor in tensors:
        if tensor.data_location == external:
            tensor.raw_data = _bytes_of({e.key: e.value for e in tensor.external_data}, tensor.name, path)
            tensor.data_location = 0
            del tensor.external_data[:]


def _bytes_of(entries: Mapping[str, str], name: str, path: Path) -> bytes:
    location = entries.get("location", "")
    try:
        return _part(path.parent.resolve(), location, int(entries.get("offset", 0)), int(entries.get("length", -1)))
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, a loop of links, a number that is none
        raise FileFormatError(f"{path}: the data of '{name}' is not read from {location!r}: {line_of(error)}") from None


def _part(folder: Path, location: str, offset: int, length: int) -> bytes:
    target = (folder / location).resolve()  # follows links: a link out of the folder is out of the folder
    if not location or Path(location).is_absolute() or not target.is_relative_to(folder):
        raise OSError("that is outside the folder of the model")
    size = target.stat().st_size
    if not target.is_file():  # a pipe would wait for ever
        raise OSError("that is no regular file")
    stop = size if length < 0 else offset + length
    if not 0 <= offset <= stop <= size:
        raise OSError(f"that has {size} bytes, and those {offset} to {stop} were asked for")
    with target.open("rb") as file:
        file.seek(offset)
        return file.read(stop - offset)


def line_of(error: Exception) -> str:
    """The first line of a message, or the name of its class."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (said.strip().splitlines() or [type(error).__name__])[0]
