"""The paper's networks: sizes of every layer and numbers of parameters by hand, first weights, exact templates.

The tables below are written from the description of the networks, not from the code under test.
"""

import math

import pytest
import torch
from torch import nn

import maxaffine as ma
from maxaffine.architectures import (
    ARCHITECTURES,
    dense_cnn,
    large_cnn,
    memory_cnn,
    mlp,
    resnet_large,
    small_cnn,
    small_resnet,
)
from maxaffine.architectures.layers import Residual
from maxaffine.errors import InputError


def sizes(model, side, channels=3):
    """(Layer's class, shape of its output) in order of execution; runs without memory or arithmetic."""
    found = []
    kinds = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, Residual)
    for layer in model:
        if isinstance(layer, kinds):
            layer.register_forward_hook(lambda m, _, y: found.append((type(m).__name__, tuple(y.shape[1:]))))
    model.eval()(torch.zeros(1, channels, side, side, device="meta"))
    return found


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(autouse=True)
def fixed_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def conv(width, side):
    return ("Conv2d", (width, side, side))


def pool(width, side):
    return ("MaxPool2d", (width, side, side))


def blocks(width, side, number):
    return [("Residual", (width, side, side))] * number


def groups(widths, depth):
    """Sizes of residual groups on 32 x 32: the first block of a wider group is followed by a pooling."""
    a, b, c = widths
    second = [("Residual", (b, 32, 32)), ("AvgPool2d", (b, 16, 16)), *blocks(b, 16, depth - 1)]
    third = [("Residual", (c, 16, 16)), ("AvgPool2d", (c, 8, 8)), *blocks(c, 8, depth - 1)]
    return [conv(a, 32), *blocks(a, 32, depth), *second, *third, ("AdaptiveAvgPool2d", (c, 1, 1)), ("Linear", (10,))]


LARGE = [
    *[conv(96, 32), conv(96, 34), conv(96, 36), pool(96, 18)],
    *[conv(192, 16), conv(192, 18), conv(192, 16), pool(192, 8), conv(192, 6), conv(192, 6)],
]
LOGITS = ("Linear", (10,))
SIZES = {
    (small_cnn, "january"): [conv(32, 28), pool(32, 14), conv(64, 10), pool(64, 5), LOGITS],
    (small_cnn, "february"): [
        *[conv(32, 30), pool(32, 15), conv(64, 13), pool(64, 6), conv(128, 6), pool(128, 3)],
        LOGITS,
    ],
    (large_cnn, "flat"): [*LARGE, LOGITS],
    (large_cnn, "average"): [*LARGE, ("AdaptiveAvgPool2d", (192, 1, 1)), LOGITS],
    (large_cnn, "pool"): [*LARGE, pool(192, 3), LOGITS],
    (dense_cnn, None): [conv(32, 30), pool(32, 15), conv(64, 13), pool(64, 6), ("Linear", (128,)), LOGITS],
    (memory_cnn, None): [conv(32, 30), pool(32, 7), ("Linear", (512,)), LOGITS],
    (small_resnet, "february"): groups((16, 32, 64), 2),
    (small_resnet, "january"): groups((16, 32, 64), 2),
    (resnet_large, "february"): groups((32, 64, 128), 12),
    (resnet_large, "january"): groups((32, 64, 128), 12),
}

# Parameters by hand, 10 classes on 32 x 32 x 3: k k in out of every convolution, + 2 out for its batch norm.
NINE = 9 * (3 * 96 + 96 * 96 * 2 + 96 * 192 + 192 * 192 * 3) + 2 * (3 * 96 + 4 * 192) + 192 * 192 + 192


def resnet_by_hand(widths, depth, before):
    """`before`: a block's first norm has the width of its input (January), else of its output."""
    total, last = 9 * 3 * widths[0] + widths[0], widths[0]  # linear convolution and its bias
    for width in widths:
        for _ in range(depth):
            total += 9 * last * width + 9 * width * width + 2 * (last if before else width) + 2 * width
            total += last * width if last != width else 0
            last = width
    return total + last * 10 + (10 if before else 0)


