"""On a GPU the same values, codes, maps and regions come out as on the CPU, in float64 to rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from laws import assert_close
from net import Net, example_of, inputs_of, model_of
from nets import BY_NAME, NETS, captured
from torch import Tensor
from torch.utils import _pytree as pytree

import maxaffine as ma

GPU = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def there(value: Any) -> Any:
    """Every tensor of a value on the GPU."""
    return pytree.tree_map(lambda leaf: leaf.to(GPU) if isinstance(leaf, Tensor) else leaf, value)


def assert_same(here: ma.Spline, gpu: ma.Spline, x: Tensor, tolerance: float = 1e-9) -> None:
    """All that a spline answers; x on the CPU and off the walls. What it gives is where the spline is."""
    y = x.to(GPU)
    code, found = here.code(x), gpu.code(y)
    assert all(
        v.device.type == "cuda" and torch.equal(v.cpu(), w) for v, w in zip(found.values, code.values, strict=True)
    )
    assert found.ids() == code.ids() and torch.equal(found.packed().cpu(), code.packed())
    maps, wanted = gpu.at(y), here.at(x)
    v, u = torch.randn_like(x), torch.randn_like(here(x))
    pairs = [(gpu(y), here(x)), (maps.A, wanted.A), (maps.b, wanted.b), (maps(y), here(x))]
    pairs += [(maps.mv(v.to(GPU)), wanted.mv(v)), (maps.vm(u.to(GPU)), wanted.vm(u))]
    pairs += [(maps.rows([0]), wanted.rows([0])), (gpu.replay(found, y), here(x))]
    for mine, theirs in pairs:
        assert mine.device.type == "cuda"
        assert_close(mine.cpu(), theirs, tolerance)
    if here.operators:
        assert_close(ma.distance(found, found[:1]), ma.distance(code, code[:1]))
        assert_close(ma.pairwise_distance(found, found).cpu(), ma.pairwise_distance(code, code))


COARSE = {"weight_norm": 1e-7, "old_weight_norm": 1e-7}  # torch's kernel takes the norms in float32 on a GPU
ON_THE_CPU = ("masked", "bilinear_constant")  # their forward makes tensors on the CPU
ROUNDED = ("ramp_hardsigmoid",)  # torch's kernel takes 1/6 in float32 on a GPU: refused in float64


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_the_same_as_on_the_cpu(net: Net) -> None:
    here, x, tolerance = captured(net.name), inputs_of(net, 3), COARSE.get(net.name, 1e-9)
    assert_same(here, here.to(GPU), x, tolerance)
    if net.name in ON_THE_CPU + ROUNDED:
        with pytest.raises(ma.errors.CaptureError):
            ma.Spline(model_of(net).to(GPU), there(example_of(net)), **net.options)
        return
    direct = ma.Spline(model_of(net).to(GPU), there(example_of(net)), **net.options)
    assert_same(here, direct, x, tolerance)
    region, wanted = direct.region(x[0].to(GPU)), here.region(x[0])
    assert bool(region.contains(x[0].to(GPU)))
    assert_close(region.margin().cpu(), wanted.margin(), 10 * tolerance)
    found, margins = ma.margin(direct, x.to(GPU)), ma.margin(here, x)
    assert_close(found.values.cpu(), margins.values, 10 * tolerance)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_gradients_through_maps(name: str) -> None:
    net = BY_NAME[name]
    found = []
    for device in ("cpu", GPU):
        model = model_of(net).to(device)
        spline = ma.Spline(model, example_of(net).to(device))
        loss = ma.Penalty(spline, 1.0, on="templates")(inputs_of(net, 3).to(device))
        loss = loss + spline.at(inputs_of(net, 3).to(device), create_graph=True).A.square().sum()
        loss.backward()
        found.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
    for mine, theirs in zip(*found, strict=True):
        assert_close(mine, theirs, 1e-9)


def test_a_model_and_inputs_on_different_devices(tmp_path: Any) -> None:
    net = BY_NAME["mlp"]
    model, x = model_of(net), inputs_of(net, 2)
    gpu = ma.Spline(model.to(GPU), example_of(net).to(GPU))
    with pytest.raises(ma.errors.InputError, match=r"spline.to\('cpu'\) or x.to\('cuda:0'\)"):
        gpu(x)
    with pytest.raises(ma.errors.CaptureError, match="move one"):
        ma.Spline(model, example_of(net))
    gpu.save(tmp_path / "net.safetensors")
    assert_close(ma.load(tmp_path / "net.safetensors")(x), gpu(x.to(GPU)).cpu())
    model.to("cpu")
    with pytest.raises(ma.errors.InputError, match="moved after capture"):
        gpu(x.to(GPU))


def test_partitions_and_templates_of_a_spline_on_the_gpu() -> None:
    net = BY_NAME["mlp"]
    gpu, x = captured("mlp").to(GPU), inputs_of(net, 3)
    plane, wanted = (ma.partition(s, ma.Plane.through(*x)) for s in (gpu, captured("mlp")))
    assert len(plane) == len(wanted)
    assert_close(torch.as_tensor(plane.A), torch.as_tensor(wanted.A))
    line, by_cpu = (ma.partition(s, ma.Segment(x[0], x[1])) for s in (gpu, captured("mlp")))
    assert_close(torch.as_tensor(line.knots), torch.as_tensor(by_cpu.knots))
