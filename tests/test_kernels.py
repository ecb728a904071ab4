"""Compiled functions are kept on disk, but not longer than what they were compiled from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from maxaffine.geometry import kernels

SOURCE = """
from maxaffine.geometry.kernels import entry


@entry
def doubled(x):
    return 2 * x
"""


def fresh(path: Path) -> Any:
    """The function of the file, as a new process would import it, after one call."""
    spec = importlib.util.spec_from_file_location("kept", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.doubled(3) == 6
    return module.doubled.stats


def test_kept_code_is_dropped_when_another_kernel_was_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.py"
    path.write_text(SOURCE)
    assert not fresh(path).cache_hits
    assert fresh(path).cache_hits
    monkeypatch.setattr(kernels, "SOURCES", "another file of kernels, changed")
    assert not fresh(path).cache_hits
    assert fresh(path).cache_hits
