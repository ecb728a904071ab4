"""What the benchmarks share: the networks, a fair clock, a peak-memory gauge, fresh processes, and the table.

Every measurement runs in a process of its own, so that thread counts and the allocator are set before torch
starts. Runs of the rivals are interleaved and the minimum is taken: both shield against other load on the
machine. The allocator matters: with glibc's default thresholds large results are mapped and unmapped at each
call, and the page faults weigh on whoever allocates most; each table therefore has both settings.
"""

import argparse
import ctypes
import datetime
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ALLOCATORS = {
    "kept": {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)},
    "default": {},
}


# Networks. Their weights are random: speed does not see them.


def mlp() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()),
        *(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)),
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6272, 10)),
    )


class Block(nn.Module):
    """Residual block of the CIFAR ResNets with the parameter-free shortcut (He et al. 2015, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            half = self.extra // 2
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.extra - half))
        return torch.relu(y + x)


def resnet20() -> nn.Module:
    widths = [16] * 4 + [32] * 3 + [64] * 3
    blocks = [Block(a, b, 1 + (a != b)) for a, b in pairwise(widths)]
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


NETS = {
    "mlp": (mlp, (784,), 256),
    "cnn": (cnn, (1, 28, 28), 64),
    "resnet20": (resnet20, (3, 32, 32), 16),
}


def assets() -> Path:
    """The folder of trained networks that some scripts measure."""
    if "MAXAFFINE_ASSETS" not in os.environ:
        sys.exit("MAXAFFINE_ASSETS is not set: this script measures trained networks, the folder of which it names")
    return Path(os.environ["MAXAFFINE_ASSETS"])


def network(name: str, batch: int | None = None, quick: bool = False) -> tuple[nn.Module, Tensor]:
    """A network in eval mode and inputs. Its parameters need no gradient: that would only slow the rivals."""
    torch.manual_seed(0)
    make, shape, usual = NETS[name]
    model = make().eval().requires_grad_(False)
    return model, torch.randn(2 if quick else batch or usual, *shape)


# Clock and gauge.


def fastest(methods: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Minimum seconds of each method over interleaved runs, after one warm-up of each."""
    for method in methods.values():
        method()
    best = dict.fromkeys(methods, float("inf"))
    for _ in range(repeats):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def peak_growth(method: Callable[[], Any]) -> int:
    """Bytes by which the resident memory peaked above what it was before the call (Linux only)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not serve the call for nothing
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak; getrusage's would keep the capture's
    before = status("VmRSS")
    method()
    return status("VmHWM") - before


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def assert_same(results: dict[str, Tensor]) -> None:
    """All methods compute the same thing: a rival that does less work is no rival."""
    (first, reference), *rest = results.items()
    for name, value in rest:
        error = (value - reference).abs().max() / reference.abs().max()
        assert error < 1e-4, f"{name} and {first} differ by {error:.1e}"


# Processes, table, record.


@dataclass(frozen=True)
class Benchmark:
    """A script: ``work(case)`` measures one case in a fresh process and returns a row."""

    name: str
    claim: str
    cases: list[dict[str, Any]]
    work: Callable[[dict[str, Any]], dict[str, Any]]
    allocators: tuple[str, ...] = ("kept", "default")
    threads: tuple[int, ...] = (1, 2)


def main(benchmark: Benchmark) -> None:
    options = arguments(benchmark)
    if options.worker:
        case = json.loads(options.worker)
        torch.set_num_threads(case["threads"])
        print(json.dumps(benchmark.work(case)))
        return
    rows = []
    for allocator in benchmark.allocators:
        for threads in benchmark.threads:
            for case in benchmark.cases:
                if options.only in str(case):
                    setting = {**case, "threads": threads, "allocator": allocator}
                    rows.append(setting | measured(setting, options.quick))
                    print_row(rows)
    record(benchmark, rows, options)


def arguments(benchmark: Benchmark) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=benchmark.claim)
    parser.add_argument("--quick", action="store_true", help="one run of a tiny batch: does the script work?")
    parser.add_argument("--only", default="", help="only cases whose description contains this word")
    parser.add_argument("--out", type=Path, help="JSON file (default: build/benchmarks/NAME.json)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(setting: dict[str, Any], quick: bool) -> dict[str, Any]:
    """The row of one case, from a process started with its thread count and allocator."""
    count = str(setting["threads"])
    fixed = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, **ALLOCATORS[setting["allocator"]]}
    case = json.dumps({**setting, "quick": quick, "repeats": 1 if quick else 10})
    command = [sys.executable, sys.argv[0], "--worker", case]
    done = subprocess.run(command, env=os.environ | fixed, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_row(rows: list[dict[str, Any]]) -> None:
    keys = list(rows[-1])
    if len(rows) == 1 or keys != list(rows[-2]):
        print("\n" + "  ".join(f"{key:>14}" for key in keys))
    print("  ".join(f"{shown(value):>14}" for value in rows[-1].values()), flush=True)


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def record(benchmark: Benchmark, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    path = options.out or Path("build/benchmarks") / f"{benchmark.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"claim": benchmark.claim, **circumstances(), "quick": options.quick, "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\n{benchmark.claim}\n{path}")


def circumstances() -> dict[str, Any]:
    """What a number is worth nothing without."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "blas": torch.__config__.show().partition("BLAS_INFO=")[2].partition(",")[0],
    }
