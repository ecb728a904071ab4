"""The front door: what is refused and how, what runs without maps, and that nothing of the user's changes."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable

import laws
import pytest
import torch
from net import Of, example_of, inputs_of, model_of
from nets import NETS
from refused import AT_CAPTURE, WITHOUT_MAPS, Refusal, Runs, with_middle
from torch import Tensor, nn
from torch.nn import functional as F

import maxaffine as ma
from maxaffine.capture import checks
from maxaffine.operators import registry
from maxaffine.table import composition_rows

BY_NAME = {net.name: net for net in NETS}
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The message of an error, which must be one line."""
    message = str(error.value)
    assert message and "\n" not in message
    return message


def mlp(dtype: torch.dtype = torch.float64) -> nn.Module:
    return model_of(BY_NAME["mlp"], dtype)


# ---- refused at capture ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", AT_CAPTURE, ids=lambda case: case.name)
def test_refused_at_capture(case: Refusal, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ma.errors.CaptureError) as error:
        ma.Spline(case.build(), torch.randn(1, *case.shape, generator=torch.Generator().manual_seed(1)))
    message = one_line(error)
    assert all(word in message for word in case.words), message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ma.errors.MaxaffineError) as error:
        ma.Spline(mlp(dtype), X[:1].to(dtype))
    assert "torch.float32" in one_line(error) and str(dtype) in one_line(error)


def test_train_mode_without_a_module_that_minds_is_accepted() -> None:
    model = mlp().train()
    laws.assert_exact(ma.Spline(model, X[:1]), model, X)
    assert model.training


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_an_example_of_any_number_of_rows(rows: int) -> None:
    model = mlp()
    laws.assert_exact(ma.Spline(model, X.repeat(2, 1)[:rows]), model, X)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"until": "4.5"}, ("4.5",)),
        ({"over": "nothing"}, ("nothing",)),
        ({"select": "logits"}, ("logits",)),
        ({"over": 3}, ("3",)),
    ],
    ids=lambda value: str(value),
)
def test_wrong_names_in_the_call_are_said(options: dict, words: tuple[str, ...]) -> None:
    with pytest.raises(ma.errors.MaxaffineError) as error:
        ma.Spline(mlp(), X[:1], **options)
    assert all(word in one_line(error) for word in words)


def test_a_structured_output_needs_select() -> None:
    with pytest.raises(ma.errors.MaxaffineError, match="select") as error:
        ma.Spline(model_of(BY_NAME["dict_output"]), X[:1])
    one_line(error)


@pytest.mark.parametrize("example", [torch.zeros(0, 4), torch.zeros(()), torch.zeros(1, 4, dtype=torch.long)])
def test_examples_that_cannot_be(example: Tensor) -> None:
    with pytest.raises(ma.errors.MaxaffineError) as error:
        ma.Spline(mlp(torch.float32), example)
    one_line(error)


# ---- runs, but has no maps -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", WITHOUT_MAPS, ids=lambda case: case.name)
def test_runs_but_maps_are_refused(case: Runs) -> None:
    model = with_middle(case)
    spline = ma.Spline(model, X[:1])
    laws.assert_exact(spline, model, X)
    asked: list[Callable[[], object]] = [
        lambda: spline.at(X),
        lambda: spline.code(X),
        lambda: spline.region(X[0]),
        lambda: ma.margin(spline, X),
    ]
    for ask in asked:
        with pytest.raises(ma.errors.NotPiecewiseAffineError) as error:
            ask()
        message = one_line(error)
        assert case.word in message and "middle" in message, message
        assert re.search(r"until=['\"]a(\.2)?['\"]", message), message


@pytest.mark.parametrize("case", WITHOUT_MAPS[:3], ids=lambda case: case.name)
def test_the_advice_to_cut_is_right(case: Runs) -> None:
    model = with_middle(case)
    with pytest.raises(ma.errors.NotPiecewiseAffineError) as error:
        ma.Spline(model, X[:1]).at(X)
    until = re.search(r"until=['\"]([\w.]+)['\"]", str(error.value))
    assert until is not None
    cut = ma.Spline(model, X[:1], until=until[1])
    laws.assert_exact(cut, model.a, X)
    laws.assert_frozen(cut, model.a, X)


def test_what_does_not_depend_on_a_smooth_operation_is_given() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.Softmax(1)).double().eval()
    spline = ma.Spline(model, X[:1])
    pre = model[0](X).detach()
    assert bool((spline.code(X)["1"] == (pre > 0)).all())
    laws.assert_close(spline.at(X, output="1")(X), pre)
    with pytest.raises(ma.errors.NotPiecewiseAffineError, match="until='2'"):
        spline.at(X)


