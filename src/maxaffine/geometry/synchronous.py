"""The cells of a ReluNet in a polygon by tensor operations alone, level by level, on any device with float64.

All cells of a group are cut by a whole level at once: one matrix product gives the pre-activations, their extremes at
the corners tell which units cross which cells, and synchronous_cut.py cuts. A group that would take too many bytes is
cut in two along the longer side of its box; then the units that cannot switch in a half's box are left out of the net.
The same cells come back as from cells.find_cells, in another order. The hierarchy of groups and of their nets is that
of exploring.explore; what a GPU needs is that they are large.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.geometry.cells import Job, Soup, Vanishing, stopped
from maxaffine.geometry.exploring import FLAT
from maxaffine.geometry.kernels import CULLED, DOUBT, SHRUNK, STRICT, TIED
from maxaffine.geometry.synchronous_cull import Layers, box_of, culled, layers_of
from maxaffine.geometry.synchronous_cut import Bundles, Crossings, Polygons, Ragged, cut, flattened, signed

FEWEST = 32  # cells are cut together, whatever the memory


class Cells(NamedTuple):
    """C cells that are cut by the units before a level.

    maps: (C, 3, n) relu(z) of the units that later ones read, against 1, s, t. bits: (C, W) the units that are on.
    """

    polygons: Polygons
    maps: Tensor
    bits: Tensor


@dataclass(frozen=True)
class Source:
    """What the pieces of cut cells inherit: their cells, and how the units of the level stand in those.

    maps: (C, 3, a) of the units before the level that later ones read. z: (C, 3, b) pre-activations of those of the
    level that later ones read, `read` (b,) which they are. on: (C, m) the units that are on in the whole cell, ids (m,)
    their numbers. crossings: the units that are neither on nor off.
    """

    maps: Tensor
    bits: Tensor
    z: Tensor
    read: Tensor
    on: Tensor
    ids: Tensor
    crossings: Crossings


@dataclass(frozen=True)
class Group:
    """Some of the pieces of a source, to be cut from a level on.

    polygons, parent, signs: all pieces, as in synchronous_cut.Pieces. members: (N,) those of the group. area: of the
    box that the net was last culled for.
    """

    layers: Layers
    level: int
    source: Source
    polygons: Ragged
    parent: Tensor
    signs: Tensor
    members: Tensor
    area: float

    def __len__(self) -> int:
        return len(self.members)


@dataclass
class Found:
    """Finished cells, on the CPU."""

    hashes: Tensor
    parts: list[tuple[Tensor, ...]] = field(default_factory=list)
    count: int = 0

    def add(self, cells: Cells, maps: Tensor) -> None:
        """Append cells with their output maps (C, O, 3)."""
        flat = flattened([cells.polygons])
        arrays = (flat.x, flat.y, flat.e, flat.n, cells.bits, hashed_bits(cells.bits, self.hashes), maps)
        self.parts.append(tuple(a.contiguous().cpu() for a in arrays))
        self.count += len(maps)

    def soup(self) -> Soup:
        """All of them."""
        x, y, e, n, bits, h, maps = (torch.cat(arrays).numpy() for arrays in zip(*self.parts, strict=True))
        off = np.concatenate([np.zeros(1, np.int64), np.cumsum(n)])
        return Soup(x, y, e, off, bits.view(np.uint64), h.view(np.uint64), maps)


@dataclass
class Search:
    """The groups that wait, depth first, and what was found."""

    found: Found
    bundles: Bundles
    stack: list[Group]
    limit: int
    memory: int

    def step(self) -> None:
        """Split the group on top, or cut it by its level, or take it as finished."""
        group = self.stack.pop()
        if len(group) > _room(group, self.memory):
            self.stack += _split(group)
            return
        level, last = group.level, group.layers.depth
        layers, cells, area = _culled(group, _inherited(group))
        while level < last and layers.width(level) == 0:
            level += 1
        if level == last:
            self.found.add(cells, layers.product(last, cells.maps).transpose(1, 2))
            self.check(0)
        else:
            self.stack.append(self.advanced(layers, level, cells, area))

    def advanced(self, layers: Layers, level: int, cells: Cells, area: float) -> Group:
        """The pieces of the cells, cut by one level."""
        source = _crossed(layers, level, cells)
        pieces, count = [], 0
        for done, left in cut(cells.polygons, source.crossings, self.bundles, self.memory):
            count += len(done.parent)
            self.check(count + left)
            pieces.append(done)
        polygons = flattened([p.polygons for p in pieces])
        parent, signs = torch.cat([p.parent for p in pieces]), torch.cat([p.signs for p in pieces])
        members = torch.arange(count, device=parent.device)
        return Group(layers, level + 1, source, polygons, parent, signs, members, area)

    def check(self, more: int) -> None:
        """Raise MemoryBudgetError if there are too many cells already: none of those that wait will vanish."""
        if self.found.count + sum(len(group) for group in self.stack) + more > self.limit:
            raise stopped(self.limit)


def find_cells_on(job: Job, device: torch.device, limit: int, memory: int) -> tuple[Soup, NDArray[np.int32]]:
    """All cells of the job and the table of bundled labels, computed on a device, returned on the CPU.

    memory: bytes that the work on one group of cells may take; groups that wait keep theirs, at most one for each
    level. Raises MemoryBudgetError after more than `limit` cells, DegenerateSliceError when a unit vanishes on a cell
    up to rounding only, InputError for a device that is not there or has no float64.

    >>> import maxaffine as ma
    >>> from maxaffine.geometry.planes import reduced
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 2))
    >>> plane = ma.Plane.square(torch.zeros(2), torch.tensor([1.0, 0]), torch.tensor([0, 1.0]))
    >>> job = Job(reduced(spline, plane), plane.corners, zero=1e-13)
    >>> soup, _ = find_cells_on(job, torch.device("cpu"), limit=100, memory=2**20)
    >>> len(soup.h), len(soup.x)
    (4, 16)
    """
    require(device)
    search = Search(Found(hashes_of(job.net.units, device)), Bundles(), [_whole(job, device)], limit, memory)
    while search.stack:
        search.step()
    table = torch.cat(
        [torch.zeros(0, 2, dtype=torch.int32, device="cpu"), *(part.cpu() for part in search.bundles.parts)]
    )
    return search.found.soup(), table.numpy()


def working_memory(device: torch.device) -> int:
    """Bytes for a group of cells that suit the device: an eighth of what is free on a GPU, what a CPU's cache likes."""
    return torch.cuda.mem_get_info(device)[0] // 8 if device.type == "cuda" else 1 << 25


