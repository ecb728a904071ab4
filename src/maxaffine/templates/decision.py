"""A decision read as matched filtering: which two classes, and how much of the gap the filters and the biases give."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maxaffine.arguments import require
from maxaffine.errors import InputError
from maxaffine.templates.bank import Templates, checked_labels, correct


@dataclass(frozen=True, eq=False)
class Reading:
    """score_winner - score_rival = <A_winner - A_rival, x> + (b_winner - b_rival), for N signals.

    winner, rival: (N,) classes; gap, inner, bias: (N,) with gap = inner + bias; alone: (N,) the class that the inner
    products alone would choose. print(reading) says it in words.
    """

    winner: Tensor
    rival: Tensor
    gap: Tensor
    inner: Tensor
    bias: Tensor
    alone: Tensor

    def __len__(self) -> int:
        return len(self.winner)

    def __str__(self) -> str:
        return "\n".join(self._line(n) for n in range(len(self)))

    def _line(self, n: int) -> str:
        winner, alone = int(self.winner[n]), int(self.alone[n])
        parts = f"{float(self.inner[n]):+.4g} from <A, x>, {float(self.bias[n]):+.4g} from b"
        without = "the same without b" if alone == winner else f"without b: {alone}"
        return f"row {n}: {winner} over {int(self.rival[n])} by {float(self.gap[n]):.4g} ({parts}); {without}"


def reading(bank: Templates, rival: int | Sequence[int] | Tensor | None = None) -> Reading:
    """What each decision rests on: the winner against a rival class (default: the runner-up).

    Classes are numbered as the templates of the bank are. Raises InputError for a bank of one template or a rival
    that is not among its classes.

    >>> import torch
    >>> A, b = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0.0, 0.5]])
    >>> print(reading(Templates(A, b, torch.tensor([[1.0, 1.0]]), torch.arange(2))))
    row 0: 0 over 1 by 0.5 (+1 from <A, x>, -0.5 from b); the same without b
    """
    count, classes = require(bank, Templates, "bank", "what maxaffine.templates.templates returns").b.shape
    if classes < 2:
        raise InputError("a decision is between at least 2 classes; the bank has 1 template")
    order = bank.scores.topk(2, dim=1).indices
    winner, second = order[:, 0], order[:, 1]
    if rival is not None:
        given = torch.as_tensor(rival) if isinstance(rival, int) else rival
        each = given.expand(count) if isinstance(given, Tensor) and given.dim() == 0 else given
        second = checked_labels(each, count, classes).to(winner.device)

    def between(values: Tensor) -> Tensor:
        return correct(values, winner) - correct(values, second)

    inner, bias = between(bank.inner), between(bank.b)
    return Reading(winner, second, inner + bias, inner, bias, bank.inner.argmax(1))
