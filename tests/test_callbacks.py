"""The real Lightning and the real Trainer train on loss + penalty: the weights of a plain loop with the summed loss."""

import copy
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import maxaffine as ma
from maxaffine import callbacks
from maxaffine.callbacks import TrainerPenalty, inputs_of
from maxaffine.penalties import Penalty

pytest.importorskip("lightning")
pytest.importorskip("transformers")

ON = ("last", "all", "templates")
CLIP, RATE = 0.5, 0.1
GAMMA = {"last": 10.0, "all": 10.0, "templates": 1000.0}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()), nn.Linear(36, 3)
    )


X = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 3


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def plain_loop(on: str | None, accumulate: int, batch: int = 4) -> nn.Module:
    """loss + penalty, the mean over accumulated batches, clipping by norm, SGD."""
    model = network().train()
    penalty = Penalty(model, GAMMA[on], on=on, kind="mean", example=X[:1]) if on else (lambda _: 0.0)
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    for i, (x, y) in enumerate(zip(X.split(batch), Y.split(batch), strict=True), 1):
        ((F.cross_entropy(model(x), y) + penalty(x)) / accumulate).backward()
        if i % accumulate == 0:
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step()
            optimiser.zero_grad()
    return model


def assert_same(found: nn.Module, wanted: nn.Module, atol: float = 1e-7) -> None:
    for a, b in zip(found.state_dict().values(), wanted.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=atol)


def distance(a: nn.Module, b: nn.Module) -> float:
    return max(float((p - q).detach().abs().max()) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def lightning_run(folder: Path, on: str, accumulate: int, precision: str = "32-true") -> nn.Module:
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, _batch_idx: int) -> Tensor:
            x, y = batch
            return F.cross_entropy(self.net(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    module = Module()
    penalty = Penalty(module.net, GAMMA[on], on=on, kind="mean", example=X[:1])
    added = callbacks.LightningPenalty(penalty)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accumulate_grad_batches=accumulate, gradient_clip_val=CLIP, callbacks=[added],
        default_root_dir=folder, precision=precision,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(X, Y), 4))
    assert float(trainer.callback_metrics["penalty"]) == float(added.last) > 0 and added.batch is None
    return module.net


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_lightning_trains_on_the_sum(tmp_path: Path, on: str, accumulate: int) -> None:
    wanted = plain_loop(on, accumulate)
    assert distance(wanted, plain_loop(None, accumulate)) > 1e-3  # the penalty does something here
    assert_same(lightning_run(tmp_path, on, accumulate), wanted)


def test_lightning_in_mixed_precision_adds_the_penalty_at_its_own(tmp_path: Path) -> None:
    found = lightning_run(tmp_path, "last", 1, "bf16-mixed")
    assert 0 < distance(found, plain_loop("last", 1)) < 1e-2


def test_the_lightning_callback_pickles_and_other_names_do_not_exist() -> None:
    assert pickle.loads(pickle.dumps(callbacks.LightningPenalty)) is callbacks.LightningPenalty
    with pytest.raises(AttributeError, match="no attribute 'Penalties'"):
        _ = callbacks.Penalties
    with pytest.raises(ma.errors.InputError, match=r"penalty is None; give a maxaffine\.Penalty"):
        callbacks.LightningPenalty(None)


class Classifier(nn.Module):
    """What the Trainer wants: named inputs, an output with its loss. counted: the loss is normalised by num_items."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(pixel_values)
        return {"logits": logits} | ({} if labels is None else {"loss": F.cross_entropy(logits, labels)})


class Counting(Classifier):
    """Normalises its loss over the whole accumulated batch, as the library's own language models do."""

    accepts_loss_kwargs = True

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, num_items_in_batch: Any = None
    ) -> dict[str, Tensor]:
        out = super().forward(pixel_values, labels)
        if labels is not None and num_items_in_batch is not None:
            out["loss"] = F.cross_entropy(out["logits"], labels, reduction="sum") / num_items_in_batch
        return out


