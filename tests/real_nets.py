"""The one list of real trained networks: where each is, how it is built, and real inputs for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import assets
import real_models as models
import torch
from llama2c import llama2c
from torch import Tensor, nn

Inputs = Callable[[int], Tensor]


@dataclass(frozen=True)
class RealNet:
    """A trained network: its file, real or in-domain inputs, and how a spline is taken of it."""

    name: str
    file: str  # below the folder of assets
    inputs: Inputs  # n -> (n, *in) float32, from the data where there is data
    module: Callable[[str], nn.Module] | None = None  # None: an ONNX file
    until: str | None = None
    select: int | None = None
    over: str | None = None
    margins: int = 64  # inputs whose distance to the nearest wall is asked for (the dear part)
    noise: float = 0.0  # in-domain noise that takes inputs off the walls (blank images tie in max pooling)


def shaped(inputs: Inputs, *shape: int) -> Inputs:
    """The same inputs as (n, *shape)."""
    return lambda n: inputs(n).reshape(n, *shape)


def mnist(scale: float = 1.0, shift: float = 0.0) -> Inputs:
    """Test images: scale * x/255 + shift, evenly picked from the 10,000."""
    return lambda n: assets.mnist_test()[0][:: 10000 // n][:n] * scale + shift


def cifar(mean: Sequence[float] = (0.0, 0.0, 0.0), std: Sequence[float] = (1.0, 1.0, 1.0)) -> Inputs:
    """Test images: (x/255 - mean) / std, evenly picked from the first 1000."""
    return lambda n: assets.normalised(assets.cifar_test()[0][:: 1000 // n][:n], mean, std)


def box(low: list[float], high: list[float]) -> Inputs:
    """Uniform points of a box."""
    return lambda n: assets.box(n, low, high)


def normal(dim: int) -> Inputs:
    """Standard normal latent vectors."""
    return lambda n: torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


def plane(radius: float) -> Inputs:
    """Points x0 + radius * Q s, s in [-1,1]^2, of the plane that the 784-dimensional workloads are cut by."""
    g = torch.Generator().manual_seed(1)
    x0 = torch.rand(784, generator=g, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(784, 2, generator=g, dtype=torch.float64))
    return lambda n: (x0 + radius * assets.box(n, [-1.0, -1.0], [1.0, 1.0]).double() @ q.T).float()


def of_state(path: str) -> nn.Module:
    """The ReLU MLP whose linear layers are in a state dict."""
    return models.mlp_of(models.state(path))


def mnist_32(n: int) -> Tensor:
    """Test images resized to 32 x 32, x/255."""
    return assets.mnist_test_32()[0][:: 10000 // n][:n]


def channels_last(inputs: Inputs) -> Inputs:
    """Images as (n, H, W, C)."""
    return lambda n: inputs(n).permute(0, 2, 3, 1).contiguous()


def published(archive: str, network: str) -> Inputs:
    """Counterexamples to the properties of the verification competition, with a small jitter when too few."""
    return lambda n: assets.counterexamples(archive, network, n)


def token_vectors(n: int, steps: int = 16) -> Tensor:
    """Embedded random tokens of the 512-word vocabulary (n, steps, 64)."""
    tokens = torch.randint(3, 512, (n, steps), generator=torch.Generator().manual_seed(0))
    return llama2c("nets/llm/stories260K.bin").tok_embeddings(tokens).detach()


HALF_PI, PIXEL = math.pi / 2, 1 / 255  # PIXEL: one grey level
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CIFAR = ([0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616])
OVAL = ([0.485, 0.456, 0.406], [0.225, 0.225, 0.225])
SQUARE, CUBE, FLAT = box([-1.0] * 2, [1.0] * 2), box([-1.0] * 3, [1.0] * 3), shaped(mnist(), 784)
PWA, GAN, VAE = "nets/pwa_reference/", "nets/generators/mnist_gan_mlp_G.pth", "nets/generators/mnist_vae.pth"
PLANE_NETS = ("a16", "a16_tr", "a64", "a64_tr", "a128", "a128_tr", "a256", "a256_tr")
ACAS = ("1_1", "1_9", "2_1", "3_3", "4_2", "5_8")
ACAS_RAW = box([0.0, -math.pi, -math.pi, 100.0, 0.0], [60760.0, math.pi, math.pi, 1200.0, 1200.0])
ACAS_MEAN = torch.tensor([19791.091, 0.0, 0.0, 650.0, 600.0])
ACAS_RANGE = torch.tensor([60261.0, 2 * math.pi, 2 * math.pi, 1100.0, 1200.0])


def acas_unit(n: int) -> Tensor:
    """Points of the whole state space, normalised as the ONNX files want them."""
    return (ACAS_RAW(n) - ACAS_MEAN) / ACAS_RANGE


MNIST = "nets/mnist/"
MNIST_NETS = [
    RealNet("mnist-net_256x2", MNIST + "mnist-net_256x2.onnx", shaped(mnist(), 784, 1)),
    RealNet("mnist-net_256x4", MNIST + "mnist-net_256x4.onnx", shaped(mnist(), 784, 1)),
    RealNet("eran_relu_3_50", MNIST + "eran_mnist_relu_3_50.onnx", mnist()),
    RealNet("eran_relu_6_100", MNIST + "eran_mnist_relu_6_100.onnx", mnist()),
    RealNet("eran_conv_small", MNIST + "eran_convSmallRELU__Point.onnx", mnist(), margins=16),
    RealNet("eran_maxpool", MNIST + "eran_mnist_conv_maxpool.onnx", mnist(2.0, -1.0), margins=8, noise=2 * PIXEL),
    RealNet("verivital_maxpool", MNIST + "verivital_Convnet_maxpool.onnx", mnist(), margins=8, noise=PIXEL),
    RealNet("kw_mnist", MNIST + "kw_mnist.pth", mnist(), models.kw_mnist, margins=16),
    RealNet("lenet", MNIST + "csinva_lenet.pth", mnist_32, models.lenet5, margins=8, noise=PIXEL),
    RealNet("smoothhess_mnist", MNIST + "smoothhess_MNIST.pth", FLAT, of_state, margins=16),
]
CIFAR_NETS = [
    RealNet("resnet_2b.onnx", "nets/cifar10/resnet_2b.onnx", cifar(*CIFAR), margins=4),
    RealNet("resnet_2b.pth", "nets/cifar10/resnet_2b.pth", cifar(*CIFAR), models.resnet2b, margins=4),
    RealNet("oval_cifar_base", "nets/cifar10/oval_cifar_base_kw.onnx", cifar(*OVAL), margins=16),
    RealNet("marabou_small", "nets/cifar10/marabou_cifar10_small.onnx", channels_last(cifar()), margins=8),
    RealNet("resnet20", "nets/cifar10/resnet20-12fca82f.th", cifar(*IMAGENET), models.resnet20, margins=1),
]
ACAS_NETS = [
    RealNet(f"acas_{k}.onnx", f"nets/acasxu/ACASXU_run2a_{k}_batch_2000.onnx", shaped(acas_unit, 1, 1, 5)) for k in ACAS
] + [RealNet(f"acas_{k}.nnet", f"nets/acasxu/ACASXU_experimental_v2a_{k}.nnet", ACAS_RAW, models.nnet) for k in ACAS]
CONTROL_NETS = [
    RealNet("cartpole", "nets/control/cartpole.onnx", published("rl_benchmarks", "cartpole")),
    RealNet("lunarlander", "nets/control/lunarlander.onnx", published("rl_benchmarks", "lunarlander")),
    RealNet("vdp", "nets/control/vdp.onnx", box([-2.5, -2.5, 0.0], [2.5, 2.5, 5.0])),
    RealNet("lindex", "nets/control/lindex.onnx", box([0.0], [1.0])),
    RealNet(
        "rul_window_20",
        "nets/control/NN_rul_small_window_20.onnx",
        shaped(published("collins_rul_cnn", "NN_rul"), 1, 20, 20),
        margins=16,
    ),
    RealNet("safenlp_medical", "nets/safenlp_medical.onnx", lambda n: assets.medical_points()[:n]),
]
SMALL_NETS = [
    RealNet("tll_8", "nets/tll/tllBench_n=2_N=M=8_m=1_instance_0_0.onnx.gz", box([-2.0] * 2, [2.0] * 2)),
    RealNet("tll_16", "nets/tll/tllBench_n=2_N=M=16_m=1_instance_1_0.onnx.gz", box([-2.0] * 2, [2.0] * 2)),
    RealNet("pendulum", PWA + "NN_params_pendulum.mat", box([-HALF_PI] * 2, [HALF_PI] * 2), models.pendulum),
    RealNet("quadratic", PWA + "quadratic_weights.npz", SQUARE, models.quadratic),
    RealNet("bunny_2x50", "nets/sdf/2_2x50_relu_bunny.pt", SQUARE, of_state),
    RealNet("bunny_4x32", "nets/sdf/2_4x32_relu_bunny.pt", SQUARE, of_state),
    RealNet("bunny_3x16", "nets/sdf/3_3x16_relu_bunny.pt", CUBE, of_state),
    RealNet("chair", "nets/sdf/chair.onnx", CUBE),
    RealNet("four_quadrant", "nets/toy2d/smoothhess_FourQuadrant.pth", box([-2.0] * 2, [2.0] * 2), of_state),
]
GENERATORS = [
    RealNet("gan", GAN, normal(64), models.gan_generator, until="4"),
    RealNet("vae_decoder", VAE, normal(20), models.vae_decoder, until="fc4"),
    RealNet("vae_mean", VAE, FLAT, models.vae_encoder, select=0),
    RealNet("vae_log_variance", VAE, FLAT, models.vae_encoder, select=1),
]
BENCH_NETS = [
    *(RealNet(f"bench_{k}", f"bench/{k}.pt", SQUARE, of_state) for k in PLANE_NETS),
    RealNet("bench_c3", "bench/c3.pt", CUBE, of_state),
    RealNet("bench_mlp784", "bench/mlp784.pt", plane(5.0), of_state, margins=16),
    RealNet("bench_cnn", "bench/cnn.pt", shaped(plane(0.25), 1, 28, 28), models.bench_cnn, margins=4),
]
REAL_NETS = [*MNIST_NETS, *CIFAR_NETS, *ACAS_NETS, *CONTROL_NETS, *SMALL_NETS, *GENERATORS, *BENCH_NETS]

# Captured and run as they are; a map of them would be an approximation, so it is refused.
SMOOTH_NETS = [
    RealNet("gan_tanh", GAN, normal(64), models.gan_generator),
    RealNet("vae_decoder_sigmoid", VAE, normal(20), models.vae_decoder),
    RealNet("stories260K", "nets/llm/stories260K.bin", token_vectors, llama2c, over="tok_embeddings"),
]
