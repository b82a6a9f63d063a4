"""Names and specs: looked up, configured, written down, refused; and plugins that are found only when they are needed."""

from __future__ import annotations

import copy
import json
import pickle
import tomllib
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import infoplace
from infoplace import registry as registry_module
from infoplace.errors import DeclarationError, PluginError, UnknownNameError
from infoplace.registry import Configurable, Registry, Specified, plain


class Toy(Configurable):
    """What the tests register kinds of."""


class Shuffle(Toy):
    """Shuffles things.

    More of it.
    """

    n: int = 8
    dims: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or self.n < 1:
            raise DeclarationError(f"shuffle: n must be a positive integer; got {self.n!r}")
        if self.dims > 3:
            raise DeclarationError(f"dims is at most 3; got {self.dims}")


class Resize(Toy):
    """Changes sizes."""

    size: tuple[int, ...]
    inner: Toy | None = None

    def __post_init__(self) -> None:
        self._set("size", tuple(self.size))


class Plain(Toy):
    """Takes nothing."""


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Registry[Toy]:
    for item in (Shuffle, Resize, Plain):
        monkeypatch.setattr(item, "spec_name", None)
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [])
    monkeypatch.delenv("INFOPLACE_DISABLE_PLUGINS", raising=False)
    toys: Registry[Toy] = Registry("toy", Toy, "infoplace.toys")
    toys.register("shuffle", Shuffle)
    toys.register("resize", Resize)
    toys.register("plain", Plain)
    return toys


def message(call: Callable[[], Any], error: type[Exception] = DeclarationError) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


# ---- registering implementations ------------------------------------------------------------------------------------


def test_a_class_is_registered_by_a_call_and_returned(toys: Registry[Toy]) -> None:
    class Swirl(Toy):
        """Swirls."""

    assert toys.register("swirl", Swirl) is Swirl
    assert toys.get("swirl") is Swirl
    assert toys.make("swirl").to_spec() == {"swirl": {}}


def test_a_name_alone_is_a_decorator(toys: Registry[Toy]) -> None:
    @toys.register("swirl")
    class Swirl(Toy):
        """Swirls."""

    assert isinstance(Swirl, type)
    assert toys.names() == ["plain", "resize", "shuffle", "swirl"]


def test_a_cell_run_twice_replaces_the_class_and_drops_its_preset(toys: Registry[Toy]) -> None:
    def cell(default: int) -> type[Toy]:
        class Swirl(Toy):
            turns: int = default

        return toys.register("swirl", Swirl)

    cell(1)
    toys.register("swirl", turns=5)
    second = cell(2)
    assert toys.get("swirl") is second
    assert toys.make("swirl").to_spec() == {"swirl": {"turns": 2}}


def test_a_taken_name_is_an_error_that_names_both_owners(toys: Registry[Toy]) -> None:
    class Mine(Toy):
        pass

    owner = f"{__name__}.test_a_taken_name_is_an_error_that_names_both_owners.<locals>.Mine"
    assert message(lambda: toys.register("shuffle", Mine)) == (
        f"the toy name 'shuffle' belongs to {__name__}.Shuffle, and {owner} asks for it too; choose another name, "
        "or pass overwrite=True to replace it"
    )
    assert toys.get("shuffle") is Shuffle
    toys.register("shuffle", Mine, overwrite=True)
    assert toys.get("shuffle") is Mine


def test_an_alias_is_a_taken_name_too(toys: Registry[Toy]) -> None:
    class Mine(Toy):
        pass

    toys.register("shuffle", n=2, alias="tiny")
    assert "the toy name 'tiny' belongs to an alias of 'shuffle'" in message(lambda: toys.register("tiny", Mine))
    toys.register("tiny", Mine, overwrite=True)
    assert toys.make("tiny") == Mine()


