"""One object for a training loop: loss = cross_entropy(model(x), y) + penalty(x)."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maxaffine.arguments import is_number, require, told
from maxaffine.errors import InputError
from maxaffine.penalties.convolutions import convolutional_orthogonality
from maxaffine.penalties.evaluating import captured_in_eval
from maxaffine.penalties.head import last_layer
from maxaffine.penalties.layers import Layer, all_layers
from maxaffine.penalties.rows import ENERGIES, orthogonality
from maxaffine.penalties.template_gram import check_share, template_orthogonality
from maxaffine.penalties.whole import soft_orthogonality, srip
from maxaffine.spline import Spline

On = Literal["last", "all", "templates"]


def of_rows(layer: Layer, kind: str) -> Tensor:
    """The penalty on the rows of a layer. Filters of different groups are orthogonal whatever their weights."""
    rows = layer.rows
    value = orthogonality(rows[0] if len(rows) == 1 else rows, kind)
    return value if kind == "sum" else value / len(rows)  # the mean over all C^2 pairs, those of two groups included


def of_matrix(measure: Callable[[Tensor], Tensor]) -> Callable[[Layer], Tensor]:
    """A penalty on a whole matrix, summed over the groups of a convolution."""
    return lambda layer: torch.stack([measure(rows) for rows in layer.rows]).sum()


def of_map(layer: Layer) -> Tensor:
    """A convolution as the linear map that it is; soft orthogonality for a matrix."""
    conv = layer.convolution
    if conv is None:
        return soft_orthogonality(layer.rows[0])
    # A transposed convolution is the transpose of the convolution with the same weight: its columns are penalised.
    filters = layer.source.read().unflatten(0, (conv.groups, -1))
    return torch.stack([convolutional_orthogonality(f, conv.stride, None, conv.dilation) for f in filters]).sum()


KINDS: dict[str, Callable[[Layer], Tensor]] = {
    **{kind: (lambda layer, kind=kind: of_rows(layer, kind)) for kind in ENERGIES},
    "soft": of_matrix(soft_orthogonality),
    "srip": of_matrix(srip),
    "convolutional": of_map,
}
"""Kind -> the penalty of one layer."""


class Penalty:
    """gamma times a penalty that makes rows orthogonal: add penalty(x) to the loss of a plain training loop.

        loss = F.cross_entropy(model(x), y) + penalty(x)

    on: "last", the final linear layer (the paper's penalty), found in the captured graph; "all", the sum over every
    linear and convolution layer (rows = flattened filters), tied weights once, see `all_layers`; "templates", the rows
    of A[x] of the batch's inputs, exact, with batch norm's running statistics while the model trains.
    kind: "sum" (the default for weights), "mean" (the default for templates), "cosine", "authors", "norm_control", see
    `orthogonality`; for weights also "soft" (`soft_orthogonality`), "srip", and "convolutional"
    (`convolutional_orthogonality` of convolutions, soft orthogonality of matrices).
    share, generator: penalise the templates of a random part of the batch, see `template_orthogonality`.

    The weights are read anew at each call and gradients go to the parameters that require them. A model is captured
    as it computes in eval mode and is not changed; `gamma` may be changed between calls, and 0 costs nothing. Autocast
    does not reach the penalty: it is computed in the parameters' own dtype.

    Args:
        model: the network, or a spline of it (for a network with several inputs or outputs: `maxaffine.Spline`).
        gamma: the weight of the penalty, finite and >= 0.
        example: inputs to capture the model around, needed for "last", and for "all" where matrices belong to no
            nn.Linear or convolution; "templates" takes the first batch without it.

    Raises:
        InputError: gamma < 0 or NaN, an unknown name, no final linear layer, no layer at all, a matrix that may be a
            layer and no example. CaptureError.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> penalty = Penalty(net, 0.1, on="last", example=torch.zeros(1, 4))
    >>> bool((penalty() - 0.1 * orthogonality(net[2].weight)).abs() < 1e-9)
    True

    Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5.
    """

    def __init__(
        self,
        model: nn.Module | Spline,
        gamma: float,
        *,
        on: On = "last",
        kind: str | None = None,
        example: Any = None,
        share: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        if on not in ("last", "all", "templates"):
            raise InputError(f"on={on!r} is unknown; choose one of last, all, templates")
        self.gamma, self.on = gamma, on
        self.kind = kind if kind is not None else ("mean" if on == "templates" else "sum")
        known = ENERGIES if on == "templates" else KINDS
        if not isinstance(self.kind, str) or self.kind not in known:
            raise InputError(f"kind={self.kind!r} is unknown on={on!r}; choose one of {', '.join(known)}")
        check_share(share)
        if generator is not None:
            require(generator, torch.Generator, "generator", "a torch.Generator or None")
        if share != 1 and on != "templates":
            raise InputError(
                f"share={share} is a part of the batch's templates; on={on!r} does not depend on the batch"
            )
        self.model, self.share, self.generator = model, share, generator
        self.layers: tuple[Layer, ...] = ()
        if on == "last":
            self.layers = (last_layer(model, example),)
        elif on == "all":
            self.layers = all_layers(model, example)
        self._spline = captured_in_eval(model, example) if on == "templates" and example is not None else None
        self._owned = self._of_model()

    @property
    def gamma(self) -> float:
        """The weight of the penalty."""
        return self._gamma

    @gamma.setter
    def gamma(self, gamma: float) -> None:
        if not (is_number(gamma) and gamma >= 0):
            raise InputError(f"gamma={told(gamma)}; a finite number >= 0 is needed")
        self._gamma = float(gamma)

    def __call__(self, x: Tensor | None = None) -> Tensor:
        """The penalty times gamma, 0-dim; x: the batch (N, *in), read for on="templates" only."""
        self._check_model()
        if self.on == "templates":
            if not isinstance(x, Tensor):
                given = "" if x is None else f", x is {told(x)}"
                raise InputError(f"a penalty on the templates is one of a batch: call penalty(x) with a tensor{given}")
            return self._of_templates(x)
        weight = self.layers[0].source.read()
        if self.gamma == 0:
            return weight.new_zeros(())
        with torch.autocast(weight.device.type, enabled=False):
            values = [KINDS[self.kind](layer) for layer in self.layers]
            return self.gamma * (values[0] if len(values) == 1 else torch.stack(values).sum())

    def _of_templates(self, x: Tensor) -> Tensor:
        if self.gamma == 0:
            return x.new_zeros(())
        return self.gamma * template_orthogonality(self._at(x), x, self.kind, self.share, self.generator)

    def _at(self, x: Tensor) -> Spline:
        """The spline of the model; captured anew when the model was moved to another device or dtype."""
        if isinstance(self.model, Spline):
            return self.model
        if self._spline is None or self._spline.device != x.device or self._spline.dtype != x.dtype:
            self._spline = captured_in_eval(self.model, x)
            self._owned = self._of_model()
        return self._spline

    def _read(self) -> list[Tensor]:
        """The tensors that the penalty is computed of."""
        if self._spline is not None:
            return [source.read() for source in self._spline.captured.sources]
        return [tensor for layer in self.layers for tensor in layer.source.tensors()]

    def _of_model(self) -> list[Tensor]:
        """Those of them that are parameters of the model."""
        if isinstance(self.model, Spline):
            return []
        ids = {id(parameter) for parameter in self.model.parameters()}
        return [tensor for tensor in self._read() if id(tensor) in ids]

    def _check_model(self) -> None:
        """Raise InputError when a module of the model was replaced: the old one would be penalised."""
        if not self._owned or isinstance(self.model, Spline):
            return
        read, now = self._read(), {id(tensor) for tensor in self.model.parameters()}
        before = {id(tensor) for tensor in self._owned}
        if any(id(tensor) in before and id(tensor) not in now for tensor in read):
            raise InputError("a layer of the model was replaced after the penalty was made; make a new Penalty")
        self._owned = [tensor for tensor in read if id(tensor) in now]  # a new parameter in the old module is followed

    def __repr__(self) -> str:
        return f"Penalty(gamma={self.gamma:g}, on={self.on!r}, kind={self.kind!r})"
