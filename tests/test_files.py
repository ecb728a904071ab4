"""Saved splines come back whole, and no file executes anything that was not trusted."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
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


def test_every_network_of_the_list_can_be_saved(tmp_path: Path) -> None:
    unsaved = {}
    for net in NETS:
        try:
            captured(net.name).save(tmp_path / "net.safetensors")
        except ma.errors.MaxaffineError as error:
            unsaved[net.name] = str(error)
    assert unsaved == {}


def tampered(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The saved file with its JSON changed."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["maxaffine"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(header)
    target = path.with_name("tampered.safetensors")
    save_file(tensors, target, metadata={"maxaffine": json.dumps(header)})
    return target


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    ma.Spline(small(), torch.zeros(1, 3)).save(path)
    return path


def set_op(header: dict[str, Any], op: str) -> None:
    header["graph"]["nodes"][-1][0] = op


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda h: h.update(format=2), "format 2"),
        (lambda h: set_op(h, "aten.from_file.default"), "aten.from_file.default"),
        (lambda h: set_op(h, "os.system"), "os.system"),
        (lambda h: set_op(h, "module.os.system"), "declare"),
        (lambda h: h["graph"]["nodes"][-1].__setitem__(1, [{"node": 99}]), "damaged"),
        (lambda h: h["graph"]["nodes"][-1].__setitem__(1, [{"eval": "1"}]), "damaged"),
        (lambda h: h["graph"].pop("nodes"), "damaged"),
        (lambda h: h.update(dtype="load"), "dtype"),
    ],
)
def test_a_tampered_file_is_refused(saved: Path, change: Callable[[dict[str, Any]], None], word: str) -> None:
    with pytest.raises(ma.errors.FileFormatError, match=word) as error:
        ma.load(tampered(saved, change))
    assert "\n" not in str(error.value)


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
