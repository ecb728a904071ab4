"""Saved splines come back whole, and no file executes anything that was not trusted."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from net import Net, inputs_of
from nets import NETS, captured
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import maxaffine as ma

SAVED = [
    "residual",
    "maxout",
    "functional_cnn",
    "cnn",
    "rnn",
    "time_major",
    "two_inputs",
    "tokens",
    "resized",
    "folded",
]


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


# ---- save and load ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [n for n in NETS if n.name in SAVED], ids=lambda n: n.name)
def test_a_saved_spline_is_the_same_spline(net: Net, tmp_path: Path) -> None:
    spline, x = captured(net.name), inputs_of(net, 4)
    spline.save(tmp_path / "net.safetensors")
    again = ma.load(tmp_path / "net.safetensors")
    assert again.operators == spline.operators and str(again) == str(spline)
    assert torch.equal(again(x), spline(x)) and bool((again.code(x) == spline.code(x)).all())
    assert torch.equal(again.at(x).A, spline.at(x).A)
    assert sorted(os.listdir(tmp_path)) == ["net.safetensors"]


def test_every_network_of_the_list_can_be_saved_and_its_graph_comes_back(tmp_path: Path) -> None:
    wrong = {}
    for net in NETS:
        spline, path = captured(net.name), tmp_path / "net.safetensors"
        try:
            spline.save(path)
            if ma.load(path).captured.graph != spline.captured.graph:
                wrong[net.name] = "another graph"
        except ma.errors.MaxaffineError as error:
            wrong[net.name] = str(error)
    assert wrong == {}


def parts_of(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The JSON and the tensors of a saved file."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["maxaffine"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def written(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """A file beside a saved one, with this JSON and these tensors."""
    target = path.with_name("tampered.safetensors")
    save_file({key: value.clone() for key, value in tensors.items()}, target, {"maxaffine": json.dumps(header)})
    return target


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    ma.Spline(small(), torch.zeros(1, 3)).save(path)
    return path


def nodes(header: dict[str, Any]) -> list[Any]:
    return header["graph"]["nodes"]


def set_last(header: dict[str, Any], op: str, *args: Any) -> None:
    """Make the last node another operation, with other arguments if there are any."""
    nodes(header)[-1][0] = op
    nodes(header)[-1][1] = list(args) or nodes(header)[-1][1]


def insert(header: dict[str, Any], op: str, args: list[Any], shape: list[int]) -> None:
    """Put a constant of that operation first, and add its sum (unused entries aside) to the output."""
    header["graph"]["nodes"] = json.loads(json.dumps(nodes(header)), object_hook=_shifted)
    nodes(header).insert(0, [op, args, [], "", "made", shape, True])
    size = nodes(header)[-1][5]
    nodes(header).append(["aten.sum.default", [{"node": 0}], [], "", "total", [], True])
    last = len(nodes(header)) - 2
    nodes(header).append(["aten.add.Tensor", [{"node": last}, {"node": last + 1}], [], "", "out", size, True])
    header["graph"].update(input=header["graph"]["input"] + 1, output=last + 2)


def _shifted(value: dict[str, Any]) -> dict[str, Any]:
    return {"node": value["node"] + 1} if "node" in value else value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda h: h.update(format=2), "format 2"),
        (lambda h: set_last(h, "aten.from_file.default"), "aten.from_file.default"),
        (lambda h: set_last(h, "os.system"), "os.system"),
        (lambda h: set_last(h, "module.os.system"), "declare"),
        (lambda h: set_last(h, "aten.linear.default", {"node": 99}), "damaged"),
        (lambda h: set_last(h, "aten.linear.default", {"node": -1}), "damaged"),
        (lambda h: set_last(h, "aten.linear.default", {"eval": "1"}), "damaged"),
        (lambda h: set_last(h, "aten.linear.default", deep(900)), "damaged"),
        (lambda h: h["graph"].pop("nodes"), "damaged"),
        (lambda h: h["graph"].update(output=-1), "node -1"),
        (lambda h: h["graph"].update(input="a"), "node a"),
        (lambda h: h.update(dtype="load"), "dtype"),
        (lambda h: h.update(dtype="float16"), "float16, not float32"),
        (lambda h: h.update(dtype="float64"), "damaged"),  # the weights are float32
        (lambda h: h.update(span=[0, float("nan")]), "from 0.0 to nan"),
        (lambda h: nodes(h)[0].__setitem__(1, [99]), "tensor that is not there"),
        (lambda h: nodes(h)[-1].__setitem__(5, [2, 2]), "gives"),
        (lambda h: insert(h, "aten.zeros.default", [[10**12]], [10**12]), "trusted=True"),
        (lambda h: insert(h, "aten.zeros.default", [[10**12]], [2]), "gives"),
        (lambda h: insert(h, "aten.unbind.int#0", [{"node": 0}], [1]), "before"),
    ],
)
def test_a_tampered_file_is_refused(saved: Path, change: Callable[[dict[str, Any]], None], word: str) -> None:
    header, tensors = parts_of(saved)
    change(header)
    path = written(saved, header, tensors)
    with pytest.raises(ma.errors.FileFormatError, match=word) as error:
        ma.load(path)
    assert "\n" not in str(error.value) and path.name in str(error.value)


def test_a_change_that_is_still_a_network_gives_that_network(saved: Path) -> None:
    header, tensors = parts_of(saved)
    insert(header, "aten.ones.default", [[7]], [7])
    x = torch.randn(4, 3)
    assert torch.allclose(ma.load(written(saved, header, tensors))(x), small()(x) + 7)


def test_a_cut_into_a_billion_parts_is_not_even_tried(saved: Path) -> None:
    header, tensors = parts_of(saved)
    insert(header, "aten.zeros.default", [[10**8]], [10**8])
    nodes(header)[-2][:] = ["aten.unbind.int#0", [{"node": 0}], [], "", "part", [], True]
    with pytest.raises(ma.errors.FileFormatError, match="parts"):
        ma.load(written(saved, header, tensors))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {k: v for k, v in t.items() if k != "1"},
        lambda t: {f"{k}a": v for k, v in t.items()},
        lambda t: {k: v.half() for k, v in t.items()},
        lambda t: {k: v[:1] for k, v in t.items()},
        lambda t: {k: v * torch.nan for k, v in t.items()},
    ],
    ids=["missing", "renamed", "half", "smaller", "nan"],
)
def test_other_tensors_are_refused(saved: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    header, tensors = parts_of(saved)
    with pytest.raises(ma.errors.FileFormatError, match="damaged") as error:
        ma.load(written(saved, header, change(tensors)))
    assert "\n" not in str(error.value)


VALUES = [0, 1, -1, 3, 10**12, 2**63, 10**30, None, "a", [], {}, 1.5, True, [1, 2], [10**12], float("inf")]
VALUES += [{"node": 0}, {"node": -1}, {"dtype": "float16"}, {"size": [0, 1]}, {"size": []}, {"size": [0, 0, 1]}]
VALUES += ["aten.relu.default", "aten.abs.default", "aten.zeros.default", "aten.expand.default", "aten.repeat.default"]


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in inner] + [place for _, item in inner for place in places_in(item)]


def test_a_mutated_file_is_refused_in_one_line_or_is_a_spline_that_obeys_the_laws(saved: Path) -> None:
    original, tensors = parts_of(saved)
    random, refused, accepted = Random(0), 0, 0
    for _ in range(300):
        header = json.loads(json.dumps(original))
        for _ in range(random.choice((1, 1, 2))):
            container, key = random.choice(places_in(header))
            if random.random() < 0.2:
                del container[key]
            else:
                container[key] = random.choice(VALUES)
        try:
            spline = ma.load(written(saved, header, tensors))
        except ma.errors.FileFormatError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
            refused += 1
            continue
        accepted += 1
        x = torch.rand(2, *spline.in_shape, dtype=spline.dtype)
        f = spline.at(x)
        A, b = f.A.reshape(2, -1, x[0].numel()), f.b.reshape(2, -1)
        torch.testing.assert_close((A @ x.reshape(2, -1, 1))[..., 0] + b, spline(x).reshape(2, -1))
        assert bool(spline.region(x[0]).contains(x[0]))
    assert refused > 200 and accepted > 5


def test_broken_missing_and_unknown_files(saved: Path, tmp_path: Path) -> None:
    cases = {"cut.safetensors": saved.read_bytes()[:100], "empty.safetensors": b"", "text.safetensors": b"hello" * 9}
    cases |= {"weights.h5": b"x", "model": b"x", "cut.pt2": b"PK\x03\x04", "net.pth": b"x"}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ma.errors.FileFormatError) as error:
            ma.load(tmp_path / name, trusted=True)
        assert name in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ma.errors.FileFormatError, match="no such file"):
        ma.load(tmp_path / "nothing.onnx")


def test_other_safetensors_and_other_endings_are_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ma.errors.FileFormatError, match=r"spline\.save"):
        ma.load(tmp_path / "w.safetensors")
    spline = ma.Spline(small(), torch.zeros(1, 3))
    with pytest.raises(ma.errors.FileFormatError, match="safetensors"):
        spline.save(tmp_path / "net.pt")
    with pytest.raises(ma.errors.FileFormatError, match="cannot write"):
        spline.save(tmp_path / "no" / "folder" / "net.safetensors")


# ---- .pt2 executes code, so it must be trusted -----------------------------------------------------------


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def pickled(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(marker), buffer)
    return buffer.getvalue()


def by_sample_inputs(parts: dict[str, bytes], marker: Path) -> None:
    name = next(n for n in parts if "sample_inputs" in n)
    parts[name] = pickled(marker)


def by_weights(parts: dict[str, bytes], marker: Path) -> None:
    name = next(n for n in parts if n.endswith("weights_config.json"))
    config = json.loads(parts[name])
    entry = next(iter(config["config"].values()))
    entry["use_pickle"] = True
    parts[name] = json.dumps(config).encode()
    parts[name.replace("model_weights_config.json", entry["path_name"])] = pickled(marker)


def by_expression(parts: dict[str, bytes], marker: Path) -> None:
    name = next(n for n in parts if n.endswith("model.json"))
    model = json.loads(parts[name])
    evil = f"__import__('os').mkdir({str(marker)!r})"

    def poison(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
            poison(item)
        if isinstance(value, dict) and "expr_str" in value:
            value["expr_str"] = evil

    poison(model)
    parts[name] = json.dumps(model).encode()


ROUTES = [by_sample_inputs, by_weights, by_expression]


def exported(path: Path) -> Path:
    program = torch.export.export(
        small(), (torch.zeros(3, 3),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    torch.export.save(program, path)
    return path


def malicious(route: Callable[[dict[str, bytes], Path], None], path: Path, marker: Path) -> Path:
    with zipfile.ZipFile(exported(path)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    route(parts, marker)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
def test_a_malicious_pt2_executes_nothing_unless_trusted(
    route: Callable[[dict[str, bytes], Path], None], tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    path = malicious(route, tmp_path / "net.pt2", marker)
    with pytest.raises(ma.errors.FileFormatError, match="trusted=True"):
        ma.load(path)
    assert not marker.exists()
    try:  # the file is truly malicious: torch runs it
        torch.export.load(path)
    except Exception as error:
        assert not isinstance(error, pickle.UnpicklingError)
    assert marker.exists()


@pytest.mark.filterwarnings("ignore")
def test_a_trusted_pt2_is_the_model(tmp_path: Path) -> None:
    spline, x = ma.load(exported(tmp_path / "net.pt2"), trusted=True), torch.randn(5, 3)
    assert torch.equal(spline(x), small()(x)) and [o.name for o in spline.operators] == ["1"]
