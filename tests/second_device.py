"""A device "twin" for machines without a GPU: memory of the CPU under another name, which torch keeps apart as a GPU's.

Tensors of it and of the CPU do not mix, and a tensor made without saying where is on the CPU: what forgets a device
fails as on a GPU. Its arithmetic is the CPU's, so nothing is said of a GPU's kernels.

    python tests/second_device.py ARGUMENTS...      pytest, with this device in torch
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils import backend_registration
from torch.utils.cpp_extension import include_paths

NAME = "twin"
SOURCE = Path(__file__).with_suffix(".cpp")
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
OPTIONS = ("-std=c++20", "-O1", "-shared", "-fPIC")
# What torch asks of `torch.twin`, as of `torch.cuda`. All is done when a call returns; random numbers are the CPU's.
RUNTIME = SimpleNamespace(
    is_initialized=lambda: True,
    is_available=lambda: True,
    current_device=lambda: 0,
    device_count=lambda: 1,
    synchronize=lambda *_: None,
    get_amp_supported_dtype=lambda: [torch.float16],
    get_rng_state=lambda *_: torch.empty(0, dtype=torch.uint8),
    set_rng_state=lambda *_: None,
    manual_seed_all=lambda *_: None,
    _is_in_bad_fork=lambda: False,
)


def register() -> None:
    """Make the device known to torch, for the rest of this process."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "second_device.so"
        headers = [f"-I{path}" for path in include_paths()]
        libraries = [f"-L{Path(torch.__file__).parent / 'lib'}", "-lc10", "-ltorch_cpu", "-ltorch"]
        subprocess.run([COMPILER or "c++", *OPTIONS, *headers, str(SOURCE), "-o", library, *libraries], check=True)
        torch.ops.load_library(str(library))
    backend_registration.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, RUNTIME)
    backend_registration.generate_methods_for_privateuse1_backend()


if __name__ == "__main__":
    register()
    status = pytest.main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # at an ordinary exit the threads that autograd keeps for a device may abort the process