# ---- wrong inputs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(2, 5, dtype=torch.float64), ("(2, 5)",)),
        (torch.zeros(4, dtype=torch.float64), ("(4,)",)),
        (torch.zeros(2, 4), ("float32", "float64", ".to(")),
        (torch.zeros(2, 4, dtype=torch.float16), ("float16", ".to(torch.float32)")),
        (torch.zeros(2, 4, dtype=torch.long), ("int64",)),
        (torch.zeros(0, 4, dtype=torch.float64), ("(0, 4)",)),
        (torch.full((2, 4), torch.nan, dtype=torch.float64), ("nan",)),
        (torch.full((2, 4), torch.inf, dtype=torch.float64), ("inf",)),
    ],
    ids=["width", "no_batch", "float32", "float16", "integers", "empty", "nan", "inf"],
)
@pytest.mark.parametrize("ask", ["run", "code", "at", "replay"])
def test_wrong_inputs(x: Tensor, words: tuple[str, ...], ask: str) -> None:
    spline = ma.Spline(mlp(), X[:1])
    code = spline.code(X[:2])
    call = {"run": spline, "code": spline.code, "at": spline.at, "replay": lambda z: spline.replay(code, z)}[ask]
    with pytest.raises(ma.errors.InputError) as error:
        call(x)
    assert all(word in one_line(error).lower() for word in words), str(error.value)


@pytest.mark.parametrize("point", [X[:1], torch.zeros(5, dtype=torch.float64)])
def test_a_region_is_of_one_point(point: Tensor) -> None:
    with pytest.raises(ma.errors.InputError) as error:
        ma.Spline(mlp(), X[:1]).region(point)
    one_line(error)


def test_names_of_operators_that_are_not_there() -> None:
    spline = ma.Spline(mlp(), X[:1])
    for ask in (
        lambda: spline.at(X, output="act"),
        lambda: spline.at(X, input="act"),
        lambda: spline.code(X)["act"],
    ):
        with pytest.raises(ma.errors.InputError) as error:
            ask()
        assert "'act'" in one_line(error) and "'1'" in one_line(error)


def test_a_model_moved_after_capture_is_said() -> None:
    model = mlp()
    spline = ma.Spline(model, X[:1])
    model.float()
    for ask in (spline, spline.code, spline.at):
        with pytest.raises(ma.errors.MaxaffineError) as error:
            ask(X)
        assert "float32" in one_line(error)
    model.double()
    assert torch.equal(spline(X), model(X))


# ---- batch norms ----------------------------------------------------------------------------------------


def normed(call: Callable[[nn.BatchNorm2d, Tensor], Tensor]) -> nn.Module:
    """A convolution, a batch norm that has seen data, by the given call, and a ReLU."""
    torch.manual_seed(0)
    model = Of(lambda m, x: call(m.norm, m.conv(x)).relu(), conv=nn.Conv2d(1, 3, 3), norm=nn.BatchNorm2d(3)).double()
    model.norm(model.conv(torch.randn(9, 1, 5, 5, dtype=torch.float64)))
    return model.eval()


@pytest.mark.parametrize(
    "call",
    {
        "module": lambda n, z: n(z),
        "functional": lambda n, z: F.batch_norm(z, n.running_mean, n.running_var, n.weight, n.bias),
        "functional_by_names": lambda n, z: F.batch_norm(
            z, eps=0.1, running_var=n.running_var, running_mean=n.running_mean
        ),
        "torch": lambda n, z: torch.batch_norm(
            z, n.weight, n.bias, n.running_mean, n.running_var, False, 0.1, 0.1, True
        ),
    }.values(),
    ids=["module", "functional", "functional_by_names", "torch"],
)
def test_batch_norms_stay_whole(call: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU torch's own would ask cuDNN for its largest batch, which torch.export takes for a condition."""
    programs, real = [], torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *a, **k: programs.append(real(*a, **k)) or programs[-1])
    model, x = normed(call), torch.randn(4, 1, 5, 5, dtype=torch.float64)
    laws.assert_exact(ma.Spline(model, x[:1]), model, x)
    norms = [str(node.target) for node in programs[0].graph.nodes if "batch_norm" in str(node.target)]
    assert norms == ["maxaffine.batch_norm.default"]


