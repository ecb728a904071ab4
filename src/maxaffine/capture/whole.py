"""Operations that torch.export would take apart or look into: each is kept whole under a name of ours.

Softshrink and hardshrink would become comparisons. A batch norm in eval mode would, on a GPU, ask whether cuDNN takes a
batch of that size, which torch.export takes for a condition on the batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_LIBRARY = torch.library.Library("maxaffine", "DEF")
SHRINKS = {"softshrink": F.softshrink, "hardshrink": F.hardshrink}
for _name, _function in SHRINKS.items():
    _LIBRARY.define(f"{_name}(Tensor x, Scalar lambd=0.5) -> Tensor")
    _LIBRARY.impl(_name, _function, "CompositeExplicitAutograd")

_LIBRARY.define("batch_norm(Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, float eps) -> Tensor")


def _normalised(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    return torch.batch_norm(x, weight, bias, mean, var, False, 0.0, eps, False)


_LIBRARY.impl("batch_norm", _normalised, "CompositeExplicitAutograd")
_LIBRARY.impl("batch_norm", lambda x, *_: torch.empty_like(x), "Meta")


def _of_functional(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """F.batch_norm by our name, where it uses the statistics of the training data; None where it does not."""
    return _of_torch(input, weight, bias, running_mean, running_var, training, momentum, eps, True)


def _of_torch(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor | None:
    """The same of torch.batch_norm."""
    del momentum, cudnn_enabled
    if training or running_mean is None or running_var is None:
        return None
    return torch.ops.maxaffine.batch_norm(input, weight, bias, running_mean, running_var, eps)


BATCH_NORMS: dict[Any, Callable[..., Tensor | None]] = {F.batch_norm: _of_functional, torch.batch_norm: _of_torch}


class WholeBatchNorms(TorchFunctionMode):
    """While it is on, batch norms in eval mode are one operation of ours."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Torch's protocol."""
        del types
        given = kwargs or {}
        whole = BATCH_NORMS[func](*args, **given) if func in BATCH_NORMS else None
        return func(*args, **given) if whole is None else whole


def as_aten(op: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """The batch norm of ours under the name that the tables know; any other operation as it is."""
    if op != "maxaffine.batch_norm.default":
        return op, args
    return "aten._native_batch_norm_legit_no_training.default#0", (*args[:5], 0.0, args[5])