@pytest.mark.parametrize("name", ["patch-shuffle", "", "8x8", "a b", 8, Shuffle])
def test_a_bad_name_is_refused(toys: Registry[Toy], name: Any) -> None:
    expected = f"a toy's name must be letters, digits and underscores, as in 'patch_shuffle'; got {name!r}"
    assert message(lambda: toys.register(name, Shuffle)) == expected
    assert message(lambda: toys.register(name)) == expected
    assert message(lambda: toys.register("shuffle", n=2, alias=name)) == expected


@pytest.mark.parametrize("implementation", [int, 3, len, Shuffle()])
def test_something_that_is_no_class_of_the_kind_is_refused(toys: Registry[Toy], implementation: Any) -> None:
    assert message(lambda: toys.register("swirl", implementation)) == (
        f"register_toy('swirl', ...) needs a class derived from infoplace.Toy; got {implementation!r}"
    )


def test_an_implementation_and_parameters_at_once_are_refused_with_the_two_calls(toys: Registry[Toy]) -> None:
    text = message(lambda: toys.register("mix", Shuffle, n=np.arange(2)))
    assert text == (
        "register_toy('mix', ...) got an implementation and parameters at once; register the implementation first, "
        "then configure it: register_toy('mix', n=array([0, 1]))"
    )


def test_an_init_of_ones_own_is_refused_with_right_code(toys: Registry[Toy]) -> None:
    def define() -> None:
        class Wrong(Toy):
            def __init__(self, n: int = 8) -> None:
                pass

    text = message(define)
    assert text.startswith("Wrong defines __init__, but its parameters are class fields. Instead of\n")
    assert "    def __init__(self, n=8): self.n = n\n" in text
    assert "    n: int = 8\n" in text


# ---- configuring ----------------------------------------------------------------------------------------------------


def test_parameters_become_what_the_bare_name_means(toys: Registry[Toy]) -> None:
    assert toys.register("shuffle", n=4) == Shuffle(n=4)
    assert toys.make("shuffle") == Shuffle(n=4)
    assert toys.make("shuffle", dims=1) == Shuffle(n=4, dims=1)


def test_configuring_again_replaces_the_preset_and_adds_nothing_to_it(toys: Registry[Toy]) -> None:
    toys.register("shuffle", n=4)
    toys.register("shuffle", dims=1)
    assert toys.make("shuffle") == Shuffle(n=8, dims=1)


@pytest.mark.parametrize("spec", [{"shuffle": {}}, {"shuffle": None}, {"shuffle": {"dims": 2}}])
def test_a_preset_never_leaks_into_a_dict(toys: Registry[Toy], spec: Any) -> None:
    toys.register("shuffle", n=4)
    assert toys.make(spec) == Shuffle(n=8)


def test_a_preset_never_leaks_into_a_saved_spec(toys: Registry[Toy]) -> None:
    toys.register("shuffle", n=4)
    saved = toys.make("shuffle").to_spec()
    toys.register("shuffle", n=2)
    assert toys.make(saved) == Shuffle(n=4)


def test_an_alias_keeps_both(toys: Registry[Toy]) -> None:
    assert toys.register("shuffle", n=2, alias="tiny") == Shuffle(n=2)
    assert toys.make("tiny") == Shuffle(n=2)
    assert toys.make("shuffle") == Shuffle(n=8)
    assert toys.make("tiny").to_spec() == {"shuffle": {"n": 2, "dims": 2}}
    assert "tiny" in toys.names()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [({"tiny": None}, (2, 2)), ({"tiny": {}}, (2, 2)), ({"tiny": {"dims": 1}}, (2, 1)), ({"tiny": {"n": 3}}, (3, 2))],
)
def test_an_alias_means_its_parameters_in_a_dict_too(toys: Registry[Toy], spec: Any, expected: tuple[int, int]) -> None:
    toys.register("shuffle", n=2, alias="tiny")
    n, dims = expected
    assert toys.make(spec) == Shuffle(n=n, dims=dims)


