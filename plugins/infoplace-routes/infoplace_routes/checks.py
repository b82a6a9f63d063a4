"""What the networks check of their parameters."""

from __future__ import annotations

from infoplace.errors import DeclarationError, is_whole

__all__ = ["check_whole"]


def check_whole(network: str, key: str, value: object, least: int = 1, advice: str = "") -> None:
    """Refuse what is no whole number of at least ``least``.

    Args:
        network: the network's name, the message's subject.
        key: the parameter.
        value: what it was given.
        least: the smallest that will do.
        advice: what to type instead, after a semicolon.

    Raises:
        DeclarationError: ``value`` is another thing, or smaller.

    >>> check_whole("ladder", "width", 0)
    Traceback (most recent call last):
    infoplace.errors.DeclarationError: ladder: width must be a whole number of at least 1; got 0
    """
    if not is_whole(value) or value < least:
        wanted = f"a whole number of at least {least}"
        raise DeclarationError(f"{network}: {key} must be {wanted}; got {value!r}" + (f"; {advice}" if advice else ""))
