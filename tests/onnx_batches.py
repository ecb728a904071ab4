"""ONNX models whose batch can be set free, and models in which it cannot."""

from __future__ import annotations

import numpy as np
from onnx import helper
from onnx_models import FLOAT, Case, array, ints, node, number
from onnx_ops import W2

SHAPE_CHAIN = [
    node("Shape", "x", "s"),
    node("Gather", "s zero", "n", axis=0),
    node("Unsqueeze", "n", "n1", axes=[0]),
    node("Concat", "n1 rest", "target", axis=0),
    node("Reshape", "x target", "h"),
    node("MatMul", "h w", "y"),
]
CHAIN_CONSTANTS = {"zero": number(0, np.int64), "rest": ints(-1), "w": array(12, 3)}
BATCH = [
    Case("shape chain", SHAPE_CHAIN, ("N", 3, 4), CHAIN_CONSTANTS, 11),
    Case("shape chain at 1", SHAPE_CHAIN, (1, 3, 4), CHAIN_CONSTANTS, 11),
    Case("shape chain at 2", SHAPE_CHAIN, (2, 3, 4), CHAIN_CONSTANTS, 11),
    *(
        Case(
            f"token at {n}",
            [node("ConstantOfShape", "s", "h"), node("Add", "h t", "k"), node("Concat", "k x", "y", axis=1)],
            (n, 3, 4),
            {"s": ints(n, 1, 4), "t": array(1, 1, 4)},
        )
        for n in (1, 2, 3)
    ),
    Case(
        "token over a free batch",
        [
            node("Shape", "x", "s", start=0, end=1),
            node("Concat", "s one four", "t", axis=0),
            node("Expand", "c t", "k"),
            node("Concat", "k x", "y", axis=1),
        ],
        ("N", 3, 4),
        {"one": ints(1), "four": ints(4), "c": array(1, 1, 4)},
        15,
    ),
    Case(
        "scale by a size",
        [
            node("Shape", "x", "s"),
            node("Gather", "s i", "k", axis=0),
            node("Cast", "k", "f", to=FLOAT),
            node("Sqrt", "f", "r"),
            node("Div", "x r", "y"),
        ],
        ("N", 3, 4),
        {"i": number(1, np.int64)},
    ),
    Case(
        "range and where",
        [
            node("Shape", "x", "s"),
            node("Gather", "s i", "k", axis=0),
            node("Range", "zero k one", "r"),
            node("Cast", "r", "f", to=FLOAT),
            node("Mul", "x f", "y"),
        ],
        (1, 4),
        {"i": number(1, np.int64), "zero": number(0, np.int64), "one": number(1, np.int64)},
    ),
    Case("NHWC", [node("Transpose", "x", "h", perm=[0, 3, 1, 2]), node("Conv", "h w", "y")], (1, 6, 7, 3), {"w": W2}),
    *(
        Case(
            f"batch moved and back at {n}",
            [
                node("Transpose", "x", "h", perm=[1, 0, 2]),
                node("MatMul", "h w", "k"),
                node("Reshape", f"k s{n}", "m"),
                node("Transpose", "m", "p", perm=[1, 0, 2]),
                node("Softmax", "p", "q", axis=-1),
                node("Reshape", f"q t{n}", "r"),
                node("Relu", "r", "y"),
            ],
            (n or "N", 3, 4),
            {"w": array(4, 8), f"s{n}": ints(3, 4 * n or -1, 2), f"t{n}": ints(n or -1, 4, 6)},
        )
        for n in (0, 1, 2, 3, 6)
    ),
    *(
        Case(
            f"transposed and back at {n}",
            [node("Transpose", "x", "h"), node("MatMul", "w h", "k"), node("Transpose", "k", "y")],
            (n, 4, 3),
            {"w": array(2, 4)},
        )
        for n in ("N", 1, 2)
    ),
    *(
        Case(
            f"live column at {n}",
            [node("Gemm", "x v", "h"), node("Relu", "h", "g"), node("Gemm", "x w g", "y")],
            (n, 5),
            {"w": array(5, 4), "v": array(5, 1)},
        )
        for n in ("N", 1, 2)
    ),
    Case(
        "dropped and back",
        [node("Reshape", "x s", "h"), node("MatMul", "h w", "k"), node("Reshape", "k t", "y")],
        (1, 12),
        {"s": ints(12), "w": array(12, 5), "t": ints(1, 5)},
    ),
    Case(
        "dropped at the end", [node("MatMul", "x w", "h"), node("Squeeze", "h", "y")], (1, 1, 12), {"w": array(12, 5)}
    ),
    Case(
        "first row",
        [node("Gather", "x i", "h", axis=0), node("Add", "h c", "y")],
        (1, 6),
        {"i": number(0, np.int64), "c": array(6)},
    ),
    Case(
        "frames",
        [node("Reshape", "x s", "h"), node("Conv", "h w", "k"), node("Relu", "k", "m"), node("Reshape", "m t", "y")],
        (1, 5, 3, 4, 4),
        {"s": ints(5, 3, 4, 4), "w": W2, "t": ints(1, 80)},
    ),
    Case(
        "two ranks",
        [node("Reshape", "x s", "h"), node("ReduceSum", "h a", "k", keepdims=0), node("Add", "h k", "y")],
        (1, 12),
        {"s": ints(1, 3, 4), "a": ints(1)},
    ),
    Case(
        "constant of higher rank",
        [node("Add", "x c", "h"), node("Reshape", "h s", "y")],
        (1, 4),
        {"c": array(3, 1, 4), "s": ints(1, 12)},
    ),
    Case(
        "column", [node("Add", "x c", "h"), node("Reshape", "h s", "y")], (1, 4), {"c": array(3, 1), "s": ints(1, 12)}
    ),
    Case("split", [node("Split", "x", "a b", axis=1), node("Mul", "a b", "y")], (1, 6)),
    Case(
        "split 18",
        [node("Split", "x", "a b", axis=1, num_outputs=2), node("Concat", "b a", "y", axis=1)],
        (1, 5),
        opset=18,
    ),
    Case(
        "split sizes",
        [node("Split", "x s", "a b", axis=-1), node("Concat", "b a", "y", axis=1)],
        (2, 5),
        {"s": ints(1, 4)},
    ),
    Case(
        "resize at 2",
        [helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear")],
        (2, 3, 4, 4),
        {"s": ints(2, 3, 7, 7)},
    ),
    Case("constant rows alike", [node("Add", "x c", "y")], (2, 4), {"c": np.tile(array(1, 4), (2, 1))}),
    Case(
        "float64",
        [node("MatMul", "x w", "h"), node("Relu", "h", "y")],
        (1, 5),
        {"w": array(5, 4, dtype=np.float64)},
        dtype=np.float64,
    ),
    Case(
        "names",
        [node("Relu", "x", "input.1"), node("Add", "input.1 /w/0", "26"), node("Mul", "26 forward", "y")],
        (1, 4),
        {"/w/0": array(4), "forward": array(4)},
    ),
]


BATCH += [
    Case("size", [node("Size", "x", "s"), node("Cast", "s", "f", to=FLOAT), node("Div", "x f", "y")], (1, 4)),
    Case(
        "dead and moved",
        [
            node("Sub", "x c", "h"),
            node("Relu", "h", "k"),
            node("Transpose", "k", "m", perm=[1, 0, 2]),
            node("Reshape", "m s", "p"),
            node("Add", "p d", "q"),
            node("Transpose", "q", "y", perm=[1, 0, 2]),
        ],
        (2, 4, 3),
        {"c": number(9), "s": ints(4, 2, 3), "d": array(4, 1, 3)},
    ),
    Case("acosh", [node("Add", "x c", "h"), node("Acosh", "h", "y")], (1, 4), {"c": number(2)}),
]
REFUSED = [
    *(
        Case(f"{op} at {n}", [node(op, "x", "y", **a)], (n, 5), {}, 11)
        for n in ("N", 1, 2)
        for op, a in (
            ("Transpose", {"perm": [1, 0]}),
            ("ReduceMean", {"axes": [0]}),
            ("ReduceSum", {"axes": [0], "keepdims": 0}),
            ("ReduceMax", {}),
            ("Softmax", {"axis": 0}),
            ("ArgMax", {}),
            ("Flatten", {"axis": 2}),
        )
        if not (op == "Flatten" and n == 1)
    ),
    *(Case(f"Concat at {n}", [node("Concat", "x x", "y", axis=0)], (n, 5)) for n in ("N", 1, 2)),
    *(
        Case(f"Concat constant at {n}", [node("Concat", "x c", "y", axis=0)], (n, 5), {"c": array(2, 5)})
        for n in ("N", 1, 2)
    ),
    *(
        Case(f"minus the mean at {n}", [node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m", "y")], (n, 5))
        for n in ("N", 1, 2)
    ),
    Case(
        "moved mean",
        [
            node("Transpose", "x", "t", perm=[1, 0]),
            node("ReduceMean", "t", "m", axes=[1]),
            node("Sub", "t m", "s"),
            node("Transpose", "s", "y", perm=[1, 0]),
        ],
        ("N", 5),
    ),
    Case(
        "by the batch",
        [node("Shape", "x", "s", start=0, end=1), node("Cast", "s", "f", to=FLOAT), node("Div", "x f", "y")],
        ("N", 5),
        opset=15,
    ),
    Case("triangle", [node("Trilu", "x", "y")], ("N", 5), opset=14),
    Case("merged", [node("Reshape", "x s", "y")], (2, 6), {"s": ints(12)}),
    Case("cut", [node("Reshape", "x s", "y")], (2, 6), {"s": ints(3, 4)}),
    Case("gram", [node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "t x", "y")], ("N", 5)),
    Case("rows of constants", [node("Add", "x c", "y")], (2, 5), {"c": array(2, 5)}),
    Case(
        "other row",
        [node("Slice", "x a b c d", "y")],
        (2, 5),
        {"a": ints(-1), "b": ints(-9), "c": ints(0), "d": ints(-1)},
    ),
    Case("one row of two", [node("Gather", "x i", "y", axis=0)], (2, 5), {"i": number(0, np.int64)}),
    Case("running sum", [node("CumSum", "x a", "y")], (2, 5), {"a": number(0, np.int64)}),
    Case("folded free batch", [node("Reshape", "x s", "y")], ("N", 2, 3), {"s": ints(-1, 3)}),
    Case(
        "pooled over a free batch",
        [
            node("Unsqueeze", "x a", "h"),
            node("Transpose", "h", "t", perm=[0, 2, 1]),
            node("MaxPool", "t", "p", kernel_shape=[3], pads=[1, 1], strides=[1]),
            node("Transpose", "p", "u", perm=[0, 2, 1]),
            node("Squeeze", "u a", "y"),
        ],
        ("N", 4),
        {"a": ints(0)},
    ),
    Case(
        "convolved over a free batch",
        [
            node("Transpose", "x", "t", perm=[1, 0]),
            node("Unsqueeze", "t a", "h"),
            node("Conv", "h w", "c", pads=[1, 1]),
            node("Squeeze", "c a", "q"),
            node("Transpose", "q", "y", perm=[1, 0]),
        ],
        ("N", 4),
        {"a": ints(0), "w": array(4, 4, 3)},
    ),
]
