"""The errors of maxaffine: each says in one line what was given and what to do next."""


class MaxaffineError(Exception):
    """Base of every error raised by this library; catch it to catch them all."""


class CaptureError(MaxaffineError, ValueError):
    """The model cannot be turned into an exact composition of spline operators."""


class InputError(MaxaffineError, ValueError):
    """A value given to a captured network does not fit it (shape, dtype, device, NaN, name)."""


class FileFormatError(MaxaffineError, ValueError):
    """A file is missing, truncated, of an unknown kind, or not trusted."""


class NotPiecewiseAffineError(MaxaffineError, ValueError):
    """What was asked depends on an operation that is not continuous piecewise affine."""


class DegenerateSliceError(MaxaffineError, ValueError):
    """A line or plane meets the partition in a way that has no well-defined answer."""


class MissingExtraError(MaxaffineError, ValueError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class MemoryBudgetError(MaxaffineError, RuntimeError):
    """The dense result would not fit into the memory budget; the message lists the ways out."""
