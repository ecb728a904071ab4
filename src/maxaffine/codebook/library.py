"""SciPy and scikit-learn, imported when they are needed."""

from importlib import import_module
from types import ModuleType

from maxaffine.errors import MissingExtraError


def library(name: str, what: str) -> ModuleType:
    """A module of SciPy or scikit-learn. Raises MissingExtraError."""
    try:
        return import_module(name)
    except ImportError as error:
        package = {"sklearn": "scikit-learn", "scipy": "SciPy"}[name.partition(".")[0]]
        raise MissingExtraError(f'{what} needs {package}: pip install "maxaffine[report]"') from error
