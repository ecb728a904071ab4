"""The loaders are the trained networks: published accuracies, a known story, a complete partition."""

from __future__ import annotations

import assets
import pytest
import torch
from assets import asset, needs_assets
from llama2c import SwiGLU, greedy, llama2c, text_of, vocabulary
from oracles import module_oracle, onnxruntime_oracle
from pwa import reference
from real_models import nnet
from real_nets import ACAS, REAL_NETS, SMOOTH_NETS, RealNet

pytestmark = needs_assets
NETS = {net.name: net for net in (*REAL_NETS, *SMOOTH_NETS)}
ACCURACY = {  # network: correct of all test images, as published with the files
    "mnist-net_256x2": (9808, 10000),
    "mnist-net_256x4": (9764, 10000),
    "eran_relu_3_50": (9588, 10000),
    "eran_relu_6_100": (9629, 10000),
    "eran_conv_small": (9804, 10000),
    "eran_maxpool": (9864, 10000),
    "verivital_maxpool": (9792, 10000),
    "kw_mnist": (9820, 10000),
    "lenet": (9907, 10000),
    "smoothhess_mnist": (9798, 10000),
    "resnet_2b.onnx": (703, 1000),
    "resnet_2b.pth": (703, 1000),
    "oval_cifar_base": (611, 1000),
    "marabou_small": (630, 1000),
    "resnet20": (915, 1000),
}
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n"
    "Lily's mom said, \"Lily, let's go to the park.\""
)


def oracle(net: RealNet):
    """The original network in float32."""
    if net.module is None:
        return onnxruntime_oracle(net.file)
    return module_oracle(net.module(net.file), torch.float32, net.until, net.select)


@pytest.mark.parametrize("name", ACCURACY)
def test_published_accuracy(name: str) -> None:
    correct, total = ACCURACY[name]
    labels = (assets.mnist_test if total == 10000 else assets.cifar_test)()[1]
    predicted = oracle(NETS[name])(NETS[name].inputs(total)).argmax(1)
    assert (int((predicted == labels).sum()), len(labels)) == (correct, total)


def test_every_network_of_the_folder_is_in_the_list() -> None:
    suffixes = (".onnx", ".onnx.gz", ".pth", ".th", ".pt", ".nnet", "stories260K.bin")
    partner = {"nets/pwa_reference/NN_params_pendulum.mat", "nets/pwa_reference/quadratic_weights.npz"}
    root = asset("")
    files = {p.relative_to(root).as_posix() for d in ("nets", "bench") for p in (root / d).rglob("*")}
    assert {f for f in files if f.endswith(suffixes)} | partner == {net.file for net in NETS.values()}


@pytest.mark.parametrize("k", ACAS)
def test_the_two_files_of_an_acas_network_agree(k: str) -> None:
    text, onnx = NETS[f"acas_{k}.nnet"], NETS[f"acas_{k}.onnx"]
    normalised = nnet(text.file).net(onnx.inputs(64).flatten(1).double())
    assert torch.allclose(normalised, oracle(onnx)(onnx.inputs(64)).double(), rtol=1e-4, atol=1e-5)


def test_greedy_decode_is_the_published_story() -> None:
    net = llama2c("nets/llm/stories260K.bin")
    text = text_of(greedy(net, 100), vocabulary("nets/llm/tok512.bin"))
    assert text.startswith(STORY)
    assert isinstance(net.layers[0].mlp, SwiGLU)


@pytest.mark.parametrize(("name", "cells"), [("pendulum", 18), ("quadratic", 202)])
def test_the_reference_partition_covers_the_domain_once(name: str, cells: int) -> None:
    points = NETS[name].inputs(10_000).double()
    partition = reference(name)
    inside = torch.stack([cell.contains(points) for cell in partition], 1)
    assert len(partition) == cells
    assert bool((inside.sum(1) == 1).all())
