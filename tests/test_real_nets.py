"""Every real network, in float64: the spline is the network, at the inputs and elsewhere in their regions."""

from __future__ import annotations

import re
from functools import lru_cache

import laws
import pytest
import torch
from assets import asset, needs_assets
from llama2c import SwiGLU, llama2c
from oracles import Function, module_oracle, onnx_float64_oracle, onnxruntime_oracle
from real_nets import REAL_NETS, SMOOTH_NETS, RealNet
from torch import Tensor

import maxaffine as ma

pytestmark = needs_assets
INPUTS = 64
each = pytest.mark.parametrize("net", REAL_NETS, ids=lambda net: net.name)


@lru_cache(maxsize=2)
def captured(net: RealNet) -> ma.Spline:
    """The spline of a network, of the dtype its weights have in the file."""
    if net.module is None:
        return ma.load(asset(net.file))
    module, example = net.module(net.file), net.inputs(1)
    parameter = next(module.parameters())
    options = {"until": net.until, "select": net.select}
    return ma.Spline(module, example.to(parameter.dtype), **{k: v for k, v in options.items() if v is not None})


@lru_cache(maxsize=2)
def truth(net: RealNet) -> Function:
    """The original network in float64."""
    if net.module is None:
        return onnx_float64_oracle(net.file)
    return module_oracle(net.module(net.file), torch.float64, net.until, net.select)


def relative(found: Tensor, wanted: Tensor) -> float:
    """max |found - wanted| / max |wanted|, over all outputs."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def off_the_walls(net: RealNet, x: Tensor) -> Tensor:
    """The inputs with the network's in-domain noise: blank pixels tie in max pooling, exactly on walls."""
    generator = torch.Generator().manual_seed(4)
    return x + net.noise * torch.rand(x.shape, generator=generator, dtype=x.dtype)


@each
def test_the_spline_is_the_network(net: RealNet) -> None:
    spline, x = captured(net), net.inputs(INPUTS)
    wide = spline.to(torch.float64)
    assert relative(wide(x.double()), truth(net)(x.double())) <= 1e-9
    if net.module is None:
        assert relative(spline(x).double(), onnxruntime_oracle(net.file)(x).double()) <= 1e-4


@each
def test_the_map_of_each_input_is_the_network_there(net: RealNet) -> None:
    spline, x = captured(net).to(torch.float64), net.inputs(INPUTS).double()
    f, wanted = spline.at(x), truth(net)(x)
    assert relative(f(x), wanted) <= 1e-9
    a, b = f.A.reshape(INPUTS, -1, x[0].numel()), f.b.reshape(INPUTS, -1)
    assert relative(torch.einsum("nod,nd->no", a, x.flatten(1)) + b, wanted.reshape(b.shape)) <= 1e-9
    assert relative(spline.replay(spline.code(x), x), wanted) <= 1e-9


@each
def test_the_map_is_the_network_elsewhere_in_the_region(net: RealNet) -> None:
    spline = captured(net).to(torch.float64)
    x = off_the_walls(net, net.inputs(INPUTS)[: net.margins].double())
    margins = ma.margin(spline, x).values
    assert margins.dtype == torch.float64 and bool((margins > 0).all())
    elsewhere = x + 0.9 * margins.clamp(max=1e3).reshape(-1, *[1] * (x.dim() - 1)) * laws.directions(x)
    wanted, code = truth(net)(elsewhere), spline.code(x)
    assert relative(spline.at(x)(elsewhere), wanted) <= 1e-9
    assert relative(spline.replay(code, elsewhere), wanted) <= 1e-9
    assert_same_code(spline, x, elsewhere)


