"""Every law of tests/test_devices.py on a machine without a GPU, in a process of its own that has a second device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import second_device
import torch

TESTS = Path(__file__).parent


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/test_devices.py has a real GPU here")
@pytest.mark.skipif(second_device.COMPILER is None, reason="no C++ compiler to build the second device")
def test_laws_on_a_second_device() -> None:
    command = [sys.executable, TESTS / "second_device.py", TESTS / "test_devices.py", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command,
        cwd=TESTS.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    closing = done.stdout.strip().rpartition("\n")[2]
    assert done.returncode == 0 and " passed" in closing and "skipped" not in closing, done.stdout + done.stderr
