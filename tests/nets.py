"""The one list of small networks that every law is checked on."""

from __future__ import annotations

from nets_dense import DENSE_NETS
from nets_image import IMAGE_NETS

NETS = [*DENSE_NETS, *IMAGE_NETS]
NAMES = [net.name for net in NETS]
