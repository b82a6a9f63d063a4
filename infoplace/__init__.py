"""infoplace: decide which latent variable of a generative model carries which information, and prove that it went there.

Declare blocks of latent variables and the observations that hang on them (:class:`Partition`), make a Pyro model and
guide of it (:func:`make_pair`), and train them in any loop.
"""

import sys
from typing import Any

import lazy_loader

__version__ = "0.1.0"

# A module is imported when one of its names is first used, so the command line answers before torch is there. The names,
# and where each comes from, are in __init__.pyi, which type checkers read too.
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except AttributeError:
        if name in __all__:
            raise  # the module that has it is broken
        # With these two, Python names the nearest one there is.
        raise AttributeError(
            f"module 'infoplace' has no attribute {name!r}", name=name, obj=sys.modules[__name__]
        ) from None
