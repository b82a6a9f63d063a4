"""HTML built from elements, in which every text is escaped unless it is HTML already."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["Html", "element", "in_words", "join"]

_VOID = frozenset(["br", "img", "input", "link", "meta"])


class Html(str):
    """Text that is HTML already, so that it is not escaped again."""

    __slots__ = ()


def element(name: str, /, *children: Any, **attributes: Any) -> Html:
    """One element.

    Args:
        name: the tag.
        children: text, which is escaped; :class:`Html`, which is not; None, which is left out; or lists of those.
        attributes: a trailing underscore is dropped and inner ones become hyphens, so ``class_`` and ``aria_label`` are
            what they look like. None and False are left out, True is an attribute without a value.

    >>> element("p", "a < b, ", element("em", "said"), " Eve", class_="note", hidden=True)
    '<p class="note" hidden>a &lt; b, <em>said</em> Eve</p>'
    >>> element("img", alt='"><script>')
    '<img alt="&quot;&gt;&lt;script&gt;">'
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{html.escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Html(opening) if name in _VOID else Html(f"{opening}{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Html:
    """Children as :func:`element` takes them, one after the other.

    >>> join(["1 < 2", None, [Html("<hr>")]])
    '1 &lt; 2<hr>'
    """
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(str(child))
        elif isinstance(child, (list, tuple)):
            parts.append(join(child))
        elif child is not None:
            parts.append(html.escape(str(child)))
    return Html("".join(parts))


def in_words(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    >>> in_words(["z_g", "z_l", "z_c"])
    'z_g, z_l and z_c'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