class Pictures(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"pixel_values": X[i], "labels": Y[i]}


def trainer_run(folder: Path, model: nn.Module, on: str, accumulate: int) -> Any:
    from transformers import Trainer, TrainingArguments

    class Penalised(TrainerPenalty, Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def create_optimizer(self, *_: Any, **__: Any) -> torch.optim.Optimizer:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
            return self.optimizer

    arguments = TrainingArguments(
        str(folder), num_train_epochs=1, per_device_train_batch_size=4, gradient_accumulation_steps=accumulate,
        max_grad_norm=CLIP, lr_scheduler_type="constant", report_to=[], save_strategy="no", use_cpu=True,
        disable_tqdm=True, logging_strategy="no", per_device_eval_batch_size=24,
    )  # fmt: skip
    trainer = Penalised(model=model, args=arguments, train_dataset=Pictures(), eval_dataset=Pictures())
    trainer.penalty = Penalty(model.net, GAMMA[on], on=on, kind="mean", example=X[:1])
    trainer.train()
    return trainer


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", [Classifier, Counting])
def test_the_hugging_face_trainer_trains_on_the_sum(tmp_path: Path, kind: type, on: str, accumulate: int) -> None:
    model = kind()
    trainer = trainer_run(tmp_path, model, on, accumulate)
    assert_same(model.net, plain_loop(on, accumulate))
    with torch.no_grad():
        plain = F.cross_entropy(model.net.eval()(X), Y)
    assert abs(trainer.evaluate()["eval_loss"] - float(plain)) < 1e-5  # the plain loss


def test_skorch_by_overriding_get_loss() -> None:
    skorch = pytest.importorskip("skorch")

    class Penalised(skorch.NeuralNetClassifier):
        def initialize_module(self) -> Any:
            super().initialize_module()
            self.penalty_ = Penalty(self.module_, GAMMA["last"], kind="mean", example=X[:1])
            return self

        def get_loss(self, y_pred: Tensor, y_true: Tensor, X: Any = None, training: bool = False) -> Tensor:
            loss = super().get_loss(y_pred, y_true, X, training)
            return loss + self.penalty_(X) if training else loss

    net = Penalised(
        network, criterion=nn.CrossEntropyLoss, max_epochs=1, lr=RATE, batch_size=4, train_split=None, verbose=0,
        iterator_train__shuffle=False, callbacks=[("clip", skorch.callbacks.GradientNormClipping(CLIP))],
    )  # fmt: skip
    net.fit(X, Y)
    assert_same(net.module_, plain_loop("last", 1))


def test_the_inputs_of_a_batch() -> None:
    x = torch.zeros(2, 3)
    batches = (x, (x, Y), [x], {"labels": Y, "pixel_values": x}, {"x": x})
    assert all(inputs_of(batch) is x for batch in batches)
    for batch, words in (({"a": x}, r"a mapping with the keys \['a'\]"), ([], "a list"), ("text", "a str")):
        with pytest.raises(ma.errors.InputError, match=words):
            inputs_of(batch)


def test_without_lightning_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lightning.pytorch", None)
    callbacks._lightning_penalty.cache_clear()
    with pytest.raises(ma.errors.MissingExtraError, match=r'pip install "maxaffine\[train\]"'):
        _ = callbacks.LightningPenalty
    callbacks._lightning_penalty.cache_clear()


def test_the_judge_sees_a_wrong_order(tmp_path: Path) -> None:
    """Clipping before the penalty is added gives other weights."""
    twin = copy.deepcopy(network())
    optimiser = torch.optim.SGD(twin.parameters(), lr=RATE)
    penalty = Penalty(twin, GAMMA["last"], kind="mean", example=X[:1])
    for x, y in zip(X.split(4), Y.split(4), strict=True):
        optimiser.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        nn.utils.clip_grad_norm_(twin.parameters(), CLIP)
        penalty(x).backward()
        optimiser.step()
    with pytest.raises(AssertionError):
        assert_same(twin, plain_loop("last", 1))
