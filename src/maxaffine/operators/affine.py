"""The table of operators that are affine in their live operands.

live     sets of operand positions in which the operator is jointly affine, the others being constant:
         ((0, 1),) for add, ((0,), (1,)) for a product
shifts   constant operands that only shift the result: zero in the linear part
biases   the same, where the operator takes None for "no bias"
products pairs of operands whose product is added: one of two constants only shifts the result
"""

from dataclasses import dataclass

from maxaffine.operators import transpose as adjoint
from maxaffine.operators.convolution import convolution
from maxaffine.operators.transpose import Transpose

JOINT = ((0, 1),)
EITHER = ((0,), (1,))


@dataclass(frozen=True)
class Affine:
    """How an operator is affine: its live operands, its shifts and (if any) its closed adjoint."""

    live: tuple[tuple[int, ...], ...] = ((0,),)
    shifts: tuple[int, ...] = ()
    biases: tuple[int, ...] = ()
    products: tuple[tuple[int, int], ...] = ()
    transpose: Transpose | None = None
    one_of_list: bool = False


def _same(names: str, rule: Affine) -> dict[str, Affine]:
    return {f"aten.{name}": rule for name in names.split()}


_CONV = {f"aten.conv{d}d.default": Affine(biases=(2,), transpose=convolution(d, transposed=False)) for d in (1, 2, 3)}
_CONV_TRANSPOSE = {
    f"aten.conv_transpose{name}": Affine(biases=(2,), transpose=convolution(d, transposed=True))
    for d, name in ((1, "1d.default"), (2, "2d.input"), (3, "3d.input"))
}
_BATCH_NORM = Affine(transpose=adjoint.batch_norm)

