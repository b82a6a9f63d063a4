"""Transforms: maps that destroy information, so that what is left can be modelled from some of the latent blocks alone.

A transform ``g`` is usually random and usually many-to-one (a bijection destroys nothing). It works per sample on a
batch ``[batch, ...]``, draws anew for every sample, never modifies its input and gives the same result for the same
generator state. Values are floats in [0, 1] or uint8 in 0..255 and come back in the type they came in.

>>> import torch
>>> import infoplace.transforms as transforms
>>> shuffle = transforms.make_transform("patch_shuffle", n=8)
>>> shuffle(torch.rand(4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).shape
torch.Size([4, 3, 32, 32])
>>> transforms.compose("grayscale", {"patch_shuffle": {"n": 8}}).destroys
'colour, global structure'

A transform of one's own is a class with ``destroys``, ``stochastic`` and ``apply``; its fields are its parameters:

>>> class Mirror(transforms.Transform):
...     "Mirrors every image left to right with probability `share`."
...     share: float = 0.5
...     destroys = "handedness"
...     stochastic = True
...     axes = ("channels", "height", "width")
...
...     def apply(self, x, generator):
...         chosen = transforms.draw_uniform((len(x), 1, 1, 1), x, generator) < self.share
...         return torch.where(chosen, x.flip(-1), x)
>>> Mirror(share=1.0)(torch.arange(4.0).view(1, 1, 1, 4) / 3)
tensor([[[[1.0000, 0.6667, 0.3333, 0.0000]]]])
"""

from infoplace.transforms import stock as stock
from infoplace.transforms.adapters import from_callable, from_kornia, from_torchvision
from infoplace.transforms.base import (
    Transform,
    compose,
    describe_transform,
    draw_uniform,
    list_transforms,
    make_transform,
    register_transform,
)

__all__ = [
    "Transform",
    "compose",
    "describe_transform",
    "draw_uniform",
    "from_callable",
    "from_kornia",
    "from_torchvision",
    "list_transforms",
    "make_transform",
    "register_transform",
]
