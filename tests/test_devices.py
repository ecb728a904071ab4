"""On a GPU the same values, codes, maps, regions and statistics come out as on the CPU, in float64 to rounding.

Without a GPU they are skipped here and run by tests/test_second_device.py on a device that torch takes for one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from laws import assert_close
from net import Net, example_of, inputs_of, model_of
from nets import BY_NAME, NETS, captured
from torch import Tensor
from torch.utils import _pytree as pytree

import maxaffine as ma
from maxaffine import codebook, encoding, templates
from maxaffine.operators import composition, layers

CUDA = torch.cuda.is_available()
GPU = torch.device("cuda" if CUDA else "twin") if CUDA or hasattr(torch, "twin") else None
pytestmark = pytest.mark.skipif(GPU is None, reason="torch sees no GPU")


def there(value: Any) -> Any:
    """Every tensor of a value on the GPU."""
    return pytree.tree_map(lambda leaf: leaf.to(GPU) if isinstance(leaf, Tensor) else leaf, value)


def assert_same(here: ma.Spline, there: ma.Spline, x: Tensor, tolerance: float = 1e-9) -> None:
    """All that a spline answers; x on the CPU and off the walls. What it gives is where the spline is."""
    y, device = x.to(there.device), there.device
    code, found = here.code(x), there.code(y)
    assert all(v.device == device and torch.equal(v.cpu(), w) for v, w in zip(found.values, code.values, strict=True))
    assert found.ids() == code.ids() and torch.equal(found.packed().cpu(), code.packed())
    maps, wanted = there.at(y), here.at(x)
    v, u = torch.randn_like(x), torch.randn_like(here(x))
    pairs = [(there(y), here(x)), (maps.A, wanted.A), (maps.b, wanted.b), (maps(y), here(x))]
    pairs += [(maps.mv(v.to(device)), wanted.mv(v)), (maps.vm(u.to(device)), wanted.vm(u))]
    pairs += [(maps.rows([0]), wanted.rows([0])), (there.replay(found, y), here(x))]
    for mine, theirs in pairs:
        assert mine.device == device
        assert_close(mine.cpu(), theirs, tolerance)
    region, expected = there.region(y[0]), here.region(x[0])
    margins = [(region.margin(), expected.margin()), (ma.margin(there, y).values, ma.margin(here, x).values)]
    assert bool(region.contains(y[0]))
    for mine, theirs in margins:
        assert_close(1 / mine.cpu(), 1 / theirs, 10 * tolerance)  # a network without walls has infinite ones
    if here.operators:
        assert_close(ma.distance(found, found[:1]), ma.distance(code, code[:1]))
        assert_close(ma.pairwise_distance(found, found).cpu(), ma.pairwise_distance(code, code))


COARSE = {"weight_norm": 1e-7, "old_weight_norm": 1e-7}  # torch's kernel takes the norms in float32 on a GPU
ON_THE_CPU = ("masked", "bilinear_constant")  # their forward makes tensors on the CPU
ROUNDED = ("ramp_hardsigmoid",) if CUDA else ()  # torch's kernel takes 1/6 in float32 on a GPU: refused in float64


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


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_a_default_device_moves_no_network(net: Net) -> None:
    here, x, model, example = captured(net.name), inputs_of(net, 3), model_of(net), example_of(net)
    with torch.device(GPU):
        if net.name in (*ON_THE_CPU, "ramp_maximum_constant"):  # their forward would make tensors there
            with pytest.raises(ma.errors.CaptureError):
                ma.Spline(model, example, **net.options)
        else:
            assert_same(here, ma.Spline(model, example, **net.options), x)


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
    with pytest.raises(ma.errors.InputError, match=rf"spline.to\('cpu'\) or x.to\('{GPU.type}:0'\)"):
        gpu(x)
    with pytest.raises(ma.errors.CaptureError, match="move one"):
        ma.Spline(model, example_of(net))
    gpu.save(tmp_path / "net.safetensors")
    assert_close(ma.load(tmp_path / "net.safetensors")(x), gpu(x.to(GPU)).cpu())
    model.to("cpu")
    with pytest.raises(ma.errors.InputError, match="moved after capture"):
        gpu(x.to(GPU))


def _statistics(spline: ma.Spline, x: Tensor) -> Any:
    return ma.template_statistics(spline, x, _labels(x))


def _labels(x: Tensor) -> Tensor:
    return (torch.arange(len(x)) % 2).to(x.device)


def _bank(spline: ma.Spline, x: Tensor) -> templates.Templates:
    return templates.templates(spline.at(x), x, classes=[1, 0])


def _penalty(on: Any, kind: str) -> Callable[[ma.Spline, Tensor], Any]:
    def value(spline: ma.Spline, x: Tensor) -> Any:
        model = model_of(BY_NAME["cnn"]).to(x.device)
        penalty = ma.Penalty(model, 0.5, on=on, kind=kind, example=x)
        loss = penalty(x)
        loss.backward()
        return loss, [p.grad for p in model.parameters() if p.grad is not None]

    return value


def _index(spline: ma.Spline, x: Tensor) -> Any:
    code, ids = spline.code(x), torch.arange(100, 100 + len(x)).to(x.device)
    index = ma.CodeIndex.build(code, ids)
    index.remove(ids[:2])
    return index.search(code, 3), index.within(code, 0.2), index.lookup(code), ma.near_duplicates(code, 0.1, ids=ids)


def _layer(spline: ma.Spline, x: Tensor) -> Any:
    weight = model_of(BY_NAME["mlp"])[0].weight.to(x.device)
    maso = composition.layer(layers.dense(weight), layers.relu(len(weight), dtype=x.dtype).to(x.device))
    flat = x.flatten(1)[:, : maso.D]
    diagram = codebook.layer_diagram(layers.dense(weight))
    return maso(flat), maso.code(flat), maso.selected(flat), maso.one_hot(flat), diagram.nearest(flat)


def _slices(spline: ma.Spline, x: Tensor) -> Any:
    plane, segment = ma.Plane.through(*x[:3]), ma.Segment(*x[:2])
    where = torch.linspace(0, 1, 5, dtype=x.dtype, device=x.device)
    return plane.coordinates(x), plane.embed(torch.stack([where, where], 1)), segment.embed(where)


def _encoded(spline: ma.Spline, x: Tensor) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        encoding.encode(spline, x.cpu().numpy(), Path(folder) / "codes", batch=4, shard=8)
        return encoding.read_codes(Path(folder) / "codes").code.packed()


def _plane(spline: ma.Spline, x: Tensor) -> Any:
    found = ma.partition(spline, ma.Plane.through(*x[:3]))
    return found.A, found.b, found.vertices, len(found)


QUESTIONS: Mapping[str, Callable[[ma.Spline, Tensor], Any]] = {
    "templates": lambda s, x: [
        getattr(_bank(s, x), what) for what in ("inner", "scores", "margins", "gram", "alignments")
    ],
    "labels": lambda s, x: (
        templates.correct(_bank(s, x).inner, _labels(x)),
        templates.wrong(_bank(s, x).inner, _labels(x)),
    ),
    "reading": lambda s, x: templates.reading(_bank(s, x), _labels(x).flip(0)),
    "noise": lambda s, x: templates.pairwise_error(_bank(s, x), 0.5, _labels(x)),
    "gram": lambda s, x: templates.spectral_norm(s.at(x), "gram").values,
    "power": lambda s, x: templates.spectral_norm(s.at(x), "power", tolerance=1e-9).values,
    "signs": lambda s, x: templates.sign_perturbation(s, x, 0.01, classes=[1]),
    "optimum": lambda _, x: templates.optimal_templates(x, _labels(x), 2),
    "statistics": _statistics,
    **{f"{on}, {kind}": _penalty(on, kind) for on in ("last", "all") for kind in ("sum", "authors", "soft", "srip")},
    "all, convolutional": _penalty("all", "convolutional"),
    "templates, cosine": _penalty("templates", "cosine"),
    "rows": lambda s, x: [s.code(x)[rows] == s.code(x) for rows in (_labels(x)[:1], 1, slice(2, 3))],
    "other device": lambda s, x: [s.code(x) == s.to("cpu").code(x.cpu()), s.to("cpu").code(x.cpu()) == s.code(x)],
    "index": _index,
    "nearest": lambda s, x: codebook.nearest(s.code(x[:4]), s.code(x), 2, own=_labels(x)[:4]),
    "agreement": lambda s, x: codebook.class_agreement(s.code(x), _labels(x), [1, 2], queries=_labels(x)),
    "euclid": lambda s, x: codebook.against_euclidean(s.code(x), x),
    "comparison": lambda s, x: codebook.compare(s.code(x), s.code(x.flip(0))),
    "cells": lambda s, x: (codebook.cells(s.code(x)), codebook.occupancy(s.code(x))),
    "crossings": lambda s, x: codebook.crossings(s, x[:2], x[2:4]),
    "soft": lambda s, x: codebook.soft_distance(s, x, x.flip(0), temperature=0.5),
    "diagram": lambda s, x: codebook.network_diagram(s, x, s.operators[0].name).assign(x),
    "layer": _layer,
    "slices": _slices,
    "encoding": _encoded,
    "plane": _plane,
    "line": lambda s, x: ma.partition(s, ma.Segment(*x[:2])).knots,
    "convexity": lambda s, _: ma.is_convex(s).reason,
    "margins": lambda s, x: [ma.margin(s, x, norm=norm) for norm in (1, 2, float("inf"))],
    "pre-activation": lambda s, x: s.at(x, output=s.operators[-1].name).A,
}


def leaves(value: Any) -> Iterator[Tensor | str]:
    """Every number and word of an answer, numbers as tensors of the CPU."""
    if isinstance(value, ma.Code):
        yield from (v.cpu() for v in value.values)
    elif isinstance(value, str | None):
        yield str(value)
    elif is_dataclass(value):
        yield from (leaf for field in fields(value) for leaf in leaves(getattr(value, field.name)))
    elif isinstance(value, Mapping):
        yield from (leaf for pair in value.items() for leaf in leaves(pair))
    elif isinstance(value, tuple | list):
        yield from (leaf for item in value for leaf in leaves(item))
    else:
        yield value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))


def assert_answers(found: list[Tensor | str], wanted: list[Tensor | str], tolerance: float) -> None:
    """Words equal, numbers to rounding."""
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        if isinstance(theirs, str):
            assert mine == theirs
        else:
            assert_close(mine.double(), theirs.double(), tolerance)


@pytest.mark.parametrize("what", QUESTIONS)
@pytest.mark.parametrize(("where", "default"), [(GPU, "cpu"), ("cpu", GPU), (GPU, GPU)])
def test_answers_are_those_of_the_cpu(what: str, where: Any, default: Any) -> None:
    here, x = captured("cnn"), inputs_of(BY_NAME["cnn"], 12)
    torch.manual_seed(0)
    wanted = list(leaves(QUESTIONS[what](here, x)))
    spline, y = here.to(where), x.to(where)
    torch.manual_seed(0)
    with torch.device(default):
        found = QUESTIONS[what](spline, y)
    assert_answers(list(leaves(found)), wanted, 1e-7 if what == "power" else 1e-9)


def test_operators_on_different_devices_are_refused() -> None:
    weight = torch.randn(3, 2, dtype=torch.float64, device=GPU)
    with pytest.raises(ma.errors.InputError, match=r"compose: one operator is .* on cpu, the other .* convert"):
        composition.layer(layers.dense(weight), layers.relu(3, dtype=torch.float64))
