"""Run the experiments of the page docs/experiments.md and write its tables and figures.

    python experiments/reproduce.py --data-root DATA            two processes, some hours; stopped, it goes on
    python experiments/reproduce.py --data-root DATA --quick    minutes; its pages go beside its runs, not into docs/

DATA holds mnist/ (IDX) and cifar10/ (PNG pages); where the variable MAXAFFINE_ASSETS is set it is that folder's data/.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
SWEEP = {
    "accuracy": "Test accuracy against gamma: mean, standard deviation and maximum",
    "effects": "Change of the test accuracy against gamma = 0 with 95 % intervals",
    "curves": "Training cross-entropy and test accuracy through training",
    "gaps": "Train minus test accuracy and test cross-entropy against gamma",
    "energies": "Off-diagonal energy of the last layer against gamma",
    "grams": "Gram matrix of the last layer with and without the penalty",
}
FIGURES = {
    "gamma_mnist": SWEEP,
    "gamma_cifar10": SWEEP,
    "ablation": {name: SWEEP[name] for name in ("effects", "gaps")},
    "bimodality": {
        "bimodality": "Histograms of the inner products of templates with their input",
        "cosines": "Histograms of the cosines of the correct template with the others",
    },
    "random_labels": {
        "bimodality": "Histograms of the inner products of templates with their input",
        "alignments": "Histograms of the cosines of templates with their input",
    },
    "optimal_distance": {"towards_optimal": "Distance to the optimal templates and cosines through training"},
}


TABLES = {"bimodality": 3, "optimal_distance": 3}  # the first ones; those of the layers are long and said elsewhere


def main() -> None:
    """Run what is asked for."""
    given = arguments()
    pages = given.pages or (given.out / "pages" if given.quick else HERE.parent / "docs" / "experiments")
    pages.mkdir(parents=True, exist_ok=True)
    failed = [name for name in given.only or FIGURES if not reproduce(name, given, pages)]
    if failed:
        sys.exit(f"not finished: {', '.join(failed)}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run the experiments of docs/experiments.md.")
    assets = os.environ.get("MAXAFFINE_ASSETS")
    parser.add_argument("--data-root", type=Path, default=Path(assets) / "data" if assets else None)
    parser.add_argument("--out", type=Path, help="folder of the runs (build/experiments, or ...-quick)")
    parser.add_argument("--pages", type=Path, help="folder of tables and figures (docs/experiments)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=FIGURES, metavar="NAME", help=", ".join(FIGURES))
    given = parser.parse_args()
    if given.data_root is None:
        parser.error("say where mnist/ and cifar10/ are: --data-root DATA")
    given.out = given.out or HERE.parent / "build" / ("experiments-quick" if given.quick else "experiments")
    return given


def reproduce(name: str, given: argparse.Namespace, pages: Path) -> bool:
    """Train the networks of one experiment and write its part of the page; whether it is whole."""
    folder, start = given.out / name, time.perf_counter()
    begun = (folder / "runs").is_dir()
    words = ["train", f"experiments/{name}.toml", "--workers", str(given.workers), *["--quick"] * given.quick]
    options = ["--out", str(folder), "--data-root", str(given.data_root), "--device", given.device]
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", "maxaffine", *words, *options]
    if subprocess.run(command, cwd=HERE.parent, check=False).returncode:
        return False
    minutes = (time.perf_counter() - start) / 60
    said = f"`maxaffine {shlex.join(words)}`"
    took = "" if begun else f", {minutes:.0f} minutes"  # of a job that was stopped and continued nobody took the time
    made = f"{date.today():%d %B %Y}, {said}, {given.workers} process{'es' * (given.workers > 1)}{took}."
    tables = (folder / "summary.md").read_text().strip().split("\n\n")
    parts = [f"*{'Quick setting, for a look only: ' * given.quick}{made}*", *tables[: TABLES.get(name)]]
    for figure, caption in FIGURES[name].items():
        file = f"{name}_{figure}.png"
        shutil.copyfile(folder / f"{figure}.png", pages / file)
        parts.append(f"![{caption}]({file})\n")
    (pages / f"{name}.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")
    return True


if __name__ == "__main__":
    main()
