"""One-operator ONNX models, each variant a line."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto
from onnx_models import FLOAT, Case, array, floats, ints, node, number, one

W2, B2 = array(4, 3, 3, 3), array(4)
UNARY = [
    "Abs", "Neg", "Sqrt", "Reciprocal", "Exp", "Log", "Sign", "Floor", "Ceil", "Round", "Sin", "Cos", "Tan",
    "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Atanh", "Erf", "Relu", "Sigmoid", "Tanh", "Softplus",
    "Softsign", "Identity", "Dropout", "Elu", "Selu", "LeakyRelu", "HardSigmoid", "Celu", "ThresholdedRelu",
    "Clip", "Shrink",
]  # fmt: skip
ELEMENTWISE = [
    *(one(op) for op in UNARY),
    one("HardSwish", opset=14),
    one("Mish", opset=18),
    one("Gelu", opset=20),
    one("Gelu", opset=20, approximate="tanh"),
    one("LeakyRelu", alpha=0.3),
    one("Elu", alpha=0.5),
    one("Celu", alpha=2.0),
    one("Selu", alpha=1.5, gamma=1.2),
    one("HardSigmoid", alpha=1 / 6),
    one("HardSigmoid", alpha=0.4, beta=0.3),
    one("ThresholdedRelu", alpha=0.4),
    one("Shrink", lambd=0.3, bias=0.3),
    one("Shrink", lambd=0.3),
    one("Clip", opset=7, min=0.2, max=0.7),
    one("Clip", consts=[number(0.3)]),
    one("Clip", consts=[None, number(0.6)]),
    one("Clip", consts=[number(0.3), number(0.6)], text="both"),
    one("PRelu", consts=[array(1)], text="one"),
    one("PRelu", consts=[array(3, 1, 1)], text="channel"),
    one("PRelu", consts=[array(7)], text="last"),
    one("PRelu", (1, 3), consts=[array(3)], text="row"),
    one("PRelu", consts=[array(3, 6, 7)], text="each"),
    one("Add", consts=[array(3, 1, 1)]),
    one("Add", first=[array(1, 3, 6, 7)], text="first"),
    one("Add", consts=[number(2)]),
    one("Sub", consts=[array(7)]),
    one("Sub", first=[array(6, 1)], text="first"),
    one("Mul", consts=[array(1, 3, 6, 1)]),
    one("Div", consts=[array(3, 1, 1)]),
    one("Div", first=[array(3, 1, 1)], text="first"),
    one("Pow", consts=[number(2)]),
    one("Pow", consts=[number(3, np.int64)], text="int"),
    one("Pow", first=[number(2.0)]),
    one("Mod", consts=[floats(0.3)], fmod=1),
    one("Max", consts=[array(3, 1, 1), array(7, seed=1)]),
    one("Max"),
    one("Min", consts=[array(3, 1, 1), number(0.5)]),
    one("Sum", consts=[array(7), array(6, 1)]),
    one("Mean", consts=[array(7)]),
    one("Where", first=[array(6, 7) > 0], consts=[array(7)]),
    one("Softmax", axis=1),
    one("Softmax", axis=-1),
    one("Softmax"),
    one("Softmax", opset=11),
    one("Softmax", opset=11, axis=2),
    one("LogSoftmax", axis=2),
    one("LogSoftmax", opset=9, axis=-1),
    one("LogSoftmax", opset=9, axis=1),
    one("Cast", to=FLOAT),
    one("Cast", to=TensorProto.DOUBLE),
    one("Cast", to=TensorProto.INT64),
    one("CumSum", consts=[number(1, np.int64)]),
    one("LRN", size=3),
    one("LRN", size=3, alpha=0.1, beta=0.5, bias=2.0),
]
BOOLEAN = [
    Case(op, [node(op, "x c", "h"), node("Cast", "h", "y", to=FLOAT)], (1, 5), {"c": array(5)})
    for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
]
BOOLEAN += [
    Case(
        "Not", [node("Less", "x c", "h"), node("Not", "h", "g"), node("Where", "g x c", "y")], (1, 5), {"c": array(5)}
    ),
    *(
        Case(
            op,
            [node("Less", "x c", "h"), node("Greater", "x d", "g"), node(op, "h g", "k"), node("Where", "k x c", "y")],
            (1, 5),
            {"c": number(0.6), "d": number(0.3)},
        )
        for op in ("And", "Or", "Xor")
    ),
    *(
        Case(op, [node(op, "x", "h"), node("Where", "h c x", "y")], (1, 5), {"c": array(5)})
        for op in ("IsNaN", "IsInf")
    ),
]
LINEAR = [
    *(
        one("Gemm", (1, 5), consts=[array(4, 5) if tb else array(5, 4), c], text=f"{shape} {tb} {ab}", transB=tb, **ab)
        for tb in (0, 1)
        for ab in ({}, {"alpha": 0.5, "beta": 2.0}, {"beta": 0.0})
        for shape, c in (("none", None), ("row", array(4)), ("row2", array(1, 4)), ("number", number(3)))
    ),
    one("Gemm", (1, 5), consts=[array(5, 1), number(3)], text="number to one"),
    one("Gemm", (1, 5), opset=9, consts=[array(5, 4), array(4)]),
    one("Gemm", ("N", 5), consts=[array(5, 4), array(4)], text="free"),
    one("MatMul", (1, 5), consts=[array(5, 4)]),
    one("MatMul", (1, 3, 5), consts=[array(5, 4)], text="3d"),
    one("MatMul", (1, 5), consts=[array(5)], text="vector"),
    one("MatMul", (1, 3, 5), consts=[array(3, 5, 2)], text="stack"),
    one("MatMul", (1, 3, 5), first=[array(4, 3)], text="left"),
    one("MatMul", (1, 3, 5), consts=[array(1, 5, 2)], text="one"),
    one("MatMul", (1, 2, 3, 5), first=[array(2, 4, 3)], text="left stack"),
    one("Einsum", (1, 3, 5), consts=[array(5, 4)], equation="bij,jk->bik"),
    one("Einsum", (1, 3, 5), consts=[array(5, 4)], equation="...j,jk->...k"),
    *(
        one("Conv", consts=[W2, b], text=f"{b is not None} {a}", **a)
        for b in (None, B2)
        for a in (
            {},
            {"pads": [1, 1, 1, 1]},
            {"pads": [0, 1, 2, 1]},
            {"pads": [0, 0, 1, 1], "strides": [2, 2]},
            {"auto_pad": "SAME_UPPER"},
            {"auto_pad": "SAME_LOWER"},
            {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
            {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
            {"auto_pad": "VALID"},
            {"dilations": [2, 1]},
            {"strides": [2, 1]},
            {"kernel_shape": [3, 3]},
        )
    ),
    one("Conv", (1, 4, 6, 6), consts=[array(6, 2, 3, 3)], group=2),
    one("Conv", (1, 3, 9), consts=[array(4, 3, 3), B2], pads=[1, 0]),
    one("Conv", (1, 4, 6, 6), consts=[array(4, 1, 2, 2), B2], group=4, auto_pad="SAME_UPPER"),
    one("Conv", (1, 2, 5, 5, 5), consts=[array(4, 2, 2, 2, 2), B2], pads=[1, 0, 1, 0, 0, 1], strides=[1, 2, 1]),
    *(
        one("ConvTranspose", (1, 3, 4, 5), consts=[array(3, 4, 3, 3), b], text=f"{b is not None} {a}", **a)
        for b in (None, B2)
        for a in (
            {},
            {"strides": [2, 2]},
            {"pads": [1, 1, 1, 1], "strides": [2, 2]},
            {"pads": [0, 1, 1, 0], "strides": [2, 2]},
            {"strides": [2, 3], "output_padding": [1, 1]},
            {"pads": [1, 1, 1, 1], "strides": [2, 2], "output_padding": [1, 1]},
            {"pads": [1, 0, 0, 2], "strides": [3, 2], "output_padding": [1, 0]},
            {"dilations": [2, 2]},
            {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
            {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
            {"auto_pad": "VALID"},
            {"output_shape": [9, 10], "strides": [2, 2]},
            {"output_shape": [8, 10], "strides": [2, 2]},
            {"output_shape": [8, 10], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
            {"output_shape": [10, 12], "strides": [2, 2]},
        )
    ),
    one("ConvTranspose", (1, 4, 5), consts=[array(4, 2, 3)], group=2, strides=[2]),
    one("ConvTranspose", (1, 2, 3, 3, 3), consts=[array(2, 3, 2, 2, 2)], strides=[2, 1, 2]),
    *(
        one(
            "BatchNormalization",
            s,
            consts=[array(3), array(3, seed=1), array(3, seed=2), array(3, seed=3) ** 2],
            opset=o,
            text=f"{s}",
        )
        for s in ((1, 3), (1, 3, 5), (1, 3, 4, 5), (1, 3, 2, 3, 4))
        for o in (7, 9, 14, 15)
    ),
    one(
        "BatchNormalization",
        consts=[array(3), array(3, seed=1), array(3, seed=2), array(3, seed=3) ** 2],
        epsilon=0.1,
        momentum=0.5,
    ),
    one("InstanceNormalization", consts=[array(3), array(3, seed=1)]),
    one("InstanceNormalization", (1, 3, 8), consts=[array(3), array(3)]),
    one("LayerNormalization", (1, 4, 6), opset=17, consts=[array(6), array(6, seed=1)]),
    one("LayerNormalization", (1, 4, 6), opset=17, consts=[array(4, 6)], axis=1, epsilon=0.1),
    one("LayerNormalization", (1, 4, 6), opset=17, consts=[array(6)], axis=-1, stash_type=1),
    one("GroupNormalization", (1, 4, 6), opset=21, consts=[array(4), array(4, seed=1)], num_groups=2),
]
LATE = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}  # a window in the padding
POOL_ATTRIBUTES = [
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 2, 0], "ceil_mode": 1},
    {"kernel_shape": [2, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2]},
    {"kernel_shape": [3, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "strides": [2, 2]},
    {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "auto_pad": "VALID"},
    LATE,
]
WINDOWS = [
    *(one("MaxPool", **a) for a in POOL_ATTRIBUTES),
    one("MaxPool", opset=7, kernel_shape=[2, 2]),
    one("MaxPool", kernel_shape=[2, 2], dilations=[2, 3]),
    one("MaxPool", kernel_shape=[3, 3], pads=[2, 2, 2, 2]),
    one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 0, 1, 1], storage_order=1),
    one("MaxPool", (1, 3, 9), kernel_shape=[3], strides=[2], pads=[1, 0]),
    one("MaxPool", (1, 3, 9), kernel_shape=[2], ceil_mode=1, strides=[2]),
    one("MaxPool", (1, 2, 4, 5, 6), kernel_shape=[2, 3, 2], strides=[2, 1, 2], pads=[1, 1, 0, 0, 1, 1]),
    *(one("AveragePool", opset=19, count_include_pad=c, **a) for c in (0, 1) for a in POOL_ATTRIBUTES),
    one("AveragePool", opset=7, kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
    one("AveragePool", (1, 3, 9), kernel_shape=[3], pads=[0, 1]),
    one("AveragePool", (1, 2, 4, 5, 6), kernel_shape=[2, 2, 2], pads=[1, 0, 0, 0, 0, 1]),
    one("GlobalAveragePool"),
    one("GlobalMaxPool"),
    one("GlobalAveragePool", (1, 3, 8)),
    one("GlobalMaxPool", (1, 2, 3, 4, 5)),
    *(
        one(
            "Upsample",
            opset=o,
            consts=[floats(1, 1, 2, 3)] if o == 9 else [],
            mode=m,
            **({} if o == 9 else {"scales": [1.0, 1.0, 2.0, 3.0]}),
        )
        for o in (7, 9)
        for m in ("nearest",)
    ),
    one("Resize", opset=10, consts=[floats(1, 1, 2, 2)], mode="nearest"),
    one("Resize", opset=10, consts=[floats(1, 1, 0.5, 0.25)], mode="nearest"),
    *(
        one(
            "Resize",
            consts=[None, floats(1, 1, *s)],
            mode="nearest",
            text=f"{s} {c} {n}",
            coordinate_transformation_mode=c,
            nearest_mode=n,
        )
        for s in ((2, 2), (0.5, 0.5), (1.5, 0.7))
        for c in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")
        for n in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ),
    *(
        one("Resize", consts=[None, floats(1, 1, *s)], mode=m, text=f"{s} {c} {m}", coordinate_transformation_mode=c)
        for s in ((2, 2), (1.5, 2.5))
        for c in ("half_pixel", "align_corners", "pytorch_half_pixel", "asymmetric")
        for m in ("linear", "cubic")
    ),
    one("Resize", consts=[None, floats(1, 1, 1.5, 2)], mode="cubic", cubic_coeff_a=-0.5, text="Resize coefficient"),
    one(
        "Resize",
        consts=[None, None, ints(1, 3, 1, 5)],
        mode="linear",
        text="Resize to one pixel",
        coordinate_transformation_mode="pytorch_half_pixel",
    ),
    one("Resize", consts=[None, None, ints(1, 3, 9, 5)], mode="linear"),
    one("Resize", consts=[None, None, ints(1, 3, 4, 11)], mode="nearest"),
    *(  # size * scale is whole in single precision, a little less in double
        one("Resize", (1, 2, *old), consts=[None, floats(1, 1, *s)], mode=m, text=f"{old} rounded {m} {c}", **c)
        for m, old, s in (
            ("linear", (33, 33), (55 / 33, 55 / 33)),
            ("cubic", (33, 33), (55 / 33, 55 / 33)),
            ("linear", (61, 5), (100 / 61, 1.7)),
            ("cubic", (61, 5), (100 / 61, 1.7)),
            ("linear", (61,), (100 / 61,)),
            ("linear", (33, 3, 3), (55 / 33, 2, 1)),
        )
        for c in ({}, {"coordinate_transformation_mode": "align_corners"})
    ),
    one("Resize", opset=18, consts=[None, floats(2, 2)], axes=[2, 3], mode="linear"),
    one("Resize", (1, 3, 6), consts=[None, floats(1, 1, 2)], mode="linear"),
    one("Resize", (1, 2, 3, 4, 5), consts=[None, floats(1, 1, 2, 2, 1)], mode="linear"),
    one("DepthToSpace", (1, 12, 3, 2), blocksize=2),
    one("DepthToSpace", (1, 12, 3, 2), blocksize=2, mode="CRD"),
    one("SpaceToDepth", (1, 3, 4, 6), blocksize=2),
]
REDUCED = ["Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"]
SHAPES = [
    one("Reshape", consts=[ints(1, -1)]),
    one("Reshape", consts=[ints(0, 18, 7)], text="zero"),
    one("Reshape", consts=[ints(-1, 126)], text="infer"),
    one("Reshape", ("N", 3, 6, 7), consts=[ints(-1, 126)], text="free"),
    one("Reshape", ("N", 3, 6, 7), consts=[ints(1, 126)], text="wired"),
    one("Reshape", (2, 3, 6, 7), consts=[ints(2, 126)], text="two"),
    one("Reshape", (3, 3, 4), consts=[ints(3, 4, 3)], text="three"),
    one("Flatten"),
    one("Flatten", axis=-3),
    one("Flatten", axis=0),
    one("Flatten", ("N", 3, 4)),
    one("Flatten", (3, 3, 4)),
    one("Squeeze", (1, 3, 1, 4), consts=[ints(2)]),
    one("Squeeze", (1, 3, 1, 4), opset=11, axes=[-2]),
    one("Squeeze", ("N", 3, 1, 4)),
    one("Squeeze", (1, 3, 1, 4), text="all"),
    one("Squeeze", (2, 3, 1, 4), text="all two"),
    one("Unsqueeze", (1, 3), consts=[ints(1, -1)]),
    one("Unsqueeze", (1, 3), opset=11, axes=[2]),
    one("Unsqueeze", ("N", 3), consts=[ints(-2)]),
    one("Transpose", perm=[0, 2, 3, 1]),
    Case("Transpose", [node("Transpose", "w", "v"), node("MatMul", "x v", "y")], ("N", 4), {"w": array(3, 4)}),
    one("Expand", (1, 3, 1), consts=[ints(1, 3, 4)]),
    one("Expand", (1, 3, 1), consts=[ints(1, 4)], text="short"),
    one("Expand", (2, 3, 1), consts=[ints(2, 3, 4)], text="two"),
    one("Concat", consts=[array(1, 2, 6, 7)], axis=1),
    one("Concat", first=[array(1, 3, 1, 7)], axis=2),
    one("Concat", (2, 3), consts=[np.ones((2, 2), np.float32)], axis=1),
    one("Slice", consts=[ints(1, 2), ints(5, 100), ints(2, 3)]),
    one("Slice", consts=[ints(-1), ints(-100), ints(3), ints(-2)], text="back"),
    *(
        Case(
            f"Slice {s} {e} {t}",
            [node("Slice", "x s e a t", "h"), node("Concat", "h x", "y", axis=1)],
            ("N", 4),
            {"s": ints(s), "e": ints(e), "a": ints(1), "t": ints(t)},
        )
        for s, e, t in ((-100, -200, -1), (-100, -5, -1), (-100, 0, -1), (-4, -9, -1), (100, -100, -2), (-100, 9, 2))
    ),
    one("Slice", opset=9, starts=[1], ends=[-1], axes=[2]),
    one("Slice", consts=[ints(0, 1), ints(2**62, 3)], text="no axes"),
    one("Slice", consts=[ints(0), ints(2**31 - 1), ints(0)], text="whole"),
    one("Slice", consts=[ints(0, 1), ints(1, 2), ints(0, 1)], text="batch of one"),
    one("Gather", consts=[ints(2, 0)], axis=1),
    one("Gather", consts=[number(-1, np.int64)], axis=2, text="number"),
    one("Gather", consts=[ints(1, 2)], axis=3, text="run"),
    one("Gather", consts=[np.array([[0, 2], [1, 1]])], axis=1, text="table"),
    one("Pad", opset=7, pads=[0, 0, 1, 2, 0, 0, 0, 1]),
    one("Pad", consts=[ints(0, 1, 1, 2, 0, 0, 0, 1), number(0.5)]),
    one("Pad", consts=[ints(0, 0, 1, 2, 0, 0, 2, 1)], mode="reflect"),
    one("Pad", consts=[ints(0, 0, 1, 2, 0, 0, 2, 1)], mode="edge"),
    one("Pad", opset=18, consts=[ints(1, 2), None, ints(-1)]),
    one("Pad", consts=[ints(0, 0, -1, 0, 0, 0, 0, -2)], text="crop"),
    one("Tile", consts=[ints(1, 2, 1, 3)]),
    one("Trilu", (1, 4, 4), opset=14, upper=0),
    one("Trilu", (1, 4, 4), opset=14, consts=[number(1, np.int64)]),
    *(one(f"Reduce{op}", opset=11, axes=[2, -1], keepdims=k) for k in (0, 1) for op in REDUCED),
    *(one(op, opset=18, consts=[ints(1)]) for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")),
    one("ReduceSum", noop_with_empty_axes=1),
    one("ArgMax", axis=1),
    one("ArgMin", axis=-1, keepdims=0),
]