COUNTS = {
    (small_cnn, "january"): 25 * 3 * 32 + 2 * 32 + 25 * 32 * 64 + 2 * 64 + 1600 * 10 + 10,
    (small_cnn, "february"): 39456,  # weights of all layers and both vectors of each batch norm; no bias anywhere
    (large_cnn, "flat"): NINE + 6912 * 10 + 10,
    (large_cnn, "average"): NINE + 192 * 10 + 10,
    (large_cnn, "pool"): NINE + 1728 * 10,
    (dense_cnn, None): 9 * 3 * 32 + 64 + 9 * 32 * 64 + 128 + 2304 * 128 + 256 + 1280,
    (memory_cnn, None): 9 * 3 * 32 + 64 + 1568 * 512 + 1024 + 5120,
    (small_resnet, "february"): resnet_by_hand((16, 32, 64), 2, before=False),
    (small_resnet, "january"): resnet_by_hand((16, 32, 64), 2, before=True),
    (resnet_large, "february"): resnet_by_hand((32, 64, 128), 12, before=False),
    (resnet_large, "january"): resnet_by_hand((32, 64, 128), 12, before=True),
}


def build(builder, variant, **options):
    name = "head" if builder is large_cnn else "version"
    return builder(**({name: variant} if variant else {}), **options)


@pytest.mark.parametrize(("builder", "variant"), SIZES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_sizes_and_parameters_are_those_of_the_table(builder, variant):
    with torch.device("meta"):
        model = build(builder, variant)
    assert sizes(model, 32) == SIZES[builder, variant]
    assert count(model) == COUNTS[builder, variant]


def test_the_39456_parameters_by_hand():
    kernels = 3 * 3 * 3 * 32 + 3 * 3 * 32 * 64 + 1 * 1 * 64 * 128
    dense = 3 * 3 * 128 * 10
    gains_and_shifts = 2 * (32 + 64 + 128)
    assert kernels + dense + gains_and_shifts == 39456
    assert kernels + dense == count(small_cnn(bias=False, batch_norm=False)) == 39008


def test_without_batch_norm_every_hidden_layer_has_a_bias():
    assert count(small_cnn(batch_norm=False)) == 39008 + 32 + 64 + 128
    assert count(small_cnn(version="january", batch_norm=False)) == 25 * 3 * 32 + 32 + 25 * 32 * 64 + 64 + 16010
    # Of a residual block only the first convolution has one.
    plain = 9 * (3 * 16 + 4 * 16 * 16 + 16 * 32 + 3 * 32 * 32 + 32 * 64 + 3 * 64 * 64) + 16 * 32 + 32 * 64 + 640
    for version, last in {"january": 10, "february": 0}.items():
        assert count(small_resnet(version=version, batch_norm=False)) == plain + 16 + 2 * (16 + 32 + 64) + last
        assert count(small_resnet(version=version, batch_norm=False, bias=False)) == plain


def test_mlp_of_the_benchmarks():
    assert count(mlp()) == 785 * 512 + 2 * 513 * 512 + 513 * 10
    assert [m.out_features for m in mlp(widths=(7,), classes=3) if isinstance(m, nn.Linear)] == [7, 3]
    assert count(mlp(widths=(), side=2, classes=3)) == 15


@pytest.mark.parametrize(("side", "channels", "last"), [(28, 1, 128 * 4), (28, 3, 128 * 4), (32, 1, 128 * 9)])
def test_small_cnn_on_other_images(side, channels, last):
    model = small_cnn(classes=7, channels=channels, side=side)
    assert model.head.in_features == last
    assert model(torch.zeros(2, channels, side, side)).shape == (2, 7)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("side", "channels", "classes"), [(28, 1, 10), (32, 3, 100), (64, 3, 200)])
