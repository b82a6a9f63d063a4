"""How the sites and observations are named that come with a name of the user's."""

from __future__ import annotations

__all__ = ["READ_SUFFIX", "class_name"]

READ_SUFFIX = "_read"
"""What an observation's second draw (``redraw=True``) is called, after its name."""

_CLASS_SUFFIX = "_y"


def class_name(block: str) -> str:
    """The site of a block's class, where its prior draws one.

    >>> class_name("z_g")
    'z_g_y'
    """
    return block + _CLASS_SUFFIX
