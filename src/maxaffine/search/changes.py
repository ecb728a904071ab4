"""What an index holds after rows were added or removed: values of values, nothing is written here."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from maxaffine import arguments
from maxaffine.code import Code, same_signature
from maxaffine.errors import InputError
from maxaffine.search.kinds import EXACT, KINDS
from maxaffine.search.layout import layout_of
from maxaffine.search.part import Ids, Part, fold, merge
from maxaffine.search.scan import faiss_for
from maxaffine.search.store import State
from maxaffine.types import Names

PART = 2**30  # bytes; larger parts are not merged any more


def empty(code: Code, kind: str, operators: Names | None) -> State:
    """An index for codes like these that holds none."""
    arguments.require(code, Code, "code", "the codes of spline.code(x)")
    if kind not in KINDS:
        raise InputError(f"kind is {arguments.told(kind)}; give one of {', '.join(KINDS)}")
    if kind != EXACT:
        faiss_for(kind)
    return State(layout_of(code, operators), code.weights, kind)


def check(state: State, code: Code) -> None:
    """Raise InputError unless the code is of the network whose codes are indexed."""
    mine = Code(state.layout.signature, (), 0)
    same_signature(mine, arguments.require(code, Code, "code", "the codes of spline.code(x)"))
    if code.weights != state.weights:
        raise InputError(
            f"the codes were made by other weights ({code.weights}) than those of the index ({state.weights}); "
            "build an index of their own for them"
        )


def added(state: State, code: Code, ids: Any) -> tuple[State, Part | None, Ids]:
    """With more codes; they as a part of their own, and their ids."""
    check(state, code)
    named = new_ids(ids, len(code), state)
    if not len(named):
        return state, None, named
    fresh = fold(state.layout.rows(code), named)
    next_id = max(state.next_id, int(named.max()) + 1)
    return replace(state, parts=grown(state.parts, fresh), next_id=next_id), fresh, named


def without(state: State, ids: Any) -> State:
    """Without some rows; a part that loses more than half of its rows is written anew."""
    gone = whole(ids)
    held = np.zeros(len(gone), bool)
    for part in state.parts:
        held |= np.isin(gone, part.live)
    if not held.all():
        unknown = gone[~held][:5].tolist()
        raise InputError(f"ids {unknown} are not in the index or were removed; index.ids are those there")
    changed = (part.without(gone) if bool(np.isin(part.live, gone).any()) else part for part in state.parts)
    left = (merge([part]) if 2 * len(part) < len(part.ids) else part for part in changed if len(part))
    return replace(state, parts=tuple(left))


def grown(old: tuple[Part, ...], fresh: Part) -> tuple[Part, ...]:
    """The parts and a new one, which swallows those before it that are at most twice as large: few parts are left."""
    kept, tail = list(old), [fresh]
    while kept and len(kept[-1].ids) <= 2 * sum(len(part) for part in tail):
        if kept[-1].rows.nbytes + sum(part.rows.nbytes for part in tail) > PART:
            break
        tail.insert(0, kept.pop())
    return (*kept, tail[0] if len(tail) == 1 else merge(tail))


def new_ids(ids: Any, count: int, state: State) -> Ids:
    """The ids of new rows."""
    if ids is None:
        if state.next_id + count > 2**63:
            raise InputError(f"no running numbers follow the id {state.next_id - 1}; give ids")
        return np.arange(state.next_id, state.next_id + count)
    found = whole(ids)
    if len(found) != count or len(np.unique(found)) < count:
        raise InputError(
            f"{len(found)} ids, {len(np.unique(found))} of them different, for {count} codes; give one each"
        )
    if count and int(found.min()) < 0:
        raise InputError(f"ids hold {int(found.min())}; give whole numbers >= 0")
    if count and int(found.min()) < state.next_id:
        taken = [i for part in state.parts for i in part.live[np.isin(part.live, found)]]
        if taken:
            raise InputError(f"ids {[int(i) for i in taken[:5]]} are in the index already; remove them first")
    return found


def whole(ids: Any) -> Ids:
    """Whole numbers as (N,) int64, a copy."""
    give = "whole numbers, one a row"
    try:
        found = torch.as_tensor(ids)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"ids is {arguments.told(ids)}; give {give}") from None
    if not found.numel():
        return np.empty(0, np.int64)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool or found.dim() > 1:
        raise InputError(f"ids is {arguments.told(found)}; give {give}")
    return found.flatten().cpu().to(torch.int64).numpy().copy()