def require(device: torch.device) -> None:
    """Raise InputError for a device on which partitions cannot be found."""
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {device.type!r} cannot compute partitions in float64; take 'cpu' or 'cuda'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{device}' is not there: torch sees no CUDA device; take 'cpu'")


def _whole(job: Job, device: torch.device) -> Group:
    """The domain as one piece of a cell that no unit has cut."""
    x, y = torch.tensor(job.corners, device=device).T.contiguous()
    e = -1 - torch.arange(len(x), dtype=torch.int32, device=device)
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    bits = zero.new_zeros(1, max(1, -(-job.net.units // 64)))
    none, maps = zero[:0], x.new_zeros(1, 3, 0)
    crossings = Crossings(zero, zero, none, none, x.new_zeros(0, 3), x[:0], x[:0])
    source = Source(maps, bits, maps, none, zero.new_zeros(1, 0).bool(), none, crossings)
    polygons = Ragged(x, y, e, zero, zero + len(x))
    area = box_of(polygons.padded(zero)).area
    return Group(layers_of(job, device), 0, source, polygons, zero, zero[:, None], zero, area)


def _room(group: Group, memory: int) -> int:
    """How many cells of the group can be cut by its level within the memory."""
    layers, level, source = group.layers, group.level, group.source
    before, now = source.maps.shape[2] + source.z.shape[2], layers.width(level)
    corners = int(group.polygons.n[group.members].max())
    numbers = 6 * before + 2 * source.on.shape[1] + 12 * now + 8 * corners + 3 * source.bits.shape[1]
    return max(FEWEST, memory // (8 * numbers))


def _split(group: Group) -> list[Group]:
    """Both halves, along the longer side of the box."""
    polygons, members = group.polygons, group.members
    corner = polygons.start[members]
    x, y = polygons.x[corner], polygons.y[corner]
    along = torch.where(x.amax() - x.amin() >= y.amax() - y.amin(), x, y)
    order, middle = members[along.argsort(stable=True)], len(members) // 2
    return [replace(group, members=order[middle:]), replace(group, members=order[:middle])]


def _inherited(group: Group) -> Cells:
    """The pieces of the group as cells of their own."""
    source, members = group.source, group.members
    parent, crossings = group.parent[members], source.crossings
    on, count = source.on[parent], crossings.count[parent]
    piece = torch.arange(len(parent), device=parent.device).repeat_interleave(count)
    turn = torch.arange(len(piece), device=parent.device) - (count.cumsum(0) - count)[piece]
    sign = group.signs[members[piece], turn >> 6] >> (turn & 63)
    on[piece, crossings.column[crossings.first[parent[piece]] + turn]] = (sign & 1) == 1
    maps = torch.cat([source.maps[parent], source.z[parent] * on[:, None, source.read]], 2)
    bits = source.bits[parent].index_add_(1, source.ids >> 6, on.long() << (source.ids & 63))
    return Cells(group.polygons.padded(members), maps, bits)


def _culled(group: Group, cells: Cells) -> tuple[Layers, Cells, float]:
    """The net and the cells without the units that cannot switch, if the box has shrunk enough to look for them."""
    layers, box = group.layers, box_of(cells.polygons)
    if group.level == layers.depth or len(group) < CULLED or box.area * SHRUNK >= group.area:
        return layers, cells, group.area
    layers, maps, on = culled(layers, group.level, box, cells.polygons, cells.maps)
    mask = cells.bits.new_zeros(cells.bits.shape[1]).index_add_(0, on >> 6, torch.ones_like(on) << (on & 63))
    return layers, Cells(cells.polygons, maps, cells.bits | mask), box.area


def _crossed(layers: Layers, level: int, cells: Cells) -> Source:
    """How the units of a level stand in the cells."""
    columns, z = layers.columns(level), layers.product(level, cells.maps)
    eps, ids = layers.eps[columns], layers.ids[columns]
    low, high = _extremes(z, cells.polygons)
    above, below = high > eps, low < -eps
    _refuse_noise(layers, level, z, ~(above | below))
    listed = (above | below) & (low <= eps) & (high >= -eps)
    cell, column = listed.nonzero(as_tuple=True)
    count = listed.sum(1)
    doubt = torch.where(layers.strict[columns] > TIED, DOUBT * eps, torch.inf)
    within = (eps[column], doubt[column])
    crossings = Crossings(count.cumsum(0) - count, count, ids[column], column, z[cell, :, column], *within)
    kept = layers.uses[layers.live(level)] > level
    read = (layers.uses[columns] > level).nonzero(as_tuple=True)[0]
    return Source(cells.maps[:, :, kept], cells.bits, z[:, :, read], read, above & ~below & ~listed, ids, crossings)


def _extremes(z: Tensor, polygons: Polygons) -> tuple[Tensor, Tensor]:
    """Smallest and largest value (C, m) of affine functions (C, 3, m) at the corners of their cells."""
    one, s, t = z.unbind(1)
    low, high = torch.full_like(one, torch.inf), torch.full_like(one, -torch.inf)
    for v in range(polygons.x.shape[1]):
        value = one + s * polygons.x[:, v, None] + t * polygons.y[:, v, None]
        low, high = torch.minimum(low, value), torch.maximum(high, value)
    return low, high


def _refuse_noise(layers: Layers, level: int, z: Tensor, zero: Tensor) -> None:
    """A strict unit that vanishes on a cell, but up to rounding only, is refused: see exploring.noisy."""
    columns = layers.columns(level)
    flat = z[:, 1].abs() + z[:, 2].abs() <= FLAT * layers.eps[columns]
    bad = zero & (layers.strict[columns] == STRICT) & (z != 0).any(1) & flat
    units = bad.any(0).nonzero(as_tuple=True)[0]
    if len(units):
        raise Vanishing(int(layers.ids[columns][units[0]]))


# The hash of a cell: the exclusive or of those of its units.


def hashes_of(units: int, device: torch.device) -> Tensor:
    """(U,) kernels.hashed of every unit, in int64: products wrap around, shifts are made logical by a mask."""
    z = torch.arange(1, units + 1, device=device) * signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ shifted(z, shift)) * signed(factor)
    return z ^ shifted(z, 31)


def shifted(z: Tensor, by: int) -> Tensor:
    """The bits of int64 moved down, zeros from above."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def hashed_bits(bits: Tensor, hashes: Tensor) -> Tensor:
    """(C, W) units that are on -> (C,) exclusive or of their hashes, eight units at a time from a table."""
    single = torch.nn.functional.pad(hashes, (0, 64 * bits.shape[1] - len(hashes))).reshape(-1, 8)
    table = single.new_zeros(len(single), 1)
    for k in range(8):
        table = torch.cat([table, table ^ single[:, k, None]], 1)
    h = bits.new_zeros(len(bits))
    for k in range(len(single)):
        h ^= table[k][(bits[:, k >> 3] >> 8 * (k & 7)) & 255]
    return h