# ---- nothing of the user's changes -----------------------------------------------------------------------


DELICATE = (  # in-place writes, hooks, buffers, shared weights, structured calls
    "residual sliced_in_place input_in_place two_inputs keyword tokens dict_output cut reused tied "
    "weight_norm spectral_norm old_weight_norm dropout batch_norm_1d rnn cnn resnet_block degenerate"
)


@pytest.mark.parametrize("name", DELICATE.split())
def test_the_model_is_not_touched(name: str) -> None:
    net = BY_NAME[name]
    model = model_of(net)
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    parts, random = [id(m) for m in model.modules()], torch.get_rng_state()
    example, x = example_of(net), inputs_of(net, 2)
    kept_example, kept_x = copy.deepcopy(example), x.clone()
    spline = ma.Spline(model, example, **net.options)
    spline(x), spline.code(x), spline.at(x).A, spline.replay(spline.code(x), x)
    spline.to(torch.float32)(x.float())
    assert modes == [m.training for m in model.modules()]
    assert parts == [id(m) for m in model.modules()]
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[k], v) and state[k].dtype == v.dtype for k, v in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(x, kept_x) and same(example, kept_example)
    assert all(p.grad is None for p in model.parameters())


def same(a: object, b: object) -> bool:
    """Two examples (a tensor, a tuple or a dict of tensors) are equal."""
    flat_a, flat_b = torch.utils._pytree.tree_leaves(a), torch.utils._pytree.tree_leaves(b)
    return all(torch.equal(p, q) for p, q in zip(flat_a, flat_b, strict=True))


def test_a_spline_follows_the_training_of_its_model() -> None:
    model = mlp()
    spline, copied = ma.Spline(model, X[:1]), ma.Spline(model, X[:1]).to(torch.float32)
    before = copied(X.float())
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    model(X).square().sum().backward()
    optimiser.step()
    laws.assert_exact(spline, model, X)
    laws.assert_frozen(spline, model, X)
    model[0].weight = nn.Parameter(torch.randn_like(model[0].weight))
    laws.assert_exact(spline, model, X)
    model.load_state_dict({k: torch.randn_like(v) for k, v in model.state_dict().items()}, assign=True)
    laws.assert_exact(spline, model, X)
    laws.assert_jacobian(spline, model, X)
    assert torch.equal(copied(X.float()), before)


def test_float_inside_a_network_of_float32() -> None:
    """x.float() in the forward is the identity there; the converted spline keeps all its digits."""

    def forward(m: Of, x: Tensor) -> Tensor:
        return m.b(F.relu(m.a(x.float())).float())

    model = Of(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 2)).eval()
    spline = ma.Spline(model, X[:1].float())
    laws.assert_exact(spline, model, X.float(), 1e-6)
    wide = copy.deepcopy(model).double()
    laws.assert_exact(spline.to(torch.float64), lambda x: wide.b(F.relu(wide.a(x))), X)


def test_gradients_reach_the_weights_only_when_asked() -> None:
    model = mlp()
    spline = ma.Spline(model, X[:1])
    assert not spline.at(X).A.requires_grad
    spline.at(X, create_graph=True).A.square().sum().backward()
    found = [p.grad.clone() for p in (model[0].weight, model[2].weight, model[4].weight)]
    twin = mlp()
    jacobian = torch.vmap(torch.func.jacrev(lambda x: twin(x)))(X)
    jacobian.square().sum().backward()
    for gradient, layer in zip(found, (twin[0], twin[2], twin[4]), strict=True):
        laws.assert_close(gradient, layer.weight.grad)


def test_hooks_of_the_user_are_part_of_the_model() -> None:
    model = mlp()
    model[2].register_forward_hook(lambda _module, _inputs, output: output * 2)
    laws.assert_exact(ma.Spline(model, X[:1]), model, X)


