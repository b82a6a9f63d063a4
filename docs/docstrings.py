"""Makes the package's docstrings read well in Markdown: links for roles, and fences round examples.

The docstrings are written for ``help()`` and for pytest: ``:class:`Partition``` names another object, and an example
begins with ``>>>``. Markdown would print the first as it stands and take the second for a quotation.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["Docstrings"]

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(~?)([\w.]+)`")
EXAMPLE = re.compile(r"^([ ]*)>>> .*(?:\n\1\S.*|\n\1[ ]+\S.*)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites the docstrings of a package when all of it has been read, so that every name can be found."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite every docstring of the package."""
        self._rewrite(pkg)

    def _rewrite(self, item: griffe.Object) -> None:
        if item.docstring is not None:
            text = EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", item.docstring.value)
            item.docstring.value = ROLE.sub(lambda match: _link(item, match[1], match[2]), text)
        for member in item.members.values():
            if not member.is_alias:
                self._rewrite(member)


def _link(item: griffe.Object, short: str, name: str) -> str:
    shown = f"`{name.rpartition('.')[2] if short else name}`"
    target = _target(item, name)
    # What has no docstring has no place on the site.
    return f"[{shown}][{target.path}]" if target is not None and target.has_docstring and target.is_public else shown


def _target(item: griffe.Object, name: str) -> griffe.Object | None:
    """The object that a name means where ``item`` is: a member of it, of what it is in, or a path from the package."""
    scopes: list[Any] = [item.package.parent or item.modules_collection] if name.startswith("infoplace.") else []
    scope: Any = item
    while scope is not None:
        scopes.append(scope)
        scope = scope.parent
    for scope in scopes:
        try:
            found = scope[name]
            return found.final_target if found.is_alias else found
        except (KeyError, griffe.AliasResolutionError, griffe.CyclicAliasError):
            continue
    return None