@each
def test_the_map_is_the_network_at_another_point_of_all_regions(net: RealNet) -> None:
    """For all inputs: a random step, halved until the code is that of the input, so that it ends in its region."""
    spline = captured(net).to(torch.float64)
    x = off_the_walls(net, net.inputs(INPUTS).double())
    code, along = spline.code(x), laws.directions(x)
    step = 0.1 * x.flatten(1).norm(dim=1).clamp(min=1)
    for _ in range(48):
        elsewhere = x + step.reshape(-1, *[1] * (x.dim() - 1)) * along
        same = spline.code(elsewhere) == code
        if bool(same.all()):
            break
        step = torch.where(same, step, step / 2)
    inside = (same & (step > 1e-9)).nonzero().flatten()  # a unit that is zero on its region never settles: see below
    assert len(inside) >= INPUTS // 2
    wanted = truth(net)(elsewhere)[inside]
    assert relative(spline.at(x[inside])(elsewhere[inside]), wanted) <= 1e-9
    assert relative(spline.replay(code[inside], elsewhere[inside]), wanted) <= 1e-9


def assert_same_code(spline: ma.Spline, x: Tensor, elsewhere: Tensor) -> None:
    """Equal codes, but for units whose operand is zero on the whole region: there its sign is rounding."""
    here, there = spline.code(x), spline.code(elsewhere)
    for operator in spline.operators:
        changed = here[operator.name] != there[operator.name]
        if bool(changed.any()):
            assert operator.op == "relu"
            f = spline.at(x, output=operator.name)
            scale = f(x).abs().max()
            assert bool((f(x)[changed].abs() <= 1e-13 * scale).all())
            assert bool((f(elsewhere)[changed].abs() <= 1e-13 * scale).all())


def test_the_law_of_the_map_elsewhere_can_fail() -> None:
    """Far outside the region the frozen map is not the network: the tolerance is not too wide."""
    net = REAL_NETS[0]
    spline, x = captured(net).to(torch.float64), net.inputs(8).double()
    beyond = x + 3.0 * laws.directions(x)
    assert relative(spline.at(x)(beyond), truth(net)(beyond)) > 1e-6


@pytest.mark.parametrize("net", SMOOTH_NETS, ids=lambda net: net.name)
def test_networks_that_are_not_piecewise_affine_run_and_say_so(net: RealNet) -> None:
    module, x = net.module(net.file), net.inputs(4)
    tokens = torch.randint(512, (1, 16), generator=torch.Generator().manual_seed(0))
    spline = ma.Spline(module, tokens, over=net.over) if net.over else ma.Spline(module, x[:1])
    judge = net.module(net.file).double()
    with torch.no_grad():
        wanted = judge.from_embedding(x.double()) if net.over else judge(x.double())
    assert relative(spline(x).detach().double(), wanted) <= 1e-4
    assert relative(spline.to(torch.float64)(x.double()), wanted) <= 1e-6
    named = {
        "gan_tanh": "until='4'",
        "vae_decoder_sigmoid": "until='fc4'",
        "stories260K": "layers.0.attention_norm",
    }
    with pytest.raises(ma.errors.NotPiecewiseAffineError, match=named[net.name]):
        spline.at(x)


def test_the_gated_mlp_of_the_language_model_names_its_silu() -> None:
    mlp = llama2c("nets/llm/stories260K.bin").layers[2].mlp
    assert isinstance(mlp, SwiGLU)
    x = torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0))
    spline = ma.Spline(mlp, x[:1])
    assert relative(spline(x).detach(), mlp(x).detach()) <= 1e-5
    with pytest.raises(ma.errors.NotPiecewiseAffineError, match="silu") as refusal:
        spline.at(x)
    cut = re.search(r"until='([\w.]+)'", str(refusal.value))
    assert cut is not None and cut[1] in ("w1", "w3")


@pytest.mark.parametrize("name", ["resnet20", "lenet", "eran_maxpool"])
def test_names_and_sizes_of_operators(name: str) -> None:
    net = next(net for net in REAL_NETS if net.name == name)
    operators = captured(net).operators
    units = {"resnet20": 188_416, "lenet": None, "eran_maxpool": None}[name]
    kinds = {o.op for o in operators}
    assert units is None or sum(o.units for o in operators) == units
    assert ("relu" in kinds) and (any("max" in kind for kind in kinds) == (name != "resnet20"))