def test_an_alias_without_parameters_keeps_what_the_name_means_now(toys: Registry[Toy]) -> None:
    toys.register("shuffle", n=4)
    toys.register("shuffle", alias="four")
    toys.register("shuffle", n=2)
    assert toys.make("four") == Shuffle(n=4)


def test_an_alias_is_set_again_and_configured_by_its_own_name(toys: Registry[Toy]) -> None:
    toys.register("shuffle", n=2, alias="tiny")
    toys.register("shuffle", n=3, alias="tiny")
    assert toys.make("tiny") == Shuffle(n=3)
    toys.register("tiny", dims=1)
    assert toys.make("tiny") == Shuffle(n=3, dims=1)
    assert toys.make("shuffle") == Shuffle()


def test_an_alias_never_takes_the_name_of_an_implementation(toys: Registry[Toy]) -> None:
    for overwrite in (False, True):
        text = message(lambda overwrite=overwrite: toys.register("shuffle", n=2, alias="plain", overwrite=overwrite))
        assert text == (f"the alias 'plain' is a toy already, from {__name__}.Plain; choose another name")
    assert toys.make("plain") == Plain()


def test_an_alias_of_another_name_is_replaced_only_when_asked(toys: Registry[Toy]) -> None:
    toys.register("shuffle", n=2, alias="tiny")
    text = message(lambda: toys.register("resize", size=(1,), alias="tiny"))
    assert text == (
        "the alias 'tiny' means 'shuffle' already, and 'resize' asks for it too; choose another name, or pass "
        "overwrite=True to replace it"
    )
    toys.register("resize", size=(1,), alias="tiny", overwrite=True)
    assert toys.make("tiny") == Resize(size=(1,))


def test_refused_parameters_change_no_preset(toys: Registry[Toy]) -> None:
    toys.register("shuffle", n=4)
    assert message(lambda: toys.register("shuffle", n=0)) == "shuffle: n must be a positive integer; got 0"
    assert toys.make("shuffle") == Shuffle(n=4)


# ---- specs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("shuffle", Shuffle()),
        ({"shuffle": {"n": 3}}, Shuffle(n=3)),
        ({"shuffle": {}}, Shuffle()),
        ({"shuffle": None}, Shuffle()),
        (Shuffle(n=3), Shuffle(n=3)),
        ({"resize": {"size": [1, 2]}}, Resize(size=(1, 2))),
    ],
)
def test_what_a_spec_means(toys: Registry[Toy], spec: Any, expected: Toy) -> None:
    assert toys.make(spec) == expected


def test_more_parameters_win_over_the_specs(toys: Registry[Toy]) -> None:
    assert toys.make({"shuffle": {"n": 3, "dims": 1}}, n=5) == Shuffle(n=5, dims=1)


def test_an_object_is_returned_as_it_is_and_takes_no_more_parameters(toys: Registry[Toy]) -> None:
    made = Shuffle(n=3)
    assert toys.make(made) is made
    assert message(lambda: toys.make(made, n=4)) == (
        "Shuffle(n=3, dims=2) is configured already; give its name to change n=4"
    )


@pytest.mark.parametrize(
    "spec", [None, 8, {}, {"shuffle": {}, "plain": {}}, {"shuffle": 8}, ["shuffle"], {8: {}}, Shuffle]
)
def test_a_spec_of_another_form_is_refused(toys: Registry[Toy], spec: Any) -> None:
    assert message(lambda: toys.make(spec)) == (
        f"a toy is written as a name or as {{name: {{parameter: value}}}}; got {spec!r}"
    )


