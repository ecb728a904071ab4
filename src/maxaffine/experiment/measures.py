"""What is recorded about a network after an epoch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maxaffine.experiment.training import Trainee
from maxaffine.penalties import norm_control, orthogonality

CHUNK = 500  # rows evaluated at a time

Record = dict[str, float]


def record(trainee: Trainee, epoch: int, loss: float) -> tuple[Record, Tensor]:
    """The numbers of one epoch, and which test rows are right (N,) uint8; epoch 0 is before training.

    loss: mean over the epoch's batches, penalty included. The labels of the training part are those trained on.
    """
    rows, seen = trainee.rows, trainee.run.settings.measure.rows
    train, right = evaluated(trainee.model, rows.train[:seen], trainee.labels[:seen])
    test, correct = evaluated(trainee.model, rows.test, rows.test_labels)
    numbers = {
        "epoch": float(epoch),
        "loss": loss,
        "train_accuracy": float(right.double().mean()),
        "train_cross_entropy": train,
        "test_accuracy": float(correct.double().mean()),
        "test_cross_entropy": test,
    }
    return numbers | of_rows(trainee.head.weight), correct.to(torch.uint8).cpu()


@torch.no_grad()
def evaluated(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """The mean cross-entropy of a network in eval mode over rows, and which of them it gets right (N,)."""
    total, right = 0.0, []
    for images, labels in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        scores = model(images)
        total += float(F.cross_entropy(scores.double(), labels, reduction="sum"))
        right.append(scores.argmax(1) == labels)
    return total / len(x), torch.cat(right)


@torch.no_grad()
def of_rows(W: Tensor) -> Record:
    """The penalties of the last layer's weight W (C, D) with gamma = 1, its off-diagonal energy, and its row norms.

    off_diagonal_energy = mean over c1 != c2 of <w_c1, w_c2>^2 = orthogonality_sum / (C (C - 1)).
    """
    W = W.double()
    norms, C = W.norm(dim=1), len(W)
    found = {f"orthogonality_{kind}": float(orthogonality(W, kind)) for kind in ("sum", "mean", "cosine", "authors")}
    return found | {
        "norm_control": float(norm_control(W)),
        "off_diagonal_energy": found["orthogonality_sum"] / (C * (C - 1)),
        "row_norm_mean": float(norms.mean()),
        "row_norm_least": float(norms.min()),
        "row_norm_most": float(norms.max()),
    }
