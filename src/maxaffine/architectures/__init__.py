"""The networks that the paper on max-affine splines trains: small CNNs, a large one, residual ones.

>>> import torch
>>> net = small_cnn(classes=10)
>>> net(torch.zeros(2, 3, 32, 32)).shape
torch.Size([2, 10])
>>> sum(p.numel() for p in net.parameters())
39456

All take square images (N, channels, side, side) and give scores (N, classes). They share these arguments:

- classes, channels, side: of the data; 32 x 32 x 3 in the paper, smaller images where they still fit.
- batch_norm: batch norm between a convolution (or hidden dense layer) and its activation. Such a layer has no bias of
  its own: the shift of the batch norm is one.
- bias: False leaves out every learned offset: biases of layers and shifts of batch norms. The running means of batch
  norms stay, so the offsets b[x] vanish only without batch norm.
- activation: "relu" or "abs".

Weights start Xavier uniform (Glorot and Bengio, 2010), biases at zero. Batch norms keep 99 % of their running
statistics at a step (TensorFlow's momentum .99, torch's 0.01) and have epsilon 1e-3.

Source: Balestriero and Baraniuk, 2018, arXiv 1805.06576, and the code of its experiments (January to April 2018),
which changed some networks on the way: ``version`` and ``head`` say which one is built.
"""

from maxaffine.architectures.networks import (
    ARCHITECTURES,
    dense_cnn,
    large_cnn,
    memory_cnn,
    mlp,
    resnet_large,
    small_cnn,
    small_resnet,
)

__all__ = [
    "ARCHITECTURES",
    "dense_cnn",
    "large_cnn",
    "memory_cnn",
    "mlp",
    "resnet_large",
    "small_cnn",
    "small_resnet",
]
