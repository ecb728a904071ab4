"""Every affine operation that a model can call, as functions of x (N, ...) grouped by the shape of x."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

Operation = Callable[[Tensor], Tensor]


SHAPES_OF_CONSTANTS = [
    (1, 1),
    (1, 1, 3),
    (1,),
    (1, 2),
    (1, 2, 1, 3, 3),
    (1, 2, 6),
    (1, 3),
    (1, 3, 2, 2),
    (1, 3, 4),
    (1, 6),
    (1, 6, 2),
    (2,),
    (2, 1),
    (2, 1, 6),
    (2, 3, 6),
    (2, 6),
    (2, 6, 3),
    (3,),
    (3, 4),
    (3, 6),
    (4, 2),
    (4, 3),
    (6,),
    (6, 2),
    (6, 3),
    (6, 6),
]
CONSTANTS = {
    shape: torch.randn(shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
    for i, shape in enumerate(SHAPES_OF_CONSTANTS)
}


def C(*shape: int) -> Tensor:
    """A fixed tensor of normal numbers, made before any capture."""
    return CONSTANTS[shape]


IDS = torch.tensor([4, 0, 0, 2])
MASK = torch.tensor([True, False, True, True, False, False])


def index_put(x: Tensor) -> Tensor:
    """Columns overwritten by index."""
    return x.clone().index_put((torch.arange(x.shape[0]), torch.full((x.shape[0],), 2)), x[:, 0])


def assigned(x: Tensor) -> Tensor:
    """Columns overwritten by slices, in place."""
    y = x.clone()
    y[:, 0] = 1.5
    y[:, IDS[:2]] += 1
    return y


def copied(x: Tensor) -> Tensor:
    """Columns overwritten by others, in place."""
    y = x.clone()
    y[:, 1:3] = 2 * x[:, 4:6]
    y[:, 5] = x[:, 0]
    return y


def undisturbed(x: Tensor) -> Tensor:
    """Without a gradient while training, in no precision but its own."""
    with torch.no_grad():
        return 2 * x + 1


def precise(x: Tensor) -> Tensor:
    """Inside a block of automatic precision that is off."""
    with torch.autocast("cpu", enabled=False):
        return F.linear(x, C(2, 6))


VECTOR: dict[str, Operation] = {
    "linear": nn.Linear(6, 3),
    "linear_no_bias": nn.Linear(6, 2, bias=False),
    "addmm": lambda x: torch.addmm(C(3), x, C(6, 3), beta=2, alpha=-0.5),
    "addmm_only_shift": lambda x: torch.addmm(x, C(1, 6).expand(x.shape[0], 6), C(6, 6)),
    "addcmul_only_shift": lambda x: torch.addcmul(x, C(1, 6), C(1, 6), value=3),
    "addcmul_two": lambda x: torch.addcmul(x, C(1, 6), x.flip(1)),
    "addcdiv_only_shift": lambda x: torch.addcdiv(x, C(1, 6), C(1, 6) + 3),
    "addcdiv_first": lambda x: torch.addcdiv(C(1, 6), x, C(1, 6) + 3),
    "baddbmm_only_shift": lambda x: torch.baddbmm(
        x.unsqueeze(1), *(C(6, 6).expand(x.shape[0], 6, 6)[:, i:] for i in (5, 0))
    ),
    "addmv_only_shift": lambda x: torch.addmv(x.sum(1), C(1, 6).expand(x.shape[0], 6), C(6)),
    "addmm_live_shift": lambda x: torch.addmm(x, x.flip(1), C(6, 6)),
    "mm": lambda x: torch.mm(x, C(6, 2)),
    "matmul": lambda x: x @ C(6, 2),
    "matmul_vector": lambda x: (x @ C(6))[:, None],
    "mv": lambda x: torch.mv(x, C(6))[:, None],
    "inner": lambda x: torch.inner(x, C(2, 6)),
    "vecdot": lambda x: torch.linalg.vecdot(x, C(6))[:, None],
    "cross": lambda x: torch.linalg.cross(x.view(-1, 2, 3), C(1, 1, 3)),
    "addmv": lambda x: torch.addmv(C(1), x, C(6))[:, None],
    "addcmul": lambda x: torch.addcmul(C(6), x, C(1, 6), value=2),
    "addr": lambda x: torch.addr(C(1, 2), x.sum(1), C(2)),
    "cross_product": lambda x: torch.cross(x.view(-1, 2, 3), C(1, 1, 3).expand(x.shape[0], 2, 3), dim=2),
    "degrees": lambda x: torch.rad2deg(torch.deg2rad(x) + 1),
    "nansum": lambda x: x.nansum(1, keepdim=True) + x.nanmean(1, keepdim=True),
    "broadcast": lambda x: sum(torch.broadcast_tensors(x, C(6), x[:, :1])),
    "index_fill_tensor": lambda x: x.index_fill(1, IDS, C(6)[0]),
    "addcdiv": lambda x: torch.addcdiv(C(6), x, C(1, 6), value=2),
    "outer": lambda x: torch.outer(x[:, 0], C(3)),
    "einsum": lambda x: torch.einsum("bi,io->bo", x, C(6, 3)),
    "einsum_left": lambda x: torch.einsum("oi,bi->bo", C(3, 6), x),
    "bilinear": lambda x: F.bilinear(x, C(1, 3).expand(x.shape[0], 3), C(2, 6, 3), C(2)),
    "bilinear_second": lambda x: F.bilinear(C(1, 3).expand(x.shape[0], 3), x, C(2, 3, 6)),
    "batch_norm": nn.BatchNorm1d(6),
    "batch_norm_plain": nn.BatchNorm1d(6, affine=False),
    "linear_batch_norm": nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)),
    "add": lambda x: x + 1.5,
    "add_tensor": lambda x: torch.add(x, C(6), alpha=3),
    "add_live": lambda x: torch.add(x, x.flip(1), alpha=3),
    "add_broadcast": lambda x: x[:, None] + C(2, 1),
    "add_self": lambda x: x + x,
    "add_row": lambda x: x[:, :1] + x,
    "sub": lambda x: x - 2,
    "sub_tensor": lambda x: torch.sub(C(6), x, alpha=0.5),
    "sub_live": lambda x: torch.sub(x, x.flip(1), alpha=2),
    "sub_both": lambda x: x[:, :1] - x.flip(1),
    "sub_from": lambda x: C(2, 6)[:, None] - x[:, None, None],
    "rsub": lambda x: 3 - x,
    "rsub_function": lambda x: torch.rsub(x, C(6), alpha=2),
    "rsub_scalar": lambda x: torch.rsub(x, 2.0, alpha=3),
    "lerp": lambda x: torch.lerp(x, x.flip(1), 0.3),
    "lerp_constant": lambda x: torch.lerp(x, C(6), 0.3),
    "lerp_weights": lambda x: torch.lerp(x, x.flip(1), C(6)),
    "neg": lambda x: -x,
    "aliases": lambda x: torch.negative(torch.multiply(torch.subtract(torch.divide(x, C(6)), C(6)), C(6))),
    "mul": lambda x: x * C(6),
    "mul_left": lambda x: C(2, 1, 6) * x[:, None, None],
    "mul_number": lambda x: 3 * x * -0.5,
    "div": lambda x: x / C(6),
    "div_number": lambda x: torch.true_divide(x, 4),
    "mean": lambda x: x.mean(1, keepdim=True),
    "sum": lambda x: x.sum(-1)[:, None],
    "cumsum": lambda x: x.cumsum(1),
    "diff": lambda x: x.diff(dim=1),
    "diff_twice": lambda x: x.diff(2, 1, prepend=x[:, :1], append=C(1, 1).expand(x.shape[0], 1)),
    "trapezoid": lambda x: torch.trapezoid(x, dx=0.5, dim=1)[:, None],
    "trapezoids": lambda x: torch.cumulative_trapezoid(x, dim=1),
    "dropout": nn.Dropout(0.5),
    "autocast": precise,
    "weight_norm": parametrizations.weight_norm(nn.Linear(6, 2)),
    "spectral_norm": parametrizations.spectral_norm(nn.Linear(6, 2)),
}

SHAPES: dict[str, Operation] = {
    "view": lambda x: x.view(-1, 2, 3),
    "reshape": lambda x: x.reshape(x.shape[0], 3, 2).mT,
    "unflatten": lambda x: x.unflatten(1, (3, 2)).flatten(1),
    "ravel": lambda x: x.ravel().reshape(-1, 6),
    "view_as": lambda x: x[:, :6].view_as(x),
    "squeeze": lambda x: x[:, None, :, None].squeeze(1).squeeze(-1),
    "squeeze_dims": lambda x: x[:, None, :, None].squeeze((1, 3)),
    "clone": lambda x: x.clone().contiguous(),
    "positive": lambda x: +x,
    "to": lambda x: x.to(torch.float64).double(),
    "type_as": lambda x: x.type_as(C(1)),
    "permute": lambda x: x.view(-1, 2, 3).permute(0, -1, 1),
    "transpose": lambda x: x.view(-1, 2, 3).transpose(1, -1),
    "t": lambda x: x.t().t(),
    "mT": lambda x: x.view(-1, 2, 3).mT,
    "T": lambda x: x.T.T,
    "movedim": lambda x: x.view(-1, 2, 3).movedim(1, 2),
    "movedims": lambda x: x.view(-1, 2, 3, 1).movedim((1, 2), (3, 1)),
    "swapaxes": lambda x: x.view(-1, 2, 3).swapaxes(1, 2),
    "expand": lambda x: x[:, None].expand(-1, 2, 6),
    "expand_as": lambda x: x[:, None].expand_as(C(1, 2, 6).expand(x.shape[0], 2, 6)),
    "broadcast_to": lambda x: torch.broadcast_to(x[:, None], (x.shape[0], 2, 6)),
    "repeat": lambda x: x.repeat(1, 2),
    "tile": lambda x: x.tile((1, 2)),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "select": lambda x: x.select(1, -2)[:, None],
    "slice": lambda x: x[:, 1:-1:2],
    "narrow": lambda x: x.narrow(1, 2, 3),
    "unfold": lambda x: x.unfold(1, 3, 2),
    "flip": lambda x: x.flip(1),
    "fliplr": lambda x: x.fliplr(),
    "narrow_copy": lambda x: x.narrow_copy(1, 2, 3),
    "unsafe_split": lambda x: x.unsafe_split(4, 1)[1],
    "roll": lambda x: x.roll(2, 1),
    "rot90": lambda x: x.view(-1, 2, 3).rot90(1, (1, 2)),
    "split": lambda x: torch.cat(x.split(4, 1)[::-1], 1),
    "split_sizes": lambda x: x.split([1, 2, 3], 1)[2],
    "chunk": lambda x: x.chunk(3, 1)[1],
    "unbind": lambda x: x.unbind(1)[3][:, None],
    "tensor_split": lambda x: x.tensor_split(4, 1)[0],
    "tensor_split_at": lambda x: x.tensor_split([1, 3], 1)[1],
    "index": lambda x: x[:, IDS],
    "index_two": lambda x: x.view(-1, 2, 3)[:, [0, 1, 1], [2, 2, 0]],
    "index_select": lambda x: x.index_select(1, IDS),
    "gather": lambda x: x.gather(1, IDS.expand(x.shape[0], 4)),
    "cat": lambda x: torch.cat((x, C(1, 2).expand(x.shape[0], 2), x[:, :1]), 1),
    "stack": lambda x: torch.stack((x, x.flip(1), C(1, 6).expand(x.shape[0], 6)), 2),
    "hstack": lambda x: torch.hstack((x, x)),
    "dstack": lambda x: torch.dstack((x, -x)),
    "concat": lambda x: torch.concat((x, x.flip(1)), 1),
    "column_stack": lambda x: torch.column_stack((x, x[:, 0])),
    "where": lambda x: torch.where(MASK, x, 2.0),
    "where_left": lambda x: torch.where(MASK, 2.0, x),
    "where_tensor": lambda x: torch.where(MASK, x, C(6)),
    "where_live": lambda x: torch.where(MASK, x, x.flip(1)),
    "masked_fill": lambda x: x.masked_fill(MASK, -1.5),
    "masked_fill_tensor": lambda x: x.masked_fill(MASK, torch.tensor(2.0, dtype=torch.float64)),
    "select_scatter": lambda x: x.select_scatter(C(1).expand(x.shape[0]), 1, 2),
    "select_scatter_live": lambda x: x.select_scatter(x[:, 0], 1, 2),
    "slice_scatter": lambda x: x.slice_scatter(2 * x[:, :2], 1, 3, 5),
    "index_put": index_put,
    "index_add": lambda x: x.index_add(1, IDS, x[:, :4], alpha=2),
    "assigned": assigned,
    "index_copy": lambda x: x.index_copy(1, IDS[:2], 2 * x[:, :2]),
    "index_fill": lambda x: x.index_fill(1, IDS, 3.0),
    "scatter": lambda x: x.scatter(1, IDS[None, :2].expand(x.shape[0], 2), x[:, 3:5]),
    "scatter_value": lambda x: x.scatter(1, IDS[None].expand(x.shape[0], 4), 2.5),
    "scatter_add": lambda x: x.scatter_add(1, IDS[None].expand(x.shape[0], 4), x[:, 1:5]),
}

SEQUENCE: dict[str, Operation] = {
    "conv": nn.Conv1d(4, 3, 3, stride=2, padding=1),
    "conv_groups": nn.Conv1d(4, 4, 2, dilation=2, groups=2, bias=False),
    "conv_same": nn.Conv1d(4, 2, 4, padding="same"),
    "conv_valid": nn.Conv1d(4, 2, 3, padding="valid"),
    "conv_circular": nn.Conv1d(4, 2, 3, padding=1, padding_mode="circular"),
    "conv_reflect": nn.Conv1d(4, 2, 3, padding=1, padding_mode="reflect"),
    "conv_batch_norm": nn.Sequential(nn.Conv1d(4, 2, 3), nn.BatchNorm1d(2)),
    "conv_weight_norm": parametrizations.weight_norm(nn.Conv1d(4, 2, 3)),
    "conv_transpose": nn.ConvTranspose1d(4, 2, 3, stride=2, padding=1, output_padding=1),
    "conv_transpose_groups": nn.ConvTranspose1d(4, 6, 2, dilation=2, groups=2),
    "linear_last": nn.Linear(6, 3),
    "batch_norm": nn.BatchNorm1d(4),
    "linear_batch_norm": nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(4)),
    "avg_pool": nn.AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "adaptive_avg_pool": nn.AdaptiveAvgPool1d(4),
    "reflect": lambda x: F.pad(x, (2, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x, (2, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (2, 1), mode="circular"),
    "pad_value": lambda x: F.pad(x, (2, 1, 1, 0), value=3.0),
    "crop": lambda x: F.pad(x, (-1, 2), value=1.0),
    "nearest": lambda x: F.interpolate(x, scale_factor=1.5),
    "nearest_exact": lambda x: F.interpolate(x, size=7, mode="nearest-exact"),
    "interpolate": lambda x: F.interpolate(x, size=9, mode="linear", align_corners=True),
    "area": lambda x: F.interpolate(x, size=4, mode="area"),
    "bmm": lambda x: torch.bmm(x, C(1, 6, 2).expand(x.shape[0], 6, 2)),
    "bmm_left": lambda x: torch.bmm(C(1, 3, 4).expand(x.shape[0], 3, 4), x),
    "baddbmm": lambda x: torch.baddbmm(C(4, 2), x, C(1, 6, 2).expand(x.shape[0], 6, 2), beta=0.5, alpha=2),
    "matmul_right": lambda x: x @ C(6, 2),
    "matmul_left": lambda x: C(3, 4) @ x,
    "matmul_batched": lambda x: x[:, None] @ C(2, 6, 3),
    "matmul_vector": lambda x: x @ C(6),
    "einsum": lambda x: torch.einsum("bct,cd->bdt", x, C(4, 2)),
    "tensordot": lambda x: torch.tensordot(x, C(6, 2), 1),
    "tril": lambda x: x.tril() + x.triu(1) * 2,
    "diagonal": lambda x: x.diagonal(1, 1, 2),
    "diag_embed": lambda x: x.diag_embed(),
    "diagonal_scatter": lambda x: x.diagonal_scatter(x[:, :, 0] * 2, 0, 1, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "mean_all": lambda x: x.mean((1, 2))[:, None],
    "sum_keep": lambda x: x.sum((2, 1), keepdim=True),
    "mean_middle": lambda x: x.mean(1),
    "cumsum": lambda x: x.cumsum(-1),
    "time_major": lambda x: nn.functional.linear(x.transpose(0, 1), C(2, 6)).transpose(0, 1),
    "split_heads": lambda x: x.view(x.shape[0], 2, 2, 6).transpose(1, 2).reshape(x.shape[0], 4, 6),
    "merged": lambda x: F.linear(x.flatten(0, 1), C(3, 6), C(3)).view(-1, 4, 3),
}

IMAGE: dict[str, Operation] = {
    "conv": nn.Conv2d(4, 3, 3, stride=2, padding=1),
    "conv_uneven": nn.Conv2d(4, 3, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1)),
    "conv_groups": nn.Conv2d(4, 8, 3, padding=1, groups=4),
    "conv_same": nn.Conv2d(4, 2, (2, 3), padding="same", dilation=2),
    "conv_replicate": nn.Conv2d(4, 2, 3, padding=2, padding_mode="replicate"),
    "conv_batch_norm": nn.Sequential(nn.Conv2d(4, 3, 3, bias=False), nn.BatchNorm2d(3)),
    "conv_transpose": nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=(1, 0)),
    "conv_transpose_groups": nn.ConvTranspose2d(4, 4, (3, 2), groups=2, dilation=(1, 2), bias=False),
    "conv_transpose_batch_norm": nn.Sequential(nn.ConvTranspose2d(4, 3, 2), nn.BatchNorm2d(3)),
    "spectral_norm": parametrizations.spectral_norm(nn.Conv2d(4, 2, 2)),
    "batch_norm": nn.BatchNorm2d(4),
    "batch_norm_plain": nn.BatchNorm2d(4, affine=False),
    "avg_pool": nn.AvgPool2d(2),
    "avg_pool_ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "avg_pool_inside": nn.AvgPool2d((2, 3), (2, 2), (1, 0), ceil_mode=True, count_include_pad=False),
    "avg_pool_divisor": nn.AvgPool2d(2, divisor_override=3),
    "adaptive_avg_pool": nn.AdaptiveAvgPool2d((2, 4)),
    "adaptive_avg_pool_one": nn.AdaptiveAvgPool2d(1),
    "pad_value": lambda x: F.pad(x, (1, 0, 2, 1, 0, 1), value=-2.0),
    "reflect": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest_exact": lambda x: F.interpolate(x, size=(7, 4), mode="nearest-exact"),
    "bilinear": lambda x: F.interpolate(x, scale_factor=(1.5, 2), mode="bilinear"),
    "bilinear_small": lambda x: F.interpolate(x, size=(3, 3), mode="bilinear", antialias=True),
    "bicubic": lambda x: F.interpolate(x, size=(7, 5), mode="bicubic", align_corners=True),
    "bicubic_small": lambda x: F.interpolate(x, size=(3, 4), mode="bicubic", antialias=True),
    "area": lambda x: F.interpolate(x, size=(2, 3), mode="area"),
    "pixel_shuffle": nn.PixelShuffle(2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[:, :, :4], 2),
    "channel_shuffle": nn.ChannelShuffle(2),
    "unfold": nn.Unfold((2, 3), padding=1, stride=2),
    "fold": lambda x: F.fold(F.unfold(x, 2), (5, 6), 2, dilation=1),
    "grid_sample": lambda x: F.grid_sample(x, C(1, 3, 2, 2).tanh().expand(x.shape[0], 3, 2, 2), align_corners=False),
    "grid_sample_nearest": lambda x: F.grid_sample(
        x, C(1, 3, 2, 2).expand(x.shape[0], 3, 2, 2), mode="nearest", padding_mode="border", align_corners=True
    ),
    "global_mean": lambda x: x.mean((2, 3)),
    "dropout": nn.Dropout2d(),
    "channels_last": lambda x: x.permute(0, 2, 3, 1) @ C(4, 3),
}

VOLUME: dict[str, Operation] = {
    "conv": nn.Conv3d(2, 3, (2, 3, 2), stride=(1, 2, 1), padding=(1, 0, 1)),
    "conv_same": nn.Conv3d(2, 2, 2, padding="same", groups=2),
    "conv_transpose": nn.ConvTranspose3d(2, 2, 2, stride=2, padding=1, output_padding=(0, 1, 0), groups=2),
    "conv_transpose_dilated": nn.ConvTranspose3d(2, 1, 2, dilation=(2, 1, 1)),
    "conv_batch_norm": nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3)),
    "batch_norm": nn.BatchNorm3d(2),
    "avg_pool": nn.AvgPool3d((2, 3, 2), 2, (1, 1, 0), ceil_mode=True, count_include_pad=False),
    "adaptive_avg_pool": nn.AdaptiveAvgPool3d((2, 1, 3)),
    "reflect": lambda x: F.pad(x, (1, 1, 0, 2, 1, 0), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 1, 0, 2, 1, 0), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 1, 0, 2, 1, 0), mode="circular"),
    "nearest": lambda x: F.interpolate(x, size=(2, 5, 4)),
    "nearest_exact": lambda x: F.interpolate(x, size=(2, 5, 4), mode="nearest-exact"),
    "trilinear": lambda x: F.interpolate(x, size=(4, 3, 5), mode="trilinear", align_corners=False),
    "grid_sample": lambda x: F.grid_sample(
        x, C(1, 2, 1, 3, 3).tanh().expand(x.shape[0], 2, 1, 3, 3), align_corners=True
    ),
}
A = torch.ops.aten
ATEN: dict[str, Operation] = {  # as other exporters write them
    "adaptive": lambda x: A._adaptive_avg_pool2d(x, [2, 1]),
    "unsafe_index": lambda x: A._unsafe_index(x, [None, None, IDS]),
    "add": lambda x: A.add.Scalar(x, 2, 3),
    "sub": lambda x: A.sub.Scalar(x, 2, 3),
    "mul": lambda x: A.mul.Scalar(x, 2.5),
    "div": lambda x: A.div.Scalar(x, 2.5),
    "constant_pad": lambda x: A.constant_pad_nd(x, [1, 2, 0, -1], 3.0),
    "constant_pad_out": lambda x: A.constant_pad_nd(x, [1, 2, 0, 3], -1.0),
    "fill": lambda x: x + A.fill.Scalar(x, 2.0),
    "alias": lambda x: A.alias(x),
    "grid_sampler": lambda x: A.grid_sampler_2d(x, C(1, 3, 2, 2).tanh().expand(x.shape[0], 3, 2, 2), 0, 0, False),
    "reflect1": lambda x: A.reflection_pad1d(x[:, :, 0], [1, 2]),
    "reflect2": lambda x: A.reflection_pad2d(x, [1, 2, 2, 0]),
    "reflect3": lambda x: A.reflection_pad3d(x[:, None], [1, 2, 2, 0, 1, 1]),
    "replicate1": lambda x: A.replication_pad1d(x[:, :, 0], [1, 2]),
    "replicate2": lambda x: A.replication_pad2d(x, [1, 2, 2, 0]),
    "replicate3": lambda x: A.replication_pad3d(x[:, None], [1, 2, 2, 0, 1, 1]),
    "nearest1": lambda x: A.upsample_nearest1d(x[:, :, 0], [9]),
    "nearest2": lambda x: A.upsample_nearest2d(x, [9, 3]),
    "nearest3": lambda x: A.upsample_nearest3d(x[:, None], [3, 9, 3]),
    "linear": lambda x: A.upsample_linear1d(x[:, :, 0], [9], False),
    "bilinear": lambda x: A.upsample_bilinear2d(x, [9, 3], True),
    "bicubic": lambda x: A.upsample_bicubic2d(x, [9, 3], False),
    "trilinear": lambda x: A.upsample_trilinear3d(x[:, None], [3, 9, 3], False),
}
GROUPS: dict[str, tuple[tuple[int, ...], dict[str, Operation]]] = {
    "vector": ((6,), VECTOR),
    "shapes": ((6,), SHAPES),
    "sequence": ((4, 6), SEQUENCE),
    "image": ((4, 5, 6), IMAGE),
    "volume": ((2, 3, 3, 4), VOLUME),
    "aten": ((2, 5, 6), ATEN),
}
