"""The one list of small networks that every law is checked on."""

from __future__ import annotations

from functools import lru_cache

import torch
from net import example_of, model_of
from nets_dense import DENSE_NETS
from nets_image import IMAGE_NETS

import maxaffine as ma

NETS = [*DENSE_NETS, *IMAGE_NETS]
NAMES = [net.name for net in NETS]
BY_NAME = {net.name: net for net in NETS}


@lru_cache
def captured(name: str, dtype: torch.dtype = torch.float64) -> ma.Spline:
    """The spline of a network of the list. Capturing takes longest of all: tests share it and leave it as it is."""
    net = BY_NAME[name]
    return ma.Spline(model_of(net, dtype), example_of(net, dtype), **net.options)