NAMES = {
    "mlp": ["1", "3"],
    "reused": ["act", "act@1"],
    "cnn": ["2", "3", "6"],
    "ramp_relu": ["1", "3"],
    "grouped": ["1", "3"],
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_operators_are_frozen(name: str) -> None:
    net = BY_NAME[name]
    assert [o.name for o in ma.Spline(model_of(net), example_of(net), **net.options).operators] == NAMES[name]


def test_names_of_functional_calls_are_frozen() -> None:
    def forward(m: Of, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        return torch.relu(m.block(y)).abs()

    block = Of(lambda m, x: F.relu(F.relu(m.a(x)) - 1), a=nn.Linear(4, 4))
    model = Of(forward, a=nn.Linear(4, 4), block=block).double().eval()
    names = [o.name for o in ma.Spline(model, X[:1]).operators]
    assert names == ["relu", "block.relu", "block.relu@1", "relu@1", "abs"]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: ma.Spline(lambda x: x, X[:1]), "function"),  # pyright: ignore[reportArgumentType]
        (lambda: ma.Spline(mlp(), X[:1] * torch.nan), "NaN"),
        (lambda: ma.Spline(mlp(), X[:1, :3]), "(3,)"),
        (lambda: ma.Spline(mlp(), X[:1].float()), "torch.float32"),
        (lambda: ma.Spline(mlp(), X[:1]).to("cuda:99"), "cuda:99"),
        (lambda: ma.Spline(mlp(), X[:1]).to("float64"), "float64"),
    ],
)
def test_more_that_cannot_be(make: Callable[[], object], word: str) -> None:
    with pytest.raises(ma.errors.MaxaffineError) as error:
        make()
    assert word in one_line(error)


@pytest.mark.parametrize(
    ("forward", "word"),
    [
        (lambda m, x: m(x) + torch.randn(6, generator=torch.Generator()).to(x), "generator"),
        (lambda m, x: m(x)[:, torch.tensor([True, False, True, False, True, False])], "mask"),
    ],
)
def test_objects_and_masks_are_refused_by_name(forward: Callable, word: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return forward(self.a, x)

    with pytest.raises(ma.errors.CaptureError) as error:
        ma.Spline(Model().double(), X[:1])
    assert word in one_line(error)


def test_a_window_wholly_in_the_padding_is_refused() -> None:
    model = nn.Sequential(nn.MaxPool2d(2, 2, padding=1, dilation=2), nn.ReLU())
    spline = ma.Spline(model, torch.zeros(1, 1, 3, 1))
    with pytest.raises(ma.errors.NotPiecewiseAffineError, match="wholly in the padding") as error:
        spline.code(torch.zeros(1, 1, 3, 1))
    one_line(error)


WRONG_RULES = {
    "the product of two constants is kept": (
        "aten.addcmul.default",
        {"products": ()},
        lambda m, x: torch.addcmul(m.a(x), m.b.weight[:1], m.b.weight[1:2]),
    ),
    "the constant term is kept": ("aten.linear.default", {"biases": ()}, lambda m, x: m.b(m.a(x).relu())),
    "the adjoint forgets a factor": (
        "aten.mul.Tensor",
        {"transpose": lambda g, args, shape, at: g.reshape(shape)},  # noqa: ARG005
        lambda m, x: m.a(x).relu() * m.b.bias,
    ),
}


@pytest.mark.parametrize("name", WRONG_RULES)
def test_a_wrong_rule_is_found_by_the_frozen_map(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, wrong, forward = WRONG_RULES[name]
    model = Of(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4)).double()
    ma.Spline(model, X[:1])
    monkeypatch.setitem(registry.TABLE, op, dataclasses.replace(registry.TABLE[op], **wrong))
    with pytest.raises(ma.errors.CaptureError, match="the frozen map"):
        ma.Spline(model, X[:1])


def test_a_refusal_on_a_gpu_says_how_to_leave_tf32() -> None:
    conv = torch.backends.cudnn.conv
    assert conv.fp32_precision == "tf32"  # torch's default, with or without a GPU
    assert "set torch.backends.cudnn.allow_tf32 = False" in checks._precision(torch.float32, "cuda")
    assert not checks._precision(torch.float64, "cuda") and not checks._precision(torch.float32, "cpu")
    torch.backends.cudnn.allow_tf32 = False
    try:
        assert not checks._precision(torch.float32, "cuda")
    finally:
        torch.backends.cudnn.allow_tf32 = True


def test_running_statistics_are_no_parameters() -> None:
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
    net = nn.Sequential(*layers).double().eval()
    spline = ma.Spline(net, torch.zeros(1, 2, 4, 4, dtype=torch.float64))
    before = [row[-1] for row in composition_rows(spline.captured, spline.operators, spline.out_shape)]
    assert before == [4 * 2 * 9 + 4 + 4 + 4, 16 * 3 + 3]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.uint8])
def test_a_model_of_no_floats_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ma.errors.CaptureError, match=f"nothing .* is floating point .{dtype}."):
        ma.Spline(nn.ReLU(), torch.zeros(1, 4, dtype=dtype))