def test_every_network_takes_the_usual_images(name, side, channels, classes):
    with torch.device("meta"):
        model = ARCHITECTURES[name](classes, channels, side).eval()
        assert model(torch.zeros(2, channels, side, side)).shape == (2, classes)


def first_sides():
    """The smallest side that each network takes, by its table: one pixel less leaves nothing to pool."""
    return {"mlp": 1, "small_cnn": 14, "large_cnn": 16, "dense_cnn": 10, "memory_cnn": 6, "small_resnet": 4}


@pytest.mark.parametrize(("name", "smallest"), first_sides().items())
def test_images_that_are_too_small_are_refused(name, smallest):
    model = ARCHITECTURES[name](side=smallest, channels=1).eval()
    assert model(torch.zeros(1, 1, smallest, smallest)).shape == (1, 10)
    with pytest.raises(InputError, match=f"side {smallest - 1} |side=0"):
        ARCHITECTURES[name](side=smallest - 1)


EXACT = [
    (small_cnn, "february", 14, "relu"),
    (small_cnn, "february", 14, "abs"),
    (small_cnn, "january", 18, "relu"),
    pytest.param(large_cnn, "flat", 12, "abs", marks=pytest.mark.slow),  # the same layers under another head
    (large_cnn, "average", 12, "relu"),
    (large_cnn, "pool", 16, "relu"),
    (dense_cnn, None, 12, "relu"),
    (memory_cnn, None, 8, "abs"),
    (mlp, None, 6, "abs"),
    (small_resnet, "february", 4, "abs"),
    (small_resnet, "january", 4, "relu"),
    (resnet_large, "february", 4, "relu"),
    pytest.param(resnet_large, "january", 4, "abs", marks=pytest.mark.slow),  # small_resnet has the same blocks
]


