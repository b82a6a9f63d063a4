"""What the errors promise to those who catch them, and the sentences that the messages share."""

from __future__ import annotations

import pickle

import pytest
from pyro import poutine

from infoplace import errors
from infoplace.errors import InfoplaceError, check_keys, did_you_mean, join_names

CLASSES = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, InfoplaceError)]


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("UnknownNameError", LookupError),
        ("RunFolderError", OSError),
        ("TrainingError", ArithmeticError),
        ("PluginError", ImportError),
    ],
)
def test_each_error_is_also_the_builtin_that_people_catch(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), builtin)


def test_pyro_leaves_their_sentence_alone() -> None:
    """Pyro's trace appends its shapes to a ValueError or a RuntimeError that comes from a model."""

    def model() -> None:
        raise errors.DataError("x has the wrong shape")

    with pytest.raises(errors.DataError) as caught:
        poutine.trace(model).get_trace()
    assert str(caught.value) == "x has the wrong shape"
    assert not any(issubclass(error, (ValueError, RuntimeError)) for error in CLASSES)


@pytest.mark.parametrize("error", CLASSES, ids=[error.__name__ for error in CLASSES])
def test_an_error_is_public_says_what_it_was_given_and_survives_pickling(error: type[InfoplaceError]) -> None:
    assert error.__name__ in errors.__all__
    assert error.__doc__
    assert str(error("n must be positive")) == "n must be positive"
    again = pickle.loads(pickle.dumps(error("n must be positive")))
    assert type(again) is error
    assert str(again) == "n must be positive"


def test_names_are_quoted_and_joined() -> None:
    assert join_names(["x", "x_hat"]) == "'x', 'x_hat'"
    assert join_names([]) == "(none)"


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("patchshuffle", ["patch_shuffle", "blur"], " Did you mean 'patch_shuffle'?"),
        ("z_L", ["z_l", "x"], " Did you mean 'z_l'?"),
        ("swirl", ["patch_shuffle", "blur"], ""),
        (7, ["blur"], ""),
        ("blur", [], ""),
    ],
)
def test_did_you_mean_names_the_closest_or_nothing(name: object, options: list[str], expected: str) -> None:
    assert did_you_mean(name, options) == expected


def test_check_keys_names_the_place_the_key_and_what_there_is() -> None:
    check_keys({}, ["dim"], "blocks.z")
    with pytest.raises(errors.DeclarationError) as caught:
        check_keys({"dim": 2, "piror": "mixture"}, iter(["dim", "prior"]), "blocks.z")
    assert str(caught.value) == "blocks.z has no 'piror'. Did you mean 'prior'? It takes: dim, prior"
