"""Transformers are captured and run, their maps refused by name; a block's MLP with ReLU has maps."""

from __future__ import annotations

from functools import lru_cache

import laws
import pytest
import torch
from torch import Tensor, nn

import maxaffine as ma

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@lru_cache
def gpt2(activation: str = "relu") -> nn.Module:
    """A random GPT-2 of two blocks, without the cache of keys and values that export cannot trace."""
    config = transformers.GPT2Config(
        vocab_size=50,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        use_cache=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    config.activation_function = activation
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.GPT2Model(config).eval()


EMBEDDED = torch.randn(3, 5, 16, generator=generator(0))
IDS = torch.randint(50, (3, 5), generator=generator(1))


def refused(spline: ma.Spline, x: Tensor, *words: str) -> None:
    with pytest.raises(ma.errors.NotPiecewiseAffineError) as error:
        spline.at(x)
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_gpt2_over_its_embedded_inputs() -> None:
    model = gpt2()
    spline = ma.Spline(model, {"inputs_embeds": EMBEDDED[:1]}, select="last_hidden_state")
    laws.assert_exact(spline, lambda x: model(inputs_embeds=x).last_hidden_state, EMBEDDED, 1e-5)
    refused(spline, EMBEDDED, "layer_norm", "h.0.ln_1")


def test_gpt2_over_its_token_embedding() -> None:
    model = gpt2()
    spline = ma.Spline(model, {"input_ids": IDS[:1]}, over="wte", select="last_hidden_state")
    laws.assert_exact(spline, lambda x: model(inputs_embeds=x).last_hidden_state, EMBEDDED, 1e-5)
    laws.assert_exact(spline, lambda _: model(input_ids=IDS).last_hidden_state, model.wte(IDS).detach(), 1e-5)
    refused(spline, EMBEDDED, "layer_norm", "h.0.ln_1")


def test_the_mlp_of_a_gpt2_block_inside_the_whole_network() -> None:
    model = gpt2()
    spline = ma.Spline(model, {"input_ids": IDS[:1]}, over="h.1.ln_2", until="h.1.mlp").to(torch.float64)
    x, mlp = EMBEDDED.double(), gpt2.__wrapped__().double().h[1].mlp
    for law in laws.LAWS_WITH_TRUTH:
        law(spline, mlp, x[:2, :5])


def test_the_mlp_of_a_gpt2_block_alone() -> None:
    mlp = gpt2.__wrapped__().double().h[0].mlp
    spline, x = ma.Spline(mlp, EMBEDDED[:1].double()), EMBEDDED.double()
    for law in laws.LAWS_WITH_TRUTH:
        law(spline, mlp, x)
    for law in (laws.assert_products, laws.assert_region, laws.assert_walls, laws.assert_margin):
        law(spline, x)


def test_the_gated_mlp_of_a_llama_block() -> None:
    """down(relu(gate x) * up x) is a product of two live tensors: quadratic on each region."""
    config = transformers.LlamaConfig(hidden_size=16, intermediate_size=24, num_attention_heads=2, hidden_act="relu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mlp = transformers.models.llama.modeling_llama.LlamaMLP(config).double().eval()
    spline, x = ma.Spline(mlp, EMBEDDED[:1].double()), EMBEDDED.double()
    laws.assert_exact(spline, mlp, x)
    refused(spline, x, "mul", "until=")


def test_a_vision_transformer() -> None:
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(config).eval()
    x = torch.randn(3, 3, 8, 8, generator=generator(2))
    spline = ma.Spline(model, {"pixel_values": x[:1]}, select="logits")
    laws.assert_exact(spline, lambda z: model(pixel_values=z).logits, x, 1e-5)
    refused(spline, x, "layer_norm", "until=")


def test_an_encoder_of_torch_itself() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    spline = ma.Spline(model, EMBEDDED[:1])
    laws.assert_exact(spline, model, EMBEDDED, 1e-5)
    refused(spline, EMBEDDED, "layer_norm", "layers.0.norm1")
