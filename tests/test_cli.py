"""The command line: the main job end to end, and every bad input as one line and exit code 2."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from assets import ASSETS, idx, needs_assets
from onnx import helper, numpy_helper
from onnx_models import FLOAT, array, node
from torch import nn

import maxaffine as ma
import maxaffine.demo
from maxaffine.cli import app

FACTORIES = """
import torch
from torch import nn

def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

def smooth():
    return nn.Sequential(mlp(), nn.Softmax(1))

def batchnorm():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.small, self.large = mlp(), nn.Linear(3, 2), nn.Linear(3, 5)

    def forward(self, x):
        h = self.body(x).relu()
        return {"small": self.small(h), "large": self.large(h)}

def heads():
    return Heads()

def number():
    return 3

def broken():
    raise ValueError("no weights\\nhere")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a module of factories, a saved spline and data, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "factories", raising=False)
    (tmp_path / "factories.py").write_text(FACTORIES)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(20, 4)), generator.integers(0, 3, 20)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "wide.npy", np.ones((3, 5)))
    np.save(tmp_path / "bytes.npy", np.ones((3, 4), np.uint8))
    np.save(tmp_path / "short.npy", y[:7])
    np.save(tmp_path / "classes.npy", y + 5)
    np.save(tmp_path / "none.npy", np.ones((0, 4)))
    np.save(tmp_path / "nan.npy", np.full((2, 4), np.nan))
    (tmp_path / "corrupt.onnx").write_bytes(b"garbage" * 20)
    (tmp_path / "untrusted.pt2").write_bytes(b"PK")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    ma.Spline(net, torch.zeros(1, 4)).save(tmp_path / "net.safetensors")
    return tmp_path


def run(capsys, *words):
    """(exit code, stdout, stderr) of one command."""
    with pytest.raises(SystemExit) as stopped:
        app(list(words))
    said = capsys.readouterr()
    return stopped.value.code, said.out, said.err


@pytest.mark.parametrize("model", ["factories:mlp", "net.safetensors"])
def test_report_writes_a_page_and_says_where_and_how_exact(place, capsys, model):
    code, out, err = run(capsys, "report", model, "--data", "data.npz", "--out", "page/here")
    assert (code, err) == (0, "")
    path, line = out.splitlines()
    assert path == str(place / "page" / "here" / "index.html")
    assert line.startswith("over 1,000 other points x' of those regions max |f(x') - (A[x]x' + b[x])| = ")
    assert float(line.split(" = ")[1]) < 1e-13
    record = json.loads((place / "page" / "here" / "report.json").read_text())
    assert record["model"] == model
    assert record["precision"] == "float64 on cpu"
    net = sys.modules["factories"].mlp() if model.startswith("factories") else None
    if net is not None:
        data = np.load("data.npz")
        f = net.double()(torch.from_numpy(data["x"])).argmax(1).numpy()
        assert record["accuracy"] == (f == data["y"]).mean()


def test_options_reach_the_report(place, capsys):
    words = ("--data", "bytes.npy", "--out", "o", "--scale", "1/255", "--mean", "0.5", "--std", "0.25")
    code, _, _ = run(capsys, "report", "factories:mlp", *words, "--dtype", "float32", "--limit", "2", "--margins", "1")
    record = json.loads((place / "o" / "report.json").read_text())
    assert code == 0
    assert record["data"]["feed"] == "x = (row / 255 − 0.5) / 0.25"
    assert (record["data"]["rows"], record["margins"]["count"], record["accuracy"]) == (2, 1, None)
    assert record["precision"] == "float32 on cpu"


def test_until_cuts_a_smooth_head(place, capsys):
    refused, _, err = run(capsys, "report", "factories:smooth", "--data", "x.npy", "--out", "o")
    assert refused == 2
    assert "softmax" in err and "until" in err
    code, _, _ = run(capsys, "report", "factories:smooth", "--data", "x.npy", "--out", "o", "--until", "0")
    assert code == 0