def lively(model):
    """Batch norms with statistics and shifts that are not those of the first step."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.uniform_(-0.3, 0.3)
            layer.running_var.uniform_(0.5, 1.5)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -0.3, 0.3)
    return model.double().eval()


@pytest.mark.parametrize(
    ("builder", "variant", "side", "activation"), EXACT, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_templates_are_exact(builder, variant, side, activation):
    model = lively(build(builder, variant, channels=2, side=side, classes=3, activation=activation))
    x = torch.randn(2, 2, side, side, dtype=torch.float64)
    f = ma.Spline(model, x).at(x)
    z = x.clone().requires_grad_()
    scores = model(z)
    jacobian = torch.stack([torch.autograd.grad(scores[:, c].sum(), z, retain_graph=True)[0] for c in range(3)], 1)
    scale = scores.abs().max()
    assert (f.A - jacobian).abs().max() <= 1e-10 * jacobian.abs().max()
    assert ((f.A * x[:, None]).sum((2, 3, 4)) + f.b - scores).abs().max() <= 1e-10 * scale


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_without_biases_and_batch_norm_the_offsets_vanish(name):
    model = ARCHITECTURES[name](channels=1, side=16, classes=2, batch_norm=False, bias=False).double()
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        assert (model(3 * x) - 3 * model(x)).abs().max() <= 1e-11 * model(3 * x).abs().max()


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_without_biases_nothing_learned_is_an_offset(name, batch_norm):
    with torch.device("meta"):
        model, usual = (ARCHITECTURES[name](side=16, batch_norm=batch_norm, bias=bias) for bias in (False, True))
    offsets = {key: p.numel() for key, p in usual.named_parameters() if key.endswith("bias")}
    assert offsets and not [key for key, _ in model.named_parameters() if key in offsets]
    assert count(usual) - count(model) == sum(offsets.values())


@pytest.mark.parametrize(("activation", "act"), [("relu", lambda z: z.clamp(min=0)), ("abs", torch.abs)])
def test_the_activation_is_the_named_one(activation, act):
    model = lively(mlp(channels=2, side=3, widths=(5, 4), batch_norm=True, activation=activation))
    assert list(model._modules) == ["flatten", "dense1", "norm1", "act1", "dense2", "norm2", "act2", "head"]
    z = x = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    z = z.reshape(6, 18)
    for dense, norm in ((model.dense1, model.norm1), (model.dense2, model.norm2)):
        z = (z @ dense.weight.T - norm.running_mean) / (norm.running_var + 1e-3).sqrt() * norm.weight + norm.bias
        z = act(z)
    wanted = z @ model.head.weight.T + model.head.bias
    assert (model(x) - wanted).abs().max() < 1e-12
    relu = small_resnet(channels=1, side=4, activation=activation).block1.path.act1
    assert relu(torch.tensor([-2.0])).item() == act(torch.tensor([-2.0])).item()


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_first_weights_are_xavier_uniform_and_biases_zero(name, batch_norm):
    model = ARCHITECTURES[name](channels=3, side=16, batch_norm=batch_norm)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for layer in layers:
        out, inside, *window = layer.weight.shape
        bound = math.sqrt(6 / ((out + inside) * math.prod(window)))
        assert layer.weight.abs().max() <= bound
        if layer.weight.numel() > 400:
            assert layer.weight.abs().max() > 0.97 * bound
            assert abs(layer.weight.var() / (bound**2 / 3) - 1) < 0.25  # of U(-a, a): a^2 / 3
    biases = [p for key, p in model.named_parameters() if key.endswith("bias")]
    assert biases and all((b == 0).all() for b in biases)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert bool(norms) == batch_norm
    assert {(m.momentum, m.eps) for m in norms} <= {(0.01, 1e-3)}


def test_batch_norms_forget_at_tensorflows_rate():
    model = small_cnn(channels=1, side=14)
    x = torch.randn(8, 1, 14, 14)
    model(x)
    mean = model.conv1(x).mean((0, 2, 3))
    assert torch.allclose(model.norm1.running_mean, 0.99 * torch.zeros(32) + 0.01 * mean, atol=1e-6)


def test_the_last_convolution_of_large_cnn_has_a_bias_and_no_batch_norm():
    model = large_cnn(channels=1, side=16)
    assert model.conv8.bias is not None and model.conv7.bias is None
    names = [name for name, _ in model.named_children()]
    assert names[names.index("conv8") + 1] == "act8"


def test_blocks_are_those_of_their_month():
    order = {"january": "norm act conv norm act conv", "february": "conv norm act conv norm"}
    for version, words in order.items():
        block = small_resnet(channels=1, side=8, version=version).block1
        assert " ".join(name.rstrip("12") for name, _ in block.path.named_children()) == words
        x = torch.randn(2, 16, 4, 4)
        assert torch.equal(block.eval()(x), block.path(x) + x)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: small_cnn(version="march"), "version='march': give one of january, february"),
        (lambda: resnet_large(version="march"), "version='march'"),
        (lambda: large_cnn(head="max"), "head='max': give one of flat, average, pool"),
        (lambda: mlp(activation="tanh"), "activation='tanh': give one of relu, abs"),
        (lambda: small_cnn(classes=0), "classes=0"),
        (lambda: small_cnn(channels=0), "channels=0"),
        (lambda: mlp(widths=(3, 0)), r"widths=\(3, 0\)"),
        (lambda: mlp(widths=8), "widths=8; give whole numbers"),
        (lambda: mlp(widths=(8.5,)), r"widths=\(8.5,\)"),
        (lambda: small_cnn(classes=2.5), "classes=2.5"),
        (lambda: small_cnn(classes=True), "classes=True"),
        (lambda: small_cnn(channels=True), "channels=True"),
        (lambda: small_cnn(side=32.0), "side=32.0"),
        (lambda: small_cnn(side="32"), "side='32'"),
        (lambda: small_cnn(bias="no"), "bias='no'; give True or False"),
        (lambda: small_cnn(activation=["relu"]), "activation=.* give one of relu, abs"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(call, words):
    with pytest.raises(InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