def test_an_unknown_name_says_what_was_meant_and_what_there_is(toys: Registry[Toy]) -> None:
    toys.register("shuffle", n=2, alias="tiny")
    assert message(lambda: toys.make("shufle"), UnknownNameError) == (
        "there is no toy named 'shufle'. Did you mean 'shuffle'? Known: plain, resize, shuffle, tiny"
    )
    for ask in (toys.get, toys.describe, lambda name: toys.register(name, n=2)):
        assert "there is no toy named 'zzz'. Known:" in message(lambda ask=ask: ask("zzz"), UnknownNameError)
    empty: Registry[Toy] = Registry("toy", Toy, "infoplace.toys")
    assert message(lambda: empty.make("shuffle")) == "there is no toy named 'shuffle'. Known: (none)"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"shuffle": {"dim": 1}}, "shuffle has no parameter 'dim'. Did you mean 'dims'? It takes: n, dims"),
        ({"shuffle": {"colour": 1}}, "shuffle has no parameter 'colour'. It takes: n, dims"),
        ({"plain": {"n": 1}}, "plain has no parameter 'n'. It takes: no parameters"),
        ({"shuffle": {3: 1}}, "shuffle has no parameter '3'. It takes: n, dims"),
        ("resize", "resize needs 'size': resize(size=...)"),
        ({"resize": {"inner": None}}, "resize needs 'size': resize(size=...)"),
        ({"shuffle": {"n": 0}}, "shuffle: n must be a positive integer; got 0"),
        ({"shuffle": {"dims": 4}}, "shuffle: dims is at most 3; got 4"),
    ],
)
def test_parameters_that_cannot_be(toys: Registry[Toy], spec: Any, expected: str) -> None:
    assert message(lambda: toys.make(spec)) == expected


def test_an_aliass_errors_speak_of_the_registered_name(toys: Registry[Toy]) -> None:
    toys.register("shuffle", n=2, alias="tiny")
    assert message(lambda: toys.make("tiny", m=1)).startswith("shuffle has no parameter 'm'.")


OBJECTS = [
    lambda: Shuffle(),
    lambda: Shuffle(n=3, dims=1),
    lambda: Resize(size=[4, 5]),
    lambda: Resize(size=(4,)),
    lambda: Plain(),
]


@pytest.mark.parametrize("make", OBJECTS)
def test_every_object_comes_back_from_its_spec_equal(toys: Registry[Toy], make: Callable[[], Toy]) -> None:
    thing = make()
    for spec in (
        thing.to_spec(),
        json.loads(json.dumps(thing.to_spec())),
        yaml.safe_load(yaml.safe_dump(thing.to_spec())),
    ):
        again = toys.make(spec)
        assert again == thing
        assert hash(again) == hash(thing)
        assert repr(again) == repr(thing)
    for other in (copy.deepcopy(thing), pickle.loads(pickle.dumps(thing)), make()):
        assert other == thing
        assert hash(other) == hash(thing)


def test_an_object_inside_an_object_is_written_as_its_spec(toys: Registry[Toy]) -> None:
    outer = Resize(size=(4,), inner=Shuffle(n=2))
    assert outer.to_spec() == {"resize": {"size": [4], "inner": {"shuffle": {"n": 2, "dims": 2}}}}
    assert toys.make(outer.to_spec()) == outer


def test_objects_that_differ_are_not_equal(toys: Registry[Toy]) -> None:
    made = [make() for make in OBJECTS]
    assert len({*made}) == len(made)
    assert Shuffle() != "shuffle"
    assert Shuffle() != {"shuffle": {"n": 8, "dims": 2}}


def test_a_class_without_a_name_has_no_spec_and_is_equal_to_itself_only() -> None:
    class Nameless(Toy):
        n: int = 1

    thing = Nameless()
    assert message(thing.to_spec) == (
        "Nameless is registered under no name, so it has no spec; register the class first"
    )
    assert thing == thing
    assert thing != Nameless()
    assert isinstance(hash(thing), int)
    assert repr(thing) == "Nameless(n=1)"


def test_a_subclass_does_not_pass_for_its_registered_parent(toys: Registry[Toy]) -> None:
    class Other(Shuffle):
        """Does something else with the same parameters."""

    assert Other() != Shuffle()
    assert "Other is registered under no name" in message(Other().to_spec)
    toys.register("other", Other)
    assert Other(n=3).to_spec() == {"other": {"n": 3, "dims": 2}}
    assert Shuffle(n=3).to_spec() == {"shuffle": {"n": 3, "dims": 2}}


