"""What `import maxaffine` offers, and what it does not drag in."""

import json
import subprocess
import sys
import types

import maxaffine

MODULES_LOADED = """
import json, sys
import torch
before = set(sys.modules)
import maxaffine
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""
ALLOWED = {"maxaffine", "torch", "numpy", "safetensors"}


def test_all_is_complete_and_importable():
    names = maxaffine.__all__
    assert len(names) == len(set(names))
    public = {name for name in dir(maxaffine) if not name.startswith("_")}
    own_modules = {name for name in public if isinstance(getattr(maxaffine, name), types.ModuleType)}
    assert public - own_modules <= set(names)
    assert all(getattr(maxaffine, name) is not None for name in names)


def test_the_names_that_users_are_promised():
    promised = "Spline Code MASO load distance pairwise_distance margin maso_of is_convex declare errors"
    assert set(promised.split()) <= set(dir(maxaffine))


def test_every_public_name_has_a_docstring():
    assert [name for name in maxaffine.__all__ if not getattr(maxaffine, name).__doc__] == []


def test_version_is_the_distributions():
    from importlib.metadata import version

    assert maxaffine.__version__ == version("maxaffine")


def test_import_loads_only_what_it_needs():
    result = subprocess.run([sys.executable, "-c", MODULES_LOADED], capture_output=True, text=True, check=True)
    loaded = set(json.loads(result.stdout)) - set(sys.stdlib_module_names)
    assert loaded <= ALLOWED
    assert "maxaffine" in loaded
