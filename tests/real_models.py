"""The architectures of the trained networks whose files hold only weights, in plain torch."""

from __future__ import annotations

import numpy as np
import torch
from assets import asset
from torch import Tensor, nn
from torch.nn import functional as F


def state(path: str) -> dict[str, Tensor]:
    """The state dict in a file, or under its key "state_dict"."""
    loaded = torch.load(asset(path), weights_only=True, map_location="cpu")
    return loaded.get("state_dict", loaded)


def filled(module: nn.Module, weights: dict[str, Tensor], prefix: str = "") -> nn.Module:
    """The module in eval mode with the weights whose keys start with `prefix`, all of them used."""
    module.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items()})
    return module.eval()


def relu_mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them: keys 0, 2, 4, ..."""
    layers: list[nn.Module] = []
    for i in range(len(widths) - 1):
        layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mlp_of(weights: dict[str, Tensor]) -> nn.Module:
    """The ReLU MLP whose linear layers are, in order, the (weight, bias) pairs of a state dict."""
    matrices = [v for k, v in weights.items() if k.endswith("weight")]
    net = relu_mlp(matrices[0].shape[1], *(len(w) for w in matrices))
    return filled(net, dict(zip(net.state_dict(), weights.values(), strict=True)))


def kw_mnist(path: str) -> nn.Module:
    """Two strided convolutions and two linear layers (Wong and Kolter)."""
    convs = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()]
    return filled(nn.Sequential(*convs, nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)), state(path))


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max pooling, on 32 x 32 images (log-softmax head left off)."""

    def __init__(self) -> None:
        super().__init__()
        self.convnet = nn.ModuleDict({"c1": nn.Conv2d(1, 6, 5), "c3": nn.Conv2d(6, 16, 5), "c5": nn.Conv2d(16, 120, 5)})
        self.fc = nn.ModuleDict({"f6": nn.Linear(120, 84), "f7": nn.Linear(84, 10)})

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.convnet["c1"](x)), 2)
        x = F.max_pool2d(F.relu(self.convnet["c3"](x)), 2)
        x = F.relu(self.convnet["c5"](x)).flatten(1)
        return self.fc["f7"](F.relu(self.fc["f6"](x)))


def lenet5(path: str) -> nn.Module:
    """The trained LeNet-5."""
    return filled(LeNet5(), state(path))