def test_select_takes_one_of_several_outputs(place, capsys):
    words = ("factories:heads", "--data", "x.npy", "--out", "o")
    code, _, err = run(capsys, "report", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert "say which one: --select one of ['small', 'large']" in err
    assert run(capsys, "report", *words, "--select", "large")[0] == 0
    record = json.loads((place / "o" / "report.json").read_text())
    assert {term["output"] for example in record["examples"] for term in example["terms"]} <= set(range(5))
    assert (record["until"], record["select"], record["over"]) == (None, "large", None)
    assert "The network gives <code>large</code>." in (place / "o" / "index.html").read_text()
    code, out, _ = run(capsys, "inspect", "factories:heads", "--shape", "4", "--select", "small")
    assert code == 0 and "4 -> 2" in out


def test_over_takes_one_of_several_inputs_of_a_file(place, capsys):
    steps = [node("Relu", "x", "first"), node("Relu", "z", "r"), node("Gemm", "x w r", "second")]
    ends = [
        helper.make_tensor_value_info(name, FLOAT, sizes)
        for name, sizes in (("x", (1, 4)), ("z", (1, 2)), ("first", (1, 4)), ("second", (1, 2)))
    ]
    weights = [numpy_helper.from_array(array(4, 2), "w")]
    model = helper.make_model(
        helper.make_graph(steps, "g", ends[:2], ends[2:], weights),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 13)],
    )
    (place / "two.onnx").write_bytes(model.SerializeToString())
    code, _, err = run(capsys, "inspect", "two.onnx", "--over", "y")
    assert code == 2 and "--over 'y' is none of the file's inputs ['x', 'z']" in err
    for over, select, ends in (("x", "first", "4 -> 4"), ("z", "second", "2 -> 2"), ("1", "1", "2 -> 2")):
        code, out, err = run(capsys, "inspect", "two.onnx", "--over", over, "--select", select)
        assert (code, err) == (0, "") and ends in out
    code, _, err = run(capsys, "inspect", "two.onnx", "--over", "z", "--until", "secand")
    assert code == 2 and "--until 'secand' is not the output of a node" in err and "'second'" in err


