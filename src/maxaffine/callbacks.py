"""Penalties in trainers that own the training loop: a Lightning callback and a mixin for the Hugging Face Trainer.

Both train exactly on loss + penalty: one backward pass, the same order of accumulation, scaling and clipping.

- Lightning: `LightningPenalty(penalty)`, a callback. It adds the penalty to the loss just before the backward pass.
- Hugging Face: `class MyTrainer(TrainerPenalty, Trainer)`, then `trainer.penalty = penalty`. A `TrainerCallback` would
  not do: it never sees the loss, and gradients added in its events come after they were clipped.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import Tensor

from maxaffine.arguments import require
from maxaffine.errors import InputError, MissingExtraError
from maxaffine.penalties import Penalty

MISSING = 'the Lightning callback needs lightning: pip install "maxaffine[train]"'
NAMES = ("input", "x", "image", "images", "inputs", "pixel_values", "inputs_embeds", "features")
"""Keys under which a batch that is a mapping is looked for its inputs."""

Inputs = Callable[[Any], Tensor]


def inputs_of(batch: Any) -> Tensor:
    """The inputs of a batch: the tensor itself, the first of a list or tuple, or the item under a usual name.

    Raises InputError when a mapping has none of the names; then say which with inputs=lambda batch: ...

    >>> import torch
    >>> inputs_of((torch.zeros(2, 3), torch.zeros(2))).shape
    torch.Size([2, 3])
    """
    if isinstance(batch, Mapping):
        found = next((batch[name] for name in NAMES if name in batch), None)
        keys = f"a mapping with the keys {list(batch)}"
    else:
        found, keys = batch[0] if isinstance(batch, (list, tuple)) and batch else batch, f"a {type(batch).__name__}"
    if not isinstance(found, Tensor):
        raise InputError(f"the batch is {keys}; say where its inputs are with inputs=lambda batch: ...")
    return found


class TrainerPenalty:
    """Mixin for transformers.Trainer: the loss of every training step is the Trainer's own plus `penalty`.

        class MyTrainer(TrainerPenalty, Trainer): ...
        trainer = MyTrainer(model=model, args=args, train_dataset=data)
        trainer.penalty = Penalty(model, gamma, on="all")

    Evaluation reports the plain loss. Gradient accumulation: the gradient is that of the Trainer's own loss over the
    accumulated batch plus the mean of the penalties of its parts. `inputs(batch)` gives what a penalty on the templates
    is computed on, see `inputs_of`.
    """

    penalty: Penalty | None = None
    inputs: Inputs = staticmethod(inputs_of)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The Trainer's loss, and in training the penalty on top."""
        x = self._penalised(model, inputs)
        parent: Any = super()
        found = parent.compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.penalty is None or not model.training:
            return found
        loss, outputs = found if return_outputs else (found, None)
        loss = loss + self.penalty(x).to(loss.device) * self._share_of_step(num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _penalised(self, model: Any, inputs: Any) -> Tensor | None:
        wanted = self.penalty is not None and self.penalty.on == "templates" and model.training
        return self.inputs(inputs) if wanted else None

    def _share_of_step(self, num_items_in_batch: Any) -> float:
        """What is left to do of the division by the number of accumulated batches: the Trainer's own rule, read back.

        A loss that is already normalised over the whole accumulated batch is summed, not averaged, by the Trainer.
        """
        trainer: Any = self
        scaled = getattr(trainer, "loss_is_scaled_for_ga", None)
        if scaled is None:
            counted = trainer.model_accepts_loss_kwargs and num_items_in_batch is not None
            scaled = counted or trainer.compute_loss_func is not None
        return 1 / trainer.current_gradient_accumulation_steps if scaled else 1.0


class _Hooks:
    """What the Lightning callback does; the class that Lightning sees is made when Lightning is there."""

    def __init__(self, penalty: Penalty, inputs: Inputs = inputs_of) -> None:
        super().__init__()
        require(penalty, Penalty, "penalty", "a maxaffine.Penalty")
        self.penalty, self.inputs = penalty, inputs
        self.batch: Any = None
        self.last: Tensor | None = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Remember the batch that is trained on."""
        self.batch = batch

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Add the penalty to the loss itself, so that there is one backward pass of the sum.

        `loss` is Lightning's own tensor by now: divided by the number of accumulated batches, and scaled when the
        precision has a gradient scaler; so is the penalty.
        """
        value = self.penalty(self.inputs(self.batch) if self.penalty.on == "templates" else None)
        self.last = value.detach()
        value = value / trainer.accumulate_grad_batches
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        value = value if scaler is None else scaler.scale(value)
        loss.add_(value.to(loss.device, loss.dtype))
        pl_module.log("penalty", self.last, prog_bar=False)

    def on_train_batch_end(self, *_: object) -> None:
        """Forget the batch."""
        self.batch = None


@cache
def _lightning_penalty() -> type:
    try:
        from lightning.pytorch import Callback
    except ImportError as error:
        raise MissingExtraError(MISSING) from error
    doc = """Lightning callback: every training step is taken on loss + penalty, exactly; logged as "penalty".

        Trainer(callbacks=[LightningPenalty(Penalty(module.net, gamma, on="all"))])

    For automatic optimisation. Accumulation, gradient scaling, clipping and distributed training see one loss, the sum.
    `inputs(batch)` gives what a penalty on the templates is computed on, see `inputs_of`.
    """
    return type("LightningPenalty", (_Hooks, Callback), {"__module__": __name__, "__doc__": doc})


def __getattr__(name: str) -> Any:
    if name == "LightningPenalty":
        return _lightning_penalty()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
