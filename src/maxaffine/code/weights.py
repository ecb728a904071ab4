"""Which weights made a code."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from maxaffine.errors import InputError


class Weights:
    """The tensors of a network at the time it made a code; their fingerprint is computed when it is asked for.

    The fingerprint is the BLAKE2b of shapes and values, the values in float64: a network and its copy in a wider dtype
    have the same one. Changes are seen by torch's own count of in-place operations, as autograd sees them (writing
    through ``tensor.data`` is hidden from both).

    >>> w = torch.ones(2)
    >>> made_by = Weights([w])
    >>> made_by.digest() == Weights([torch.ones(2, dtype=torch.float64)]).digest(), made_by.are([w])
    (True, True)
    >>> _ = w.mul_(2)
    >>> made_by.are([w])
    False
    """

    def __init__(self, tensors: Sequence[Tensor], known: str | None = None, constants: str = "") -> None:
        """constants: the numbers that the network computes with beside its tensors, such as the limits of a clamp."""
        self._tensors, self._known, self._constants = tuple(tensors), known, constants
        self._versions = tuple(_version(tensor) for tensor in tensors)

    def are(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the network still has these tensors, unchanged."""
        return len(tensors) == len(self._tensors) and all(
            mine is given and version == _version(given)
            for mine, given, version in zip(self._tensors, tensors, self._versions, strict=True)
        )

    def digest(self) -> str:
        """32 hexadecimal digits. Raises InputError when the weights changed before anybody asked."""
        if self._known is None and self.are(self._tensors):
            self._known = _hashed(self._tensors, self._constants)
        if not self._known:
            raise InputError(
                "the network was trained on after these codes were made; take code.weights, save the codes or add "
                "them to an index before the next step of training"
            )
        return self._known

    def __reduce__(self) -> tuple[type, tuple[tuple[()], str]]:
        return Weights, ((), self.digest() if self._known or self.are(self._tensors) else "")


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _hashed(tensors: Sequence[Tensor], constants: str) -> str:
    state = hashlib.blake2b(constants.encode(), digest_size=16)
    for tensor in tensors:
        values = tensor.detach().cpu().to(torch.float64) if tensor.is_floating_point() else tensor.detach().cpu()
        state.update(repr(tuple(values.shape)).encode())
        state.update(values.contiguous().flatten().view(torch.uint8).numpy().data)
    return state.hexdigest()
