"""pyarrow and Ray, imported when they are needed."""

from types import ModuleType

from maxaffine.errors import MissingExtraError

HINT = 'pip install "maxaffine[distributed]"'


def arrow() -> ModuleType:
    """Pyarrow. Raises MissingExtraError."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError(f"a partition in files needs pyarrow: {HINT}") from error
    return pyarrow


def parquet() -> ModuleType:
    """pyarrow.parquet. Raises MissingExtraError."""
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet


def ray() -> ModuleType:
    """Ray. Raises MissingExtraError."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(f"executor='ray' needs Ray: {HINT}") from error
    return ray