RULES: dict[str, Affine] = {
    **_CONV,
    **_CONV_TRANSPOSE,
    **_same("conv1d.padding conv2d.padding conv3d.padding", Affine(biases=(2,))),
    "aten.linear.default": Affine(biases=(2,), transpose=adjoint.linear),
    **_same(
        "addmm.default baddbmm.default addmv.default addcmul.default addr.default",
        Affine(((0, 1), (0, 2)), shifts=(0,), products=((1, 2),)),
    ),
    "aten.addcdiv.default": Affine(JOINT, shifts=(0, 1)),
    **_same("mm.default matmul.default bmm.default", Affine(EITHER, transpose=adjoint.right_product)),
    **_same(
        "mv.default dot.default outer.default inner.default linalg_vecdot.default linalg_cross.default "
        "tensordot.default cross.default",
        Affine(EITHER),
    ),
    "aten.einsum.default": Affine(((1,),), one_of_list=True),
    "aten.bilinear.default": Affine(EITHER, biases=(3,)),
    "aten._native_batch_norm_legit_no_training.default#0": _BATCH_NORM,
    **_same("add.Tensor add.Scalar", Affine(JOINT, shifts=(0, 1), transpose=adjoint.add)),
    **_same(
        "sub.Tensor sub.Scalar subtract.Tensor subtract.Scalar",
        Affine(JOINT, shifts=(0, 1), transpose=adjoint.subtract),
    ),
    **_same("rsub.Tensor rsub.Scalar", Affine(JOINT, shifts=(0, 1))),
    **_same("lerp.Scalar lerp.Tensor", Affine(JOINT, shifts=(0, 1))),
    **_same("neg.default negative.default", Affine(transpose=adjoint.negative)),
    **_same("mul.Tensor multiply.Tensor", Affine(EITHER, transpose=adjoint.times)),
    **_same("mul.Scalar multiply.Scalar", Affine(transpose=adjoint.times)),
    **_same(
        "div.Tensor div.Scalar divide.Tensor divide.Scalar true_divide.Tensor true_divide.Scalar",
        Affine(transpose=adjoint.over),
    ),
    **_same("mean.default mean.dim", Affine(transpose=adjoint.mean)),
    **_same("sum.default sum.dim_IntList", Affine(transpose=adjoint.total)),
    **_same(
        "cumsum.default trapezoid.dx cumulative_trapezoid.dx trace.default "
        "tril.default triu.default diagonal.default diag_embed.default deg2rad.default rad2deg.default "
        "nansum.default nanmean.default",
        Affine(),
    ),
    "aten.diff.default": Affine(((0, 3, 4),), shifts=(3, 4)),
    "aten.avg_pool2d.default": Affine(transpose=adjoint.average_pool2d),
    "aten.adaptive_avg_pool2d.default": Affine(transpose=adjoint.adaptive_average_pool2d),
    "aten._adaptive_avg_pool2d.default": Affine(transpose=adjoint.adaptive_average_pool2d),
    **_same(
        "avg_pool1d.default avg_pool3d.default adaptive_avg_pool1d.default adaptive_avg_pool3d.default",
        Affine(),
    ),
    "aten.pad.default": Affine(shifts=(3,), transpose=adjoint.constant_pad),
    "aten.constant_pad_nd.default": Affine(shifts=(2,), transpose=adjoint.constant_pad),
    "aten.slice.Tensor": Affine(transpose=adjoint.cut),
    **_same(
        "reflection_pad1d.default reflection_pad2d.default reflection_pad3d.default replication_pad1d.default "
        "replication_pad2d.default replication_pad3d.default _pad_circular.default",
        Affine(),
    ),
    **_same(
        "upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec upsample_linear1d.vec "
        "upsample_bilinear2d.vec upsample_trilinear3d.vec upsample_bicubic2d.vec "
        "_upsample_nearest_exact1d.vec _upsample_nearest_exact2d.vec _upsample_nearest_exact3d.vec "
        "_upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.vec upsample_nearest1d.default "
        "upsample_nearest2d.default upsample_nearest3d.default upsample_linear1d.default "
        "upsample_bilinear2d.default upsample_trilinear3d.default upsample_bicubic2d.default "
        "grid_sampler.default grid_sampler_2d.default",
        Affine(),
    ),
    **_same(
        "view.default _unsafe_view.default reshape.default unsqueeze.default squeeze.default squeeze.dim squeeze.dims "
        "flatten.using_ints unflatten.int ravel.default view_as.default",
        Affine(transpose=adjoint.reshape),
    ),
    **_same(
        "clone.default detach.default detach_.default alias.default contiguous.default _to_copy.default to.dtype "
        "lift_fresh_copy.default lift_fresh.default view_of.default positive.default to.dtype_layout to.device",
        Affine(transpose=adjoint.identity),
    ),
    **_same("type_as.default to.other", Affine(JOINT)),
    "aten.permute.default": Affine(transpose=adjoint.permute),
    **_same("transpose.int", Affine(transpose=adjoint.swap)),
    **_same(
        "t.default mT.default numpy_T.default movedim.int movedim.intlist swapaxes.default expand.default "
        "expand_as.default repeat.default repeat_interleave.self_int tile.default select.int narrow.default "
        "narrow_copy.default unfold.default flip.default fliplr.default flipud.default roll.default rot90.default "
        "im2col.default col2im.default pixel_shuffle.default pixel_unshuffle.default channel_shuffle.default "
        "broadcast_to.default",
        Affine(),
    ),
    **_same(
        "split.Tensor#* split.sizes#* split_with_sizes.default#* chunk.default#* unbind.int#* tensor_split.sections#* "
        "tensor_split.indices#* unsafe_split.Tensor#* unsafe_split_with_sizes.default#*",
        Affine(),
    ),
    **_same("index.Tensor _unsafe_index.Tensor index_select.default gather.default", Affine()),
    **_same(
        "cat.default concat.default concatenate.default stack.default hstack.default vstack.default dstack.default "
        "row_stack.default column_stack.default",
        Affine(shifts=(0,)),
    ),
    **_same("where.self where.ScalarSelf where.ScalarOther", Affine(((1, 2),), shifts=(1, 2))),
    **_same("masked_fill.Scalar masked_fill.Tensor", Affine(((0, 2),), shifts=(0, 2))),
    **_same(
        "select_scatter.default slice_scatter.default diagonal_scatter.default",
        Affine(JOINT, shifts=(0, 1)),
    ),
    "aten.copy.default": Affine(JOINT, shifts=(0, 1), transpose=adjoint.overwrite),
    **_same("index_put.default _unsafe_index_put.default", Affine(((0, 2),), shifts=(0, 2))),
    **_same("index_add.default index_copy.default scatter.src scatter_add.default", Affine(((0, 3),), shifts=(0, 3))),
    **_same("fill.Scalar fill.Tensor", Affine(JOINT, shifts=(1,))),
    "aten.index_fill.int_Tensor": Affine(((0, 3),), shifts=(0, 3)),
    **_same("index_fill.int_Scalar scatter.value", Affine(shifts=(3,))),
}
"""Operator -> how it is affine. One output of several is written "op#k"; "op#*" stands for every output."""
