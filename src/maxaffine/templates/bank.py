"""The bank of templates of a batch, and how the values of correct and wrong classes are taken out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.affine import AffineMap
from maxaffine.errors import InputError


@dataclass(frozen=True, eq=False)
class Templates:
    """The matched filters A_c and biases b_c of N signals x: score_c = <A_c, x> + b_c.

    A: (N, C, *in), b: (N, C), x: (N, *in); classes: (C,) the flat output that each template belongs to. Made by
    `templates`. Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5.
    """

    A: Tensor
    b: Tensor
    x: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def inner(self) -> Tensor:
        """(N, C): the inner products <A_c, x>, what the filters answer."""
        return (self._rows @ self.x.flatten(1).unsqueeze(2)).squeeze(2)

    @property
    def scores(self) -> Tensor:
        """(N, C): <A_c, x> + b_c, the outputs of the network (completeness)."""
        return self.inner + self.b

    @property
    def margins(self) -> Tensor:
        """(N, C, C): entry (c, d) is <A_c - A_d, x>, by how much filter c answers more than filter d."""
        return self.inner.unsqueeze(2) - self.inner.unsqueeze(1)

    @cached_property
    def norms(self) -> Tensor:
        """(N, C): the lengths |A_c|."""
        return torch.linalg.vector_norm(self._rows, dim=2)

    @cached_property
    def gram(self) -> Tensor:
        """(N, C, C): the inner products <A_c, A_d>."""
        return self._rows @ self._rows.mT

    @property
    def cosines(self) -> Tensor:
        """(N, C, C): cos(A_c, A_d), from -1 to 1; NaN where a template is zero, as it has no direction."""
        cosines = self.gram / (self.norms.unsqueeze(2) * self.norms.unsqueeze(1))
        return cosines.clamp(-1, 1)  # rounding may lead beyond

    @property
    def alignments(self) -> Tensor:
        """(N, C): cos(A_c, x), from -1 to 1: +-1 where a template is a copy of its input; NaN for a zero vector."""
        lengths = torch.linalg.vector_norm(self.x.flatten(1), dim=1, keepdim=True)
        return (self.inner / (self.norms * lengths)).clamp(-1, 1)

    @property
    def _rows(self) -> Tensor:
        return self.A.flatten(2)


def templates(f: AffineMap, x: Tensor, classes: Sequence[int] | Tensor | None = None) -> Templates:
    """The templates of the affine maps f = spline.at(x) at their signals x (N, *in).

    classes: only those flat outputs (K of them; default all). With f = spline.at(x, output=name) these are the
    templates of that operator's units, its pre-activations; with create_graph=True everything is differentiable.
    Raises InputError for inputs of another shape, MemoryBudgetError when A does not fit.

    >>> import torch, maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2, bias=False))
    >>> x = torch.tensor([[3.0, 4.0]])
    >>> spline = ma.Spline(net, x)
    >>> bank = templates(spline.at(x), x)
    >>> bool(torch.allclose(bank.inner + bank.b, net(x), atol=1e-6))
    True
    >>> templates(spline.at(x, output="1"), x, classes=[1]).A.shape  # the second hidden unit's
    torch.Size([1, 1, 2])
    """
    arguments.require(f, AffineMap, "f", "the affine maps spline.at(x)")
    arguments.values(x, "x", "the signals (N, *in) that the maps were made at")
    if tuple(x.shape) != (len(f), *f.in_shape):
        raise InputError(f"x has shape {tuple(x.shape)}; the maps were made for {(len(f), *f.in_shape)}")
    if x.dtype != f.maps.dtype or x.device != f.maps.device:
        raise InputError(f"x is {x.dtype} on {x.device}, the maps {f.maps.dtype} on {f.maps.device}; use x.to(...)")
    outs, b = prod(f.out_shape), f.b.reshape(len(f), -1)
    if classes is None:
        return Templates(f.A.reshape(len(f), outs, *f.in_shape), b, x, torch.arange(outs))
    rows = f.rows(classes)
    chosen = torch.as_tensor(classes, dtype=torch.long).flatten() % outs
    return Templates(rows, b[:, chosen.to(b.device)], x, chosen)


def correct(values: Tensor, labels: Tensor | Sequence[int]) -> Tensor:
    """Of values (N, C, ...) those of each row's own class: (N, ...).

    >>> correct(torch.tensor([[1.0, 2.0, 3.0]]), [2])
    tensor([3.])
    """
    _check_values(values, 2)
    y = checked_labels(labels, len(values), values.shape[1]).to(values.device)
    return values[torch.arange(len(values), device=values.device), y]


def wrong(values: Tensor, labels: Tensor | Sequence[int]) -> Tensor:
    """Of values (N, C) those of the other classes, in their order: (N, C - 1).

    >>> wrong(torch.tensor([[1.0, 2.0, 3.0]]), [1])
    tensor([[1., 3.]])

    The cosines of each correct template with the wrong ones are `wrong(correct(bank.cosines, labels), labels)`.
    """
    _check_values(values, 2, 2)
    y = checked_labels(labels, len(values), values.shape[1]).to(values.device)
    others = torch.arange(values.shape[1], device=values.device) != y.unsqueeze(1)
    return values[others].reshape(len(values), -1)


def _check_values(values: Tensor, least: int, most: int | None = None) -> None:
    give = "a tensor (N, C), one column a class" if most else "a tensor (N, C, ...), the classes in axis 1"
    rank = arguments.values(values, "values", give).dim()
    if rank < least or (most and rank > most):
        raise InputError(f"values is {arguments.told(values)}; give {give}")


def checked_labels(labels: Tensor | Sequence[int], count: int, classes: int) -> Tensor:
    """Labels (N,) as long. Raises InputError unless they are N whole numbers from 0 to C - 1."""
    try:
        y = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"labels is {arguments.told(labels)}; give whole numbers, one class a row") from None
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise InputError(f"labels of dtype {y.dtype}; give whole numbers, one class a row")
    if tuple(y.shape) != (count,):
        raise InputError(f"labels of shape {tuple(y.shape)} for {count} rows; give one a row")
    if count and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise InputError(f"labels from {int(y.min())} to {int(y.max())}; {classes} classes have 0 to {classes - 1}")
    return y.long()
