"""Operators that are not continuous piecewise affine, and those that depend on training mode: tables of names.

A smooth operator of a live operand is run but has no code; a discontinuous one likewise; a random one is refused.
"""

SMOOTH: frozenset[str] = frozenset(
    f"aten.{name}"
    for name in """
    gelu.default silu.default sigmoid.default tanh.default elu.default celu.default selu.default hardswish.default
    mish.default softplus.default logsigmoid.default log_sigmoid.default softmax.int _softmax.default
    log_softmax.int _log_softmax.default layer_norm.default native_layer_norm.default#0 group_norm.default
    native_group_norm.default#0 instance_norm.default rms_norm.default _fused_rms_norm.default#0
    scaled_dot_product_attention.default _scaled_dot_product_flash_attention_for_cpu.default#0
    pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar square.default rsqrt.default sqrt.default reciprocal.default
    exp.default exp2.default expm1.default log.default log1p.default log2.default log10.default sin.default
    cos.default tan.default asin.default acos.default atan.default atan2.default sinh.default cosh.default
    erf.default erfc.default logsumexp.default logaddexp.default glu.default lstm.input#0 lstm.input#1 lstm.input#2
    gru.input#0 gru.input#1 lstm_cell.default#0 lstm_cell.default#1 gru_cell.default rnn_tanh.input#0
    rnn_tanh.input#1 rnn_tanh_cell.default linalg_vector_norm.default norm.ScalarOpt_dim frobenius_norm.dim
    std.correction var.correction std.dim var.dim var_mean.correction#0 var_mean.correction#1 prod.dim_int
    cumprod.default div.Scalar_mode cosine_similarity.default cdist.default _cdist_forward.default hypot.default
    local_response_norm.default lp_pool2d.default dist.default softsign.default
    """.split()
)
"""Not piecewise affine in their live operand."""

DISCONTINUOUS: frozenset[str] = frozenset(
    f"aten.{name}"
    for name in """
    gt.Scalar gt.Tensor lt.Scalar lt.Tensor ge.Scalar ge.Tensor le.Scalar le.Tensor eq.Scalar eq.Tensor ne.Scalar
    ne.Tensor sign.default sgn.default heaviside.default floor.default ceil.default round.default round.decimals
    trunc.default frac.default fmod.Scalar fmod.Tensor remainder.Scalar remainder.Tensor floor_divide.default
    div.Tensor_mode argmax.default argmin.default max.dim#1 min.dim#1 sort.default#0 sort.default#1 argsort.default
    sort.stable#0 sort.stable#1 argsort.stable topk.default#0 topk.default#1 kthvalue.default#0 median.default
    median.dim#0 median.dim#1 isnan.default isinf.default isfinite.default logical_not.default logical_and.default
    logical_or.default logical_xor.default bitwise_not.default bitwise_and.Tensor bitwise_or.Tensor any.default
    any.dim all.default all.dim nonzero.default signbit.default hardshrink.default max_unpool2d.default
    max_pool1d_with_indices.default#1 max_pool2d_with_indices.default#1 max_pool3d_with_indices.default#1
    adaptive_max_pool1d.default#1 adaptive_max_pool2d.default#1 adaptive_max_pool3d.default#1 one_hot.default
    bucketize.Tensor searchsorted.Tensor masked_select.default nan_to_num.default __and__.Tensor __or__.Tensor
    masked_fill.Scalar masked_fill.Tensor
    """.split()
) | {"maxaffine.hardshrink.default"}
"""Not continuous in their live operand (masked_fill stands here for a live mask; a constant mask is affine)."""

BOUNDARY: dict[str, str] = {
    "aten.embedding.default": "an embedding of token ids",
    "aten.embedding_bag.default": "an embedding of token ids",
}
"""Piecewise constant in integer inputs: the spline is taken over the output instead (over=...)."""

RANDOM: dict[str, str] = {
    "aten.native_dropout.default#0": "dropout in training mode",
    "aten.dropout.default": "dropout in training mode",
    "aten.feature_dropout.default": "dropout in training mode",
    "aten.alpha_dropout.default": "dropout in training mode",
    "aten.bernoulli.p": "dropout in training mode",
    "aten.bernoulli.default": "random numbers",
    "aten.rrelu_with_noise.default": "rrelu in training mode",
    "aten.rrelu_with_noise_functional.default#0": "rrelu in training mode",
    "aten._native_batch_norm_legit_functional.default#0": "batch norm with the statistics of the batch",
    "aten._native_batch_norm_legit.default#0": "batch norm with the statistics of the batch",
    "aten._native_batch_norm_legit.no_stats#0": "batch norm with the statistics of the batch",
    "aten.rand.default": "random numbers",
    "aten.randn.default": "random numbers",
    "aten.rand_like.default": "random numbers",
    "aten.randn_like.default": "random numbers",
    "aten.randint.low": "random numbers",
    "aten.randperm.default": "random numbers",
}
"""The same input would not give the same output, or a row would depend on the others."""