class PlainBlock(nn.Module):
    """relu(conv2(relu(conv1(x))) + shortcut(x)) with biases and without batch norm."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1)
        same = stride == 1 and inside == outside
        self.shortcut = nn.Sequential(*([] if same else [nn.Conv2d(inside, outside, 1, stride)]))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet2b(nn.Module):
    """The residual CIFAR-10 net of the verification competition: 6244 ReLUs, no batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(PlainBlock(8, 16, 2), PlainBlock(16, 16, 1))
        self.linear1, self.linear2 = nn.Linear(1024, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(F.relu(self.conv1(x))).flatten(1)
        return self.linear2(F.relu(self.linear1(x)))


def resnet2b(path: str) -> nn.Module:
    """The trained residual net."""
    return filled(ResNet2b(), state(path))


class OptionA(nn.Module):
    """The parameter-free shortcut: every second pixel, zero channels on both sides (He et al., 2015)."""

    def forward(self, x: Tensor) -> Tensor:
        extra = x.shape[1] // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))


class NormedBlock(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)) of the CIFAR ResNets."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        stride = 1 if inside == outside else 2
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential() if inside == outside else OptionA()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return F.relu(y)


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10 with batch norm and option A shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(NormedBlock(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(NormedBlock(16, 32), NormedBlock(32, 32), NormedBlock(32, 32))
        self.layer3 = nn.Sequential(NormedBlock(32, 64), NormedBlock(64, 64), NormedBlock(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(F.avg_pool2d(x, x.shape[3]).flatten(1))


def resnet20(path: str) -> nn.Module:
    """The trained ResNet-20; its file lacks only the counters of the batches seen."""
    net, weights = ResNet20(), {k.removeprefix("module."): v for k, v in state(path).items()}
    missing, unexpected = net.load_state_dict(weights, strict=False)
    assert not unexpected and all(k.endswith("num_batches_tracked") for k in missing)
    return net.eval()


def gan_generator(path: str) -> nn.Module:
    """64 - 256 - 256 - 784 with ReLU and a final Tanh (module "5")."""
    return filled(nn.Sequential(*relu_mlp(64, 256, 256, 784), nn.Tanh()), state(path))


class VaeEncoder(nn.Module):
    """Pixels -> (mean, log variance) of the 20 latent variables."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.fc1(x))
        return self.fc21(h), self.fc22(h)


class VaeDecoder(nn.Module):
    """20 latent variables -> 784 pixels in (0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))


def vae_encoder(path: str) -> nn.Module:
    """The encoder of the trained VAE."""
    return filled(VaeEncoder(), {k: v for k, v in state(path).items() if k.startswith(("fc1.", "fc2"))})


def vae_decoder(path: str) -> nn.Module:
    """The decoder of the trained VAE."""
    return filled(VaeDecoder(), {k: v for k, v in state(path).items() if k.startswith(("fc3.", "fc4."))})


class Scaled(nn.Module):
    """scale_out * net((x - shift_in) / scale_in) + shift_out."""

    def __init__(self, net: nn.Module, *scalings: np.ndarray) -> None:
        super().__init__()
        self.net = net
        for name, value in zip(("shift_in", "scale_in", "shift_out", "scale_out"), scalings, strict=True):
            self.register_buffer(name, torch.from_numpy(np.asarray(value, np.float64).ravel()))

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - self.shift_in) / self.scale_in) * self.scale_out + self.shift_out


def stacked(weights: list[np.ndarray], biases: list[np.ndarray]) -> nn.Module:
    """The ReLU MLP of matrices (out, in) and vectors (out,), in float64."""
    net = relu_mlp(weights[0].shape[1], *(len(w) for w in weights)).double()
    arrays = [a for w, b in zip(weights, biases, strict=True) for a in (w, b.ravel())]
    return filled(net, dict(zip(net.state_dict(), map(torch.from_numpy, arrays), strict=True)))


def pendulum(path: str) -> nn.Module:
    """The pendulum net of another program's .mat file with its normalisation, in float64."""
    from scipy.io import loadmat

    mat = loadmat(asset(path))
    net = stacked(list(mat["weights"][0]), list(mat["biases"][0]))
    return Scaled(net, *(mat[k] for k in ("X_mean", "X_std", "Y_mean", "Y_std"))).eval()


def quadratic(path: str) -> nn.Module:
    """The quadratic net of another program's .npz files with its normalisation, in float64."""
    arrays = [v for _, v in sorted(np.load(asset(path)).items())]
    norm = np.load(asset("nets/pwa_reference/quadratic_norm_params.npz"))
    net = stacked(arrays[::2], arrays[1::2])
    return Scaled(net, *(norm[k] for k in ("X_mean", "X_std", "Y_mean", "Y_std"))).eval()


def nnet(path: str) -> nn.Module:
    """A .nnet text file (Kyle Julian): clipping to the input box left off, raw inputs and outputs."""
    lines = [line for line in asset(path).read_text().splitlines() if not line.startswith("//")]
    rows = [np.array([float(v) for v in line.split(",") if v.strip()]) for line in lines]
    sizes, means, ranges, body = rows[1].astype(int), rows[5], rows[6], rows[7:]
    weights, biases = [], []
    for n in sizes[1:]:
        weights.append(np.stack(body[:n]))
        biases.append(np.concatenate(body[n : 2 * n]))
        body = body[2 * n :]
    d = sizes[0]
    return Scaled(stacked(weights, biases), means[:d], ranges[:d], means[d:], ranges[d:]).eval()


def bench_cnn(path: str) -> nn.Module:
    """The two-convolution CNN of the speed workloads."""
    convs = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
    return filled(nn.Sequential(*convs, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6272, 10)), state(path))
