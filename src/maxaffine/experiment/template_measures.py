"""What a network's templates and codes are like at one moment of a run: the paper's histograms as numbers.

On the first training rows (with the labels that are trained on) and as many test rows: inner products <A_c, x>,
margins, cosines, norms, accuracy with and without biases, the distance to the optimal templates of Proposition 5.5;
for each spline operator how many codes the training rows have, and how often the nearest other row by code has the
same label.
"""

from typing import Any

import torch
from torch import Tensor

from maxaffine.code import Code, index_of, pairwise_distance
from maxaffine.experiment.training import Trainee
from maxaffine.spline import Spline
from maxaffine.templates import Distribution, TemplateStatistics, distance_to_optimal, template_statistics, templates

CHUNK = 50  # rows whose templates are built at a time

Record = dict[str, float]
Snapshot = dict[str, Any]  # of tensors, numbers and text only: it is stored where nothing can execute


@torch.no_grad()
def snapshot(trainee: Trainee, whole: bool) -> tuple[Record, Snapshot | None]:
    """The numbers of one epoch, and with ``whole`` the histograms and layers as well."""
    rows, count = trainee.rows, trainee.run.settings.measure.template_rows
    spline = trainee.spline
    x, y = rows.train[:count], trainee.labels[:count]
    parts = {"train": (x, y), "test": (rows.test[:count], rows.test_labels[:count])}
    found = {part: template_statistics(spline, *given) for part, given in parts.items()}
    numbers = {f"{part}_{name}": value for part, s in found.items() for name, value in _numbers(s).items()}
    for part, given in parts.items():
        plain, centred = _distances(spline, *given)
        numbers |= {f"{part}_to_optimal": plain, f"{part}_to_optimal_centred": centred}
    code = spline.code(x)
    numbers["codes"] = float(len(set(code.ids())))
    if not whole:
        return numbers, None
    labels = {"trained": y.cpu(), "true": rows.train_labels[:count].cpu()}
    layers = [_layer(code, operator.name, operator.units, labels) for operator in spline.operators]
    return numbers, {"histograms": {part: _histograms(s) for part, s in found.items()}, "layers": layers}


def _numbers(found: TemplateStatistics) -> Record:
    assert found.angles is not None
    return {
        "inner_correct": found.correct.mean,
        "inner_incorrect": found.incorrect.mean,
        "inner_margin": found.margins.mean,
        "bias_margin": found.biases.mean,
        "affine_accuracy": found.accuracy,
        "affine_accuracy_alone": found.accuracy_alone,
        "completeness": found.completeness,
        "template_norm": found.angles.norms.mean,
        "cosine_between": found.angles.between.mean,
        "cosine_correct": found.angles.correct.mean,
        "cosine_wrong": found.angles.wrong.mean,
    }


def _histograms(found: TemplateStatistics) -> dict[str, dict[str, Any]]:
    assert found.angles is not None
    each = {
        "inner_correct": found.correct,
        "inner_incorrect": found.incorrect,
        "margin": found.margins,
        "cosine_between": found.angles.between,
        "cosine_correct": found.angles.correct,
        "cosine_wrong": found.angles.wrong,
    }
    return {name: _plain(distribution) for name, distribution in each.items()}


def _plain(found: Distribution) -> dict[str, Any]:
    return {"edges": found.edges, "counts": found.counts, "mean": found.mean, "std": found.std}


def _distances(spline: Spline, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean relative distance to the optimal templates, as they are and less their mean over the classes.

    A row whose templates vanish has none and is left out.
    """
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for images, labels in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        A = spline.at(images).A
        alive = ((A - A.mean(1, keepdim=True)).flatten(1).abs().amax(1) > 0) & (images.flatten(1).abs().amax(1) > 0)
        if not bool(alive.any()):
            continue
        bank = templates(spline.at(images[alive]), images[alive])
        for place, centred in zip(found, (False, True), strict=True):
            place.append(distance_to_optimal(bank, labels[alive], centred=centred).double())
    plain, less = (float(torch.cat(values).mean()) if values else float("nan") for values in found)
    return plain, less


def _layer(code: Code, name: str, units: int, labels: dict[str, Tensor]) -> dict[str, Any]:
    """Of one operator: distinct codes of the rows, and the share of rows whose nearest other row has their label."""
    distances = pairwise_distance(code, code, operators=name).cpu()
    distances.fill_diagonal_(torch.inf)
    nearest = distances.argmin(1)
    pieces = code.values[index_of(code, name)].flatten(1).cpu()
    codes = len({row.numpy().tobytes() for row in pieces})
    agreement = {f"agreement_{kind}": float((y[nearest] == y).double().mean()) for kind, y in labels.items()}
    return {"operator": name, "units": units, "codes": codes} | agreement