BAD = {
    "no model": ("net.onnx --data x.npy", "net.onnx: no such file"),
    "unknown ending": ("data.npz --data x.npy", "unknown ending"),
    "corrupt onnx": ("corrupt.onnx --data x.npy", "corrupt.onnx"),
    "untrusted": ("untrusted.pt2 --data x.npy", "trusted"),
    "no module": ("nothere:mlp --data x.npy", "No module named 'nothere'"),
    "no factory": ("factories:mlb --data x.npy", "no attribute 'mlb'"),
    "factory fails": ("factories:broken --data x.npy", "ValueError: no weights here"),
    "no network": ("factories:number --data x.npy", "returned a int"),
    "train mode": ("factories:batchnorm --data x.npy", "eval()"),
    "no data": ("factories:mlp --data y.npy", "y.npy: no such file"),
    "unknown data": ("factories:mlp --data factories.py", "unknown kind of data"),
    "no rows": ("factories:mlp --data none.npy", "shape (0, 4)"),
    "nan": ("factories:mlp --data nan.npy", "NaN"),
    "bytes unscaled": ("factories:mlp --data bytes.npy", "--scale"),
    "wrong width": ("net.safetensors --data wide.npy", "5 values"),
    "wrong width of a factory": ("factories:mlp --data wide.npy", "captured"),
    "short labels": ("factories:mlp --data x.npy --labels short.npy", "(7,) for 20 rows"),
    "labels of no output": ("factories:mlp --data x.npy --labels classes.npy", "labels from 5 to 7"),
    "no labels": ("factories:mlp --data x.npy --labels nothere.npy", "no such file"),
    "unknown until": ("factories:mlp --data x.npy --until nothere", "nothere"),
    "no cuda": ("factories:mlp --data x.npy --device cuda", "CUDA"),
    "unknown device": ("factories:mlp --data x.npy --device tpu", "cpu or cuda"),
    "half": ("factories:mlp --data x.npy --dtype float16", "float32 or float64"),
    "scale": ("factories:mlp --data x.npy --scale half", "--scale half"),
    "std": ("factories:mlp --data x.npy --std 0", "no std of 0"),
    "shape": ("factories:mlp --data x.npy --shape 2,-2", "whole numbers"),
    "picture": ("factories:mlp --data x.npy --picture 4", "give 2 numbers"),
    "limit": ("factories:mlp --data x.npy --limit 0", "limit is 0"),
    "margins": ("factories:mlp --data x.npy --margins 0", "margins 0"),
    "classes": ("factories:mlp --data x.npy --classes a,b", "2 class names"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(place, capsys, case):
    if case == "no cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    words, message = BAD[case]
    code, out, err = run(capsys, "report", *words.split(), "--out", "page/here")
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1, err
    assert message in err
    assert not (place / "page").exists()


def test_an_unwritable_folder_is_refused(place, capsys):
    code, _, err = run(capsys, "report", "factories:mlp", "--data", "x.npy", "--out", "x.npy/page")
    assert code == 2
    assert "x.npy/page: cannot write a report there" in err


def test_a_missing_option_exits_with_2(place, capsys):
    code, _, err = run(capsys, "report", "factories:mlp", "--out", "o")
    assert code == 2
    assert "--data" in err


def test_inspect_prints_the_composition(place, capsys):
    code, out, _ = run(capsys, "inspect", "net.safetensors")
    assert code == 0
    for word in ("operator", "relu", "1", "8", "40", "27", "4 -> 3"):
        assert word in out
    assert run(capsys, "inspect", "factories:mlp", "--shape", "4")[0] == 0
    code, _, err = run(capsys, "inspect", "factories:mlp")
    assert (code, err.count("\n")) == (2, 1)
    assert "--shape" in err


def test_demo_trains_and_reports(place, capsys, monkeypatch):
    code, out, err = run(capsys, "demo", "--out", "demo")
    assert (code, err) == (0, "")
    names = {path.name for path in (place / "demo").iterdir()}
    assert names == {"index.html", "report.json", "digits.safetensors", "digits.npz"}
    first = json.loads((place / "demo" / "report.json").read_text())
    assert first["accuracy"] > 0.97
    assert first["exactness"]["worst"] < 1e-12
    assert first["exactness"]["same"] == 1000
    command = out.splitlines()[-1].split("its files: maxaffine ")[1]
    assert run(capsys, *command.replace("--out demo", "--out again").split())[0] == 0
    again = json.loads((place / "again" / "report.json").read_text())
    assert again["accuracy"] == first["accuracy"]
    assert again["composition"] == first["composition"]


def test_control_c_is_one_line_and_130(place, capsys, monkeypatch):
    def interrupted(net, data):
        yield 1.0
        signal.raise_signal(signal.SIGINT)
        yield 0.5

    monkeypatch.setattr(maxaffine.demo, "train", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    try:
        code, out, err = run(capsys, "demo", "--out", "demo")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out) == (130, "")
    assert err == "stopped; no report was written\n"
    assert not (place / "demo").exists()


def test_control_c_while_torch_is_imported_is_one_line_and_130(tmp_path):
    (tmp_path / "torch.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom maxaffine_command import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_help_loads_no_optional_package():
    script = (
        "import sys; from maxaffine.cli import app\n"
        "try: app(['report', '--help'])\n"
        "except SystemExit as stopped: assert stopped.code == 0\n"
        "heavy = {'sklearn', 'PIL', 'onnx', 'matplotlib', 'maxaffine.report'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--data", "--labels", "--limit", "--until", "--scale", "--device", "--dtype"):
        assert option in done.stdout


@needs_assets
@pytest.mark.parametrize(
    ("model", "words", "scale"),
    [
        ("mnist-net_256x2.onnx", "--scale 1/255 --limit 1000 --margins 12", lambda x: x / 255),
        (
            "eran_mnist_conv_maxpool.onnx",
            "--scale 1/255 --mean 0.5 --std 0.5 --limit 200 --margins 6",
            lambda x: 2 * (x / 255) - 1,
        ),
    ],
)
def test_real_networks_score_as_onnxruntime_does(place, capsys, model, words, scale):
    runtime = pytest.importorskip("onnxruntime")
    mnist, path = f"{ASSETS}/data/mnist/t10k", f"{ASSETS}/nets/mnist/{model}"
    data = ("--data", f"{mnist}-images-idx3-ubyte.gz", "--labels", f"{mnist}-labels-idx1-ubyte.gz")
    code, out, _ = run(capsys, "report", path, *data, *words.split(), "--out", "o")
    assert code == 0
    assert float(out.splitlines()[-1].split(" = ")[1]) < 1e-11
    record = json.loads((place / "o" / "report.json").read_text())
    assert record["exactness"]["same"] == 1000
    session = runtime.InferenceSession(path)
    wanted = session.get_inputs()[0]
    pixels = scale(idx("data/mnist/t10k-images-idx3-ubyte.gz")[: record["data"]["rows"]].astype(np.float32))
    labels = idx("data/mnist/t10k-labels-idx1-ubyte.gz")
    shape = [1, *wanted.shape[1:]]
    said = [session.run(None, {wanted.name: x.reshape(shape)})[0].argmax() for x in pixels]
    assert record["accuracy"] == (np.array(said) == labels[: len(said)]).mean()
