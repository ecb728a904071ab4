"""A part: the finished cells of one task as a Parquet file, a row for each convex piece.

Columns: s, t (corners, counter-clockwise), sides (for the side that leaves each corner the reduced units whose walls it
lies on, the one that cut first in front; -1 - i on side i of the domain), code (packed bits: the reduced units that are
on), cell (hash of the code, the same in all pieces of a cell), piece (hash of the bits), area (in (s, t)), A and b:
f = b + A (s, t). `units.parquet` beside the parts says which unit of which operator a reduced unit is.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maxaffine.distributed.job import Labels, Setup, fresh
from maxaffine.distributed.library import arrow, parquet
from maxaffine.distributed.pieces import bordering, named
from maxaffine.errors import FileFormatError
from maxaffine.geometry.cells import Soup
from maxaffine.geometry.kernels import BUNDLE
from maxaffine.geometry.mesh import measured
from maxaffine.geometry.relunet import TOURNAMENT, Floats, Ints

if TYPE_CHECKING:
    import pyarrow as pa

KEY = b"maxaffine"


@dataclass(frozen=True)
class Summary:
    """What the footer of a part says.

    job: name of the job. pieces: rows. cells: cells that lie in one chunk. area: of all pieces. links, torn: see
    `pieces.bordering`, summed over chunks. border: for each row group whether its pieces have sides in other chunks.
    """

    job: str
    pieces: int = 0
    cells: int = 0
    area: float = 0.0
    links: int = 0
    torn: int = 0
    border: tuple[bool, ...] = ()


class Pieces(NamedTuple):
    """Pieces as arrays: polygons with maps, the table of their bundled labels, names of their cells, areas."""

    soup: Soup
    table: Labels
    names: NDArray[np.uint64]
    areas: Floats


def path_of(folder: Path, task: int) -> Path:
    """Where the part of a task is."""
    return folder / f"cells-{task:05d}.parquet"


def write_part(setup: Setup, folder: Path, task: int, chunks: Iterator[tuple[Soup, Labels]]) -> Summary:
    """Write the chunks of a task, each as a row group of pieces inside and one of those at its border."""
    schema, found = schema_of(setup), Summary(setup.name)
    with fresh(path_of(folder, task)) as file:
        options = {"use_dictionary": False, "compression": "none", "write_statistics": False}
        with parquet().ParquetWriter(file, schema, **options) as writer:
            for soup, table in chunks:
                found = _write_chunk(setup, writer, found, soup, table)
            writer.add_key_value_metadata({KEY.decode(): json.dumps(asdict(found))})
    return found


def _write_chunk(setup: Setup, writer: Any, found: Summary, soup: Soup, table: Labels) -> Summary:
    net = setup.job.net
    rows = (soup.e, soup.off, soup.bits, soup.h)
    border, whole, links, torn = bordering(rows, table, net.last, net.left, net.right, setup.merging)
    names = soup.h
    if setup.merging:
        inside, finals = net.kind == TOURNAMENT, np.ascontiguousarray(net.roots[:, 2])
        names = named(soup.bits, soup.h, inside, finals, net.left, net.right)
    areas = measured(np.stack([soup.x, soup.y], 1), soup.off, np.arange(len(soup.x)))[0]
    cells = as_table(setup, soup, table, names, areas)
    groups = []
    for at_border in (False, True):
        chosen = np.flatnonzero(border == at_border)
        if len(chosen):
            rows = cells if len(chosen) == len(border) else cells.take(arrow().array(chosen))
            writer.write_table(rows, row_group_size=len(chosen))
            groups.append(at_border)
    return Summary(
        found.job,
        found.pieces + len(soup.h),
        found.cells + int(whole),
        found.area + float(areas.sum()),
        found.links + int(links),
        found.torn + int(torn),
        (*found.border, *groups),
    )


def read_summary(path: Path) -> Summary:
    """The footer of a part. Raises FileFormatError when it is damaged or no part."""
    try:
        content = json.loads(parquet().read_metadata(path).metadata[KEY])
        return Summary(**{**content, "border": tuple(content["border"])})
    except (OSError, arrow().ArrowException, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FileFormatError(f"{path} is damaged ({reason}); delete it and start again, the rest is kept") from None


def read_groups(path: Path, summary: Summary, border: bool | None = None, columns: Any = None) -> "Iterator[pa.Table]":
    """The row groups of a part: all, those at borders or those inside."""
    with parquet().ParquetFile(path) as file:
        for i, at_border in enumerate(summary.border):
            if border is None or at_border == border:
                yield file.read_row_group(i, columns)


# ---- columns ----------------------------------------------------------------------------------------------


def schema_of(setup: Setup) -> "pa.Schema":
    """Names and types of the columns."""
    pa = arrow()
    words, outputs = setup.frontier.store.bits.shape[1], max(1, len(setup.job.net.A) - setup.job.net.units)
    return pa.schema(
        [
            ("s", pa.list_(pa.float64())),
            ("t", pa.list_(pa.float64())),
            ("sides", pa.list_(pa.list_(pa.int32()))),
            ("code", pa.binary(8 * words)),
            ("cell", pa.uint64()),
            ("piece", pa.uint64()),
            ("area", pa.float64()),
            ("A", pa.list_(pa.float64(), 2 * outputs)),
            ("b", pa.list_(pa.float64(), outputs)),
        ]
    )


def as_table(setup: Setup, soup: Soup, table: Labels, names: NDArray[np.uint64], areas: Floats) -> "pa.Table":
    """The pieces of a chunk as columns."""
    pa, schema = arrow(), schema_of(setup)
    offsets = pa.array(soup.off.astype(np.int32))
    firsts, units = lists_of(soup.e, table)
    per_side = pa.ListArray.from_arrays(pa.array(firsts.astype(np.int32)), pa.array(units))
    count = len(soup.h)
    bits = pa.FixedSizeBinaryArray.from_buffers(schema.field("code").type, count, [None, pa.py_buffer(soup.bits)])
    columns = [
        pa.ListArray.from_arrays(offsets, pa.array(soup.x)),
        pa.ListArray.from_arrays(offsets, pa.array(soup.y)),
        pa.ListArray.from_arrays(offsets, per_side),
        bits,
        pa.array(names),
        pa.array(soup.h),
        pa.array(areas),
        pa.FixedSizeListArray.from_arrays(pa.array(soup.maps[..., 1:].reshape(-1)), type=schema.field("A").type),
        pa.FixedSizeListArray.from_arrays(pa.array(soup.maps[..., 0].reshape(-1)), type=schema.field("b").type),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def as_pieces(tables: "list[pa.Table]") -> Pieces:
    """Columns as pieces again: arrays of our own (compiled code does not take what is read-only)."""
    whole = arrow().concat_tables(tables).combine_chunks()
    column = {name: _single(whole[name]) for name in whole.column_names}
    off = column["s"].offsets.to_numpy().astype(np.int64)
    nested = column["sides"].flatten()
    firsts = nested.offsets.to_numpy().astype(np.int64)
    e, table = labels_of(firsts - firsts[0], nested.flatten().to_numpy())
    count = len(whole)
    maps = np.empty((count, len(column["b"].flatten()) // max(1, count), 3))
    maps[..., 0] = column["b"].flatten().to_numpy().reshape(maps.shape[:2])
    maps[..., 1:] = column["A"].flatten().to_numpy().reshape(*maps.shape[:2], 2)
    x, y = (np.array(column[name].flatten()) for name in ("s", "t"))
    soup = Soup(x, y, e, off - off[0], bits_of(column["code"]), np.array(column["piece"]), maps)
    return Pieces(soup, table, np.array(column["cell"]), np.array(column["area"]))


def bits_of(codes: Any) -> NDArray[np.uint64]:
    """(F, W) from a column of packed bits."""
    width = codes.type.byte_width
    raw = np.frombuffer(codes.buffers()[1], np.uint8)[codes.offset * width : (codes.offset + len(codes)) * width]
    return raw.reshape(len(codes), width).copy().view(np.uint64)


def _single(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


# ---- labels of sides --------------------------------------------------------------------------------------


def lists_of(e: Labels, table: Labels) -> tuple[Ints, Labels]:
    """Labels with their table of bundles -> (offsets, units): the units of each side, the first to cut in front."""
    current, counts, found = e.copy(), np.ones(len(e), np.int64), []
    while len(rows := np.flatnonzero(current >= BUNDLE)):
        entry = table[current[rows] - BUNDLE]
        found.append((rows, entry[:, 1]))
        current[rows] = entry[:, 0]
        counts[rows] += 1
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    units = np.empty(offsets[-1], np.int32)
    units[offsets[:-1]] = current
    for depth, (rows, extra) in enumerate(found):
        units[offsets[rows + 1] - 1 - depth] = extra
    return offsets, units


def labels_of(offsets: Ints, units: Labels) -> tuple[Labels, Labels]:
    """The inverse of lists_of."""
    counts = np.diff(offsets)
    e = units[offsets[:-1]].astype(np.int32)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts - 1)])
    side = np.repeat(np.arange(len(e)), counts - 1)
    row = np.arange(starts[-1])
    depth = row - starts[side]
    table = np.empty((len(row), 2), np.int32)
    table[:, 0] = np.where(depth == 0, e[side], BUNDLE + row - 1)
    table[:, 1] = units[offsets[side] + 1 + depth]
    many = counts > 1
    e[many] = BUNDLE + starts[1:][many] - 1
    return e, table