def test_a_configured_object_is_frozen(toys: Registry[Toy]) -> None:
    with pytest.raises(AttributeError, match="cannot assign to field 'n'"):
        Shuffle().n = 3


def test_a_specified_class_with_an_init_of_its_own_has_a_spec_too() -> None:
    class Weighted(Specified):
        def __init__(self, weight: float, *, names: tuple[str, ...] = (), **others: Any) -> None:
            self.weight, self.names = weight, names

    kinds: Registry[Weighted] = Registry("weight", Weighted, "infoplace.weights")
    kinds.register("weighted", Weighted)
    made = kinds.make({"weighted": {"weight": 2.0}}, names=("z",))
    assert made.to_spec() == {"weighted": {"weight": 2.0, "names": ["z"]}}
    assert kinds.make(made.to_spec()) == made


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        ("text", "text"),
        ((1, (2, "a")), [1, [2, "a"]]),
        ({1: (2,)}, {"1": [2]}),
        (np.float64(0.5), 0.5),
    ],
)
def test_plain_values_can_be_written_to_any_file(value: Any, expected: Any) -> None:
    result = plain(value)
    assert result == expected
    assert type(result) is type(expected)
    assert yaml.safe_load(yaml.safe_dump(result)) == json.loads(json.dumps(result)) == expected


@pytest.mark.parametrize("value", [len, np.zeros(2), {1, 2}, [object()], {"a": b"bytes"}])
def test_what_cannot_be_written_is_refused_with_its_place(value: Any) -> None:
    inner = value[0] if isinstance(value, list) else value["a"] if isinstance(value, dict) else value
    assert message(lambda: plain(value, "shuffle.n")) == (
        f"shuffle.n holds a {type(inner).__name__}, which cannot be written to a file; "
        "use numbers, strings, booleans, lists, dicts or named specs"
    )


def test_the_spec_of_an_object_says_which_parameter_cannot_be_written(toys: Registry[Toy]) -> None:
    assert message(Resize(size=(1,), inner=len).to_spec).startswith("resize.inner holds a builtin_function_or_method")


# ---- describing -----------------------------------------------------------------------------------------------------


def test_a_description_can_be_read(toys: Registry[Toy]) -> None:
    assert str(toys.describe("shuffle")) == (
        f"shuffle (toy): Shuffles things.\n  parameter n: int = 8\n  parameter dims: int = 2\n  from {__name__}.Shuffle"
    )
    assert str(toys.describe("resize")).splitlines()[1:3] == [
        "  parameter size: tuple[int, ...]",
        "  parameter inner: Toy | None = None",
    ]
    assert str(toys.describe("plain")) == f"plain (toy): Takes nothing.\n  from {__name__}.Plain"


def test_a_description_shows_the_preset(toys: Registry[Toy]) -> None:
    toys.register("shuffle", n=4)
    toys.register("shuffle", n=2, alias="tiny")
    assert toys.describe("shuffle").parameters["n"] == "n: int = 4"
    assert toys.describe("tiny").parameters == {"n": "n: int = 2", "dims": "dims: int = 2"}
    assert toys.describe("tiny").owner == f"{__name__}.Shuffle"


# ---- plugins --------------------------------------------------------------------------------------------------------


class Distribution:
    def __init__(self, name: str, version: str) -> None:
        self.name, self.version = name, version


class EntryPoint:
    """As much of importlib's as the registry uses; it counts how often it is loaded."""

    def __init__(self, name: str, result: Any, distribution: str | None = "swirls") -> None:
        self.name, self.result, self.value = name, result, f"{name}_package:Class"
        self.dist = Distribution(distribution, "1.2") if distribution else None
        self.loads = 0

    def load(self) -> Any:
        self.loads += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Installed:
    """The entry points of the environment; it notes when it is asked for them."""

    def __init__(self, *entry_points: EntryPoint) -> None:
        self.entry_points = list(entry_points)
        self.scans: list[str] = []

    def __call__(self, *, group: str) -> list[EntryPoint]:
        self.scans.append(group)
        return self.entry_points


