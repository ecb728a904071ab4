"""Adam as the paper's authors used it: without the correction of the first steps' bias."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class UncorrectedAdam(torch.optim.Optimizer):
    """m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  p <- p - lr m / (sqrt(v) + eps);  m and v start at 0.

    Torch's Adam divides m by 1 - b1^t and v by 1 - b2^t. Without it the first step is (1 - b1) / sqrt(1 - b2), that
    is 3.2 times as long, and the steps become equal after some 1 / (1 - b2) = 1000 of them.

    >>> w = nn.Parameter(torch.zeros(1))
    >>> w.grad = torch.ones(1)
    >>> UncorrectedAdam([w], lr=0.1).step()
    >>> round(w.item(), 4)
    -0.3162
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self) -> None:
        """One step along the gradients."""
        for group in self.param_groups:
            beta, betas = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state: dict[str, Any] = self.state[parameter]
                if not state:
                    state |= {"mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
                state["mean"].lerp_(parameter.grad, 1 - beta)
                state["square"].mul_(betas).addcmul_(parameter.grad, parameter.grad, value=1 - betas)
                parameter.addcdiv_(state["mean"], state["square"].sqrt().add_(group["eps"]), value=-group["lr"])
