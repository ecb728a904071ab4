"""A llama2.c checkpoint (version 0) and its tokenizer in plain torch: real, and not piecewise affine."""

from __future__ import annotations

import struct

import numpy as np
import torch
from assets import asset
from torch import Tensor, nn
from torch.nn import functional as F

HEADER = struct.Struct("<7i")


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-5) * weight."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def rotated(x: Tensor) -> Tensor:
    """Rotary embedding of (N, T, heads, size): pairs (2i, 2i + 1) turned by position * 10000^(-2i/size)."""
    steps, size = x.shape[1], x.shape[3]
    frequency = 10000.0 ** (-torch.arange(0, size, 2) / size)
    angle = torch.outer(torch.arange(steps), frequency)[:, None]
    even, odd = x[..., ::2], x[..., 1::2]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class SwiGLU(nn.Module):
    """w2(silu(w1(x)) * w3(x))."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + SwiGLU MLP(norm(x))."""

    def __init__(self, dim: int, hidden: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, dim // heads
        self.attention_norm, self.ffn_norm = RMSNorm(dim), RMSNorm(dim)
        self.wq, self.wo = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.wk = nn.Linear(dim, kv_heads * self.size, bias=False)
        self.wv = nn.Linear(dim, kv_heads * self.size, bias=False)
        self.mlp = SwiGLU(dim, hidden)

    def attention(self, x: Tensor) -> Tensor:
        q = rotated(self.wq(x).unflatten(-1, (self.heads, self.size)))
        k = rotated(self.wk(x).unflatten(-1, (self.kv_heads, self.size)))
        v = self.wv(x).unflatten(-1, (self.kv_heads, self.size))
        shared = self.heads // self.kv_heads
        k, v = k.repeat_interleave(shared, 2), v.repeat_interleave(shared, 2)
        y = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        return self.wo(y.transpose(1, 2).flatten(-2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.ffn_norm(x))


class Llama(nn.Module):
    """Token ids (N, T) -> logits (N, T, vocab); the classifier is the embedding itself."""

    def __init__(self, dim: int, hidden: int, layers: int, heads: int, kv_heads: int, vocab: int) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(vocab, dim)
        self.layers = nn.ModuleList(Block(dim, hidden, heads, kv_heads) for _ in range(layers))
        self.norm = RMSNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.from_embedding(self.tok_embeddings(tokens))

    def from_embedding(self, x: Tensor) -> Tensor:
        """Token vectors (N, T, dim) -> logits."""
        for block in self.layers:
            x = block(x)
        return F.linear(self.norm(x), self.tok_embeddings.weight)


def llama2c(path: str) -> nn.Module:
    """The network of a version-0 checkpoint: 7 int32, then float32 tensors in a fixed order."""
    raw = asset(path).read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab, _ = HEADER.unpack_from(raw)
    net = Llama(dim, hidden, layers, heads, kv_heads, vocab)
    values = torch.from_numpy(np.frombuffer(raw, np.float32, offset=HEADER.size).copy())
    own = dict(net.named_parameters())
    order = ("attention_norm.weight", "wq.weight", "wk.weight", "wv.weight", "wo.weight", "ffn_norm.weight")
    order += ("mlp.w1.weight", "mlp.w2.weight", "mlp.w3.weight")
    stacked = [f"layers.{i}.{name}" for name in order for i in range(layers)]
    offset = 0
    for name in ("tok_embeddings.weight", *stacked, "norm.weight"):
        own[name].data.copy_(values[offset : offset + own[name].numel()].view_as(own[name]))
        offset += own[name].numel()
    return net.eval()


def vocabulary(path: str, size: int = 512) -> list[bytes]:
    """The pieces of a llama2.c tokenizer file: max length, then (score, length, bytes) each."""
    raw, offset, pieces = asset(path).read_bytes(), 4, []
    for _ in range(size):
        _, length = struct.unpack_from("<fi", raw, offset)
        pieces.append(raw[offset + 8 : offset + 8 + length])
        offset += 8 + length
    return pieces


def greedy(net: nn.Module, tokens: int) -> Tensor:
    """The ids of a greedy decode from BOS (id 1), BOS included: (1, tokens + 1)."""
    ids = torch.tensor([[1]])
    with torch.no_grad():
        for _ in range(tokens):
            ids = torch.cat((ids, net(ids)[:, -1:].argmax(-1)), 1)
    return ids


def text_of(ids: Tensor, pieces: list[bytes]) -> str:
    """The text of ids after BOS: raw byte pieces <0xAB> decoded, the space after BOS dropped."""
    parts = [pieces[i] for i in ids.flatten().tolist()[1:]]
    parts = [bytes([int(p[3:5], 16)]) if p.startswith(b"<0x") else p for p in parts]
    return b"".join(parts).decode().removeprefix(" ")