def make_swirl() -> type[Toy]:
    class Swirl(Toy):
        """Swirls."""

        turns: int = 1

    return Swirl


@pytest.fixture
def install(toys: Registry[Toy], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Installed]:
    def install(*entry_points: EntryPoint) -> Installed:
        installed = Installed(*entry_points)
        monkeypatch.setattr(registry_module.metadata, "entry_points", installed)
        return installed

    return install


def test_hints_name_the_package_that_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFOPLACE_DISABLE_PLUGINS", "1")
    text = message(lambda: Registry("transform", Toy, "infoplace.transforms").get("phase_scrambel"), UnknownNameError)
    assert (
        "'phase_scramble' is in infoplace-spectral, which is not installed; type: pip install infoplace-spectral."
        in text
    )
    assert "pip install" not in message(lambda: Registry("prior", Toy, "infoplace.priors").get("phase_scramble"))


def test_the_packages_have_the_names_that_hints_say() -> None:
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for file in sorted((Path(__file__).parent.parent / "plugins").glob("*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        for group, points in project.get("entry-points", {}).items():
            found.setdefault(group, {})[project["name"]] = tuple(sorted(points))
    assert {group: dict(packages) for group, packages in registry_module.FIRST_PARTY.items()} == found


def test_the_package_has_the_names_that_it_is_said_to_have() -> None:
    for group, names in registry_module.BUILT_IN.items():
        kind = group.removeprefix("infoplace.").removesuffix("s")
        describe = getattr(infoplace, f"describe_{kind}")
        own = [name for name in getattr(infoplace, f"list_{kind}s")() if describe(name).owner.startswith("infoplace.")]
        assert own == list(names)


def test_entry_points_are_scanned_on_the_first_miss_and_only_once(
    toys: Registry[Toy], install: Callable[..., Installed]
) -> None:
    installed = install(EntryPoint("swirl", make_swirl()))
    Registry("toy", Toy, "infoplace.toys")
    toys.register("shuffle", n=2, alias="tiny")
    for name in ("shuffle", "tiny", "plain"):
        toys.make(name)
        toys.describe(name)
    assert installed.scans == []
    toys.make("swirl")
    with pytest.raises(UnknownNameError):
        toys.make("zzz")
    toys.names()
    assert installed.scans == ["infoplace.toys"]


def test_only_the_plugin_that_is_asked_for_is_loaded(toys: Registry[Toy], install: Callable[..., Installed]) -> None:
    swirl, other = EntryPoint("swirl", make_swirl()), EntryPoint("other", make_swirl())
    install(swirl, other)
    made = toys.make("swirl", turns=3)
    assert made.to_spec() == {"swirl": {"turns": 3}}
    assert toys.make({"swirl": {"turns": 3}}) == made
    assert (swirl.loads, other.loads) == (1, 0)
    assert str(toys.describe("swirl")).endswith("from swirls 1.2")
    assert toys.register("swirl", turns=5) == toys.make("swirl")


def test_an_unknown_name_is_compared_with_plugins_that_stay_unloaded(
    toys: Registry[Toy], install: Callable[..., Installed]
) -> None:
    swirl = EntryPoint("swirl", make_swirl())
    install(swirl)
    text = message(lambda: toys.make("swirrl"), UnknownNameError)
    assert text == "there is no toy named 'swirrl'. Did you mean 'swirl'? Known: plain, resize, shuffle, swirl"
    assert swirl.loads == 0


def test_a_plugin_may_register_itself_while_it_is_loaded(
    toys: Registry[Toy], install: Callable[..., Installed]
) -> None:
    class Late(EntryPoint):
        def load(self) -> Any:
            return toys.register("swirl", super().load())

    install(Late("swirl", make_swirl()))
    assert toys.make("swirl").to_spec() == {"swirl": {"turns": 1}}
    assert toys.describe("swirl").owner == "swirls 1.2"


def test_the_session_comes_before_the_plugins(toys: Registry[Toy], install: Callable[..., Installed]) -> None:
    swirl = EntryPoint("swirl", make_swirl())
    install(swirl)
    mine = toys.register("swirl", make_swirl())
    assert toys.get("swirl") is mine
    assert "swirl" in toys.names()
    assert swirl.loads == 0


def test_a_broken_plugin_warns_in_a_listing(toys: Registry[Toy], install: Callable[..., Installed]) -> None:
    install(EntryPoint("broken", ImportError("no module named 'cupy'")), EntryPoint("swirl", make_swirl()))
    with pytest.warns(UserWarning, match="left out of the list") as caught:
        assert toys.names() == ["plain", "resize", "shuffle", "swirl"]
    assert [str(each.message) for each in caught] == [
        "left out of the list: the toy 'broken' of swirls 1.2 fails to load: no module named 'cupy'"
    ]


@pytest.mark.parametrize(
    "error", [ImportError("no module named 'cupy'"), AttributeError("no Swirl"), RuntimeError("!")]
)
def test_a_broken_plugin_raises_with_its_own_error_chained_when_asked_for(
    toys: Registry[Toy], install: Callable[..., Installed], error: Exception
) -> None:
    install(EntryPoint("broken", error, distribution=None))
    with pytest.raises(PluginError) as caught:
        toys.make("broken")
    assert str(caught.value) == f"the toy 'broken' of broken_package:Class fails to load: {error}"
    assert caught.value.__cause__ is error
    assert toys.make("shuffle") == Shuffle()


def test_two_plugins_that_claim_one_name_are_both_named(toys: Registry[Toy], install: Callable[..., Installed]) -> None:
    first, second = EntryPoint("swirl", make_swirl()), EntryPoint("swirl", make_swirl(), distribution="eddies")
    install(first, second)
    expected = "the toy name 'swirl' is claimed by swirls 1.2 and eddies 1.2; uninstall one of them"
    assert message(lambda: toys.make("swirl"), PluginError) == expected
    with pytest.warns(UserWarning, match=expected):
        assert "swirl" not in toys.names()
    assert (first.loads, second.loads) == (0, 0)


@pytest.mark.parametrize("result", [int, len, Shuffle()])
def test_a_plugin_of_another_kind_is_refused(
    toys: Registry[Toy], install: Callable[..., Installed], result: Any
) -> None:
    install(EntryPoint("swirl", result))
    assert message(lambda: toys.make("swirl"), PluginError) == (
        f"the toy 'swirl' of swirls 1.2 is {result!r}, not a class derived from infoplace.Toy"
    )


@pytest.mark.parametrize(("value", "found"), [("1", False), ("yes", False), ("", True), ("0", True)])
def test_plugins_can_be_disabled(
    toys: Registry[Toy], install: Callable[..., Installed], monkeypatch: pytest.MonkeyPatch, value: str, found: bool
) -> None:
    installed = install(EntryPoint("swirl", make_swirl()))
    monkeypatch.setenv("INFOPLACE_DISABLE_PLUGINS", value)
    assert ("swirl" in toys.names()) is found
    assert bool(installed.scans) is found


def test_installed_packages_are_scanned_for_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    # One real distribution on the path: what importlib finds is what the registry works with.
    folder = tmp_path / "swirl_plugin-0.3.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: swirl-plugin\nVersion: 0.3\n")
    (folder / "entry_points.txt").write_text("[infoplace.toys]\nswirl = swirl_plugin_module:Swirl\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("INFOPLACE_DISABLE_PLUGINS", raising=False)
    toys: Registry[Toy] = Registry("toy", Toy, "infoplace.toys")
    text = message(lambda: toys.make("swirl"), PluginError)
    assert text == "the toy 'swirl' of swirl-plugin 0.3 fails to load: No module named 'swirl_plugin_module'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert toys.names() == []
