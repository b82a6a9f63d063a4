"""Eight routes to information placement on one set of images, in one table of kept and crossed.

python benchmarks/routes.py --tune                     # everything: tune, train, measure, draw, write the results
python benchmarks/routes.py --only explicit ladder     # some of it; several such commands can run side by side
python benchmarks/routes.py --only                     # nothing new: gather what is there

The routes are `explicit` (blocks and an auxiliary observation, as in experiment 1), `beta_vae`, `beta_tcvae`, `factor_vae`,
`hfvae`, `ladder`, `pixelcnn` and `clamped`. All have the same images, likelihood, prior, number of latent dimensions, steps,
batch size, optimiser and schedule, and networks of about one size. A route, strength and seed is one folder under --runs;
what is there already is not trained again, and a training that was cut short goes on (that of `clamped` starts anew). With
--tune, every route's strength is chosen at seed 0 among as many values, by what validation images say; later commands take
the choice that is there. Results go to `routes.json` and `routes.png` in --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import results_file
import torch
from infoplace_routes import clamped_batches, varying
from torch import Tensor

import infoplace as ip
from infoplace import files, plots, training
from infoplace.data import ImageData, load
from infoplace.errors import DataError, TrainingError, did_you_mean, join_names
from infoplace.evaluation import encodings
from infoplace.figures import decoder_of
from infoplace.metrics import accuracy, chance, normalised, squared_correlation, swap
from infoplace.modes import evaluating
from infoplace.pair import resolve_device, seeded
from infoplace.probes import Predictor, fit_probes, predictor_for

COMMAND = "python benchmarks/routes.py"
GLOBAL, LOCAL = 32, 12
"""Dimensions of the two blocks; a route with one block has as many as both together."""
LEARNING_RATE = 4e-3
PROBED = 10_000
"""Training images that the assignment of dimensions and blocks reads: half to fit the probes, half to score them."""
FACTORS = {"digit": "digit", "colour": "ground"}
"""What a set of dimensions is to carry, and the factor of the data that says whether it does."""
SCORES = ("digit_kept", "digit_crossed", "colour_kept", "colour_crossed")
WAYS = {"": "prior", "_other_image": "other image"}
"""The ending of a score's name, and what the changed set is replaced with."""
PAIRS = 3

Sets = dict[str, dict[str, list[int]]]
"""``{"digit": {block: its dimensions}, "colour": ...}``: every dimension of every block in one of the two."""


@dataclasses.dataclass(frozen=True)
class Route:
    """One row of the table: what places the information, and the one strength that is tuned."""

    name: str
    places: str
    partition: Mapping[str, Any]
    strength: str
    values: tuple[float, ...]
    objective: Callable[[float, int], dict[str, Any]]
    """The objective's spec, of a strength and the number of training images."""
    networks: str = "small"
    carriers: Mapping[str, str] | None = None
    """The declared block of the digit and of the colour; None where training images have to say it."""


def _blocks(**dims: int) -> dict[str, Any]:
    return {"blocks": {name: {"dim": dim} for name, dim in dims.items()}, "observations": {"x": {}}}


ONE = _blocks(z=GLOBAL + LOCAL)
DECLARED = {"digit": "z_g", "colour": "z_l"}
EXPLICIT = {
    "blocks": {"z_g": {"dim": GLOBAL}, "z_l": {"dim": LOCAL}},
    "observations": {
        "x": {"blocks": ["z_g", "z_l"]},
        "x_hat": {"blocks": ["z_l"], "transform": {"patch_shuffle": {"n": 4}}, "redraw": True},
    },
}
BETAS, CORRELATIONS = (1.0, 5.0, 20.0), (5.0, 20.0, 80.0)
"""The strengths that are tried: of the KL, and of a total correlation."""


def _beta_elbo(beta: float, images: int) -> dict[str, Any]:
    return {"beta_elbo": {"beta": beta}}


def _factor_vae(gamma: float, images: int) -> dict[str, Any]:
    return {"factor_vae": {"dims": GLOBAL + LOCAL, "gamma": gamma, "width": 256, "layers": 4}}


ROUTES = {
    route.name: route
    for route in (
        Route("explicit", "an auxiliary observation", EXPLICIT, "beta", BETAS, _beta_elbo, carriers=DECLARED),
        Route("beta_vae", "the weight of the KL", ONE, "beta", BETAS, _beta_elbo),
        Route(
            "beta_tcvae", "the total correlation of the dimensions", ONE, "beta", CORRELATIONS,
            lambda beta, images: {"beta_tcvae": {"dataset_size": images, "beta": beta}},
        ),
        Route("factor_vae", "the same, by a discriminator", ONE, "gamma", CORRELATIONS, _factor_vae),
        Route(
            "hfvae", "the total correlation of two blocks", _blocks(z_1=GLOBAL, z_2=LOCAL), "beta", CORRELATIONS,
            lambda beta, images: {"hfvae": {"dataset_size": images, "beta": beta}},
        ),
        Route(
            "ladder", "the depth of the way to a block", _blocks(shallow=LOCAL, deep=GLOBAL), "beta", BETAS, _beta_elbo,
            networks="ladder",
        ),
        Route("pixelcnn", "what the decoder keeps for itself", ONE, "beta", BETAS, _beta_elbo, networks="pixelcnn"),
        Route(
            "clamped", "batches in which known factors are held", _blocks(z_g=GLOBAL, z_l=LOCAL), "beta", BETAS,
            _beta_elbo, networks="clamped", carriers=DECLARED,
        ),
    )
}  # fmt: skip
TOLD = "clamped"
"""The route that is told the factors of the training images."""
GROUPS = {"z_g": ("digit", "left", "right"), "z_l": ("ground", "ink")}
"""What it is told to hold and to vary, as far as the data have it."""


@dataclasses.dataclass(frozen=True)
class Material:
    """The images of one comparison and what reads them, the same for every route."""

    train: ImageData
    test: ImageData
    predictors: Mapping[str, Predictor]
    fingerprint: str


def varies(data: ImageData, factor: str) -> bool:
    """Whether the data have a factor, with more than one value."""
    return factor in data.factors and bool((data.factors[factor] != data.factors[factor][:1]).any())


def material(options: argparse.Namespace) -> Material:
    """Load the data and train, or find, the predictors."""
    train = load(options.data, "train", limit=options.train_images)
    test = load(options.data, "test", limit=options.images)
    for factor in FACTORS.values():
        if not varies(train, factor):
            raise DataError(
                f"{options.data} has no factor {factor!r} that varies, and the table is of {join_names(FACTORS.values())}; "
                "choose data that have both, such as --data street_numbers/easy"
            )
    if len(train) < options.batch:
        raise DataError(
            f"a batch takes {options.batch} images and there are {len(train)} to train on; choose a smaller --batch"
        )
    fingerprint = hashlib.sha256(train.images.numpy().tobytes()).hexdigest()[:16]
    return Material(train, test, predictors_of(train, options), fingerprint)


def predictors_of(train: ImageData, options: argparse.Namespace) -> dict[str, Predictor]:
    """What reads the factors off images: experiment 1's, of the same training images."""
    device = str(resolve_device(options.device))
    return {factor: predictor_for(train, factor, seed=0, device=device) for factor in FACTORS.values()}


# ---- training ----------------------------------------------------------------------------------------------------------


def settings_of(
    route: Route, strength: float, seed: int, data: Material, options: argparse.Namespace
) -> dict[str, Any]:
    """All that a trained pair hangs on, as JSON would give it back."""
    settings = {
        "data": options.data,
        "fingerprint": data.fingerprint,
        "train_images": len(data.train),
        "steps": options.steps,
        "batch": options.batch,
        "learning_rate": LEARNING_RATE,
        "route": route.name,
        "partition": ip.Partition.from_dict(route.partition).to_dict(),
        "networks": route.networks,
        "objective": route.objective(strength, len(data.train)),
        "seed": seed,
    }
    return dict(json.loads(json.dumps(settings)))


def folder_of(route: Route, strength: float, seed: int, options: argparse.Namespace) -> Path:
    """Where a run is."""
    return Path(options.runs) / route.name / f"{route.strength}_{strength:g}" / f"seed{seed}"


def read_json(path: Path) -> dict[str, Any]:
    """What such a file holds."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def networks_of(route: Route, options: argparse.Namespace) -> Any:
    """What `make_pair` takes as the route's networks."""
    if route.networks == "clamped":
        # The source's factor is of a loss that is summed over the batch, and here it is the mean.
        return {"clamped": {"invariance": 0.01 / options.batch}}
    return route.networks


def trained(route: Route, strength: float, seed: int, data: Material, options: argparse.Namespace) -> ip.Pair:
    """The route's pair: trained, or as it was left by an earlier command."""
    folder, settings = folder_of(route, strength, seed, options), settings_of(route, strength, seed, data, options)
    results_file.check_settings(folder / "settings.json", settings)
    device, shape = resolve_device(options.device), data.train.shape
    if (folder / "trained.json").is_file():
        return ip.load_pair(folder, device=device)
    print(f"training {route.name}, {route.strength} {strength:g}, seed {seed}: {options.steps} steps", flush=True)
    files.write_json(files.make_folder(folder) / "settings.json", settings)
    with seeded(seed, torch.device("cpu")):
        partition = ip.Partition.from_dict(route.partition)
        pair = ip.make_pair(partition, shape, networks=networks_of(route, options))
        objective = ip.make_objective(settings["objective"])
    plan = ip.Settings(
        steps=options.steps, batch_size=options.batch, learning_rate=LEARNING_RATE, seed=seed, checkpoint_every=500
    )
    started = time.perf_counter()
    if route.networks == "clamped":
        fit_clamped(pair, data.train, objective, plan, device)
        pair.save(folder)
        seconds = time.perf_counter() - started
    else:
        resume = (folder / training.CHECKPOINT).is_file()
        log = ip.fit(
            pair, data.train, objective, plan,
            out=folder, resume=resume, device=options.device, progress=options.progress,
        )  # fmt: skip
        seconds = log[-1]["seconds"]
    files.write_json(folder / "trained.json", {"seconds": round(seconds, 1), "machine": training.machine(device)})
    return pair


def fit_clamped(
    pair: ip.Pair, data: ImageData, objective: ip.Objective, plan: ip.Settings, device: torch.device
) -> None:
    """What `ip.fit` does, over batches in which the factors of one block vary and those of the other are held."""
    groups = {block: [name for name in names if varies(data, name)] for block, names in GROUPS.items()}
    draw = torch.Generator().manual_seed(plan.seed)
    batches = clamped_batches(data.factors, groups, plan.batch_size, generator=draw)
    pair.to(device).train()
    loss_of = objective(pair.model, pair.guide)
    optimiser = torch.optim.AdamW(
        loss_of.parameters(), lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay
    )
    with seeded(plan.seed, device):
        for step in range(plan.steps):
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate_at(step)
            vary, indices, _ = next(batches)
            optimiser.zero_grad()
            with varying(pair, vary):
                loss = loss_of(pair.partition.observe(data.batch(indices).to(device))) / plan.batch_size
                loss.backward()
            optimiser.step()
            if (step + 1) % plan.log_every == 0 and not math.isfinite(float(loss.detach())):
                raise TrainingError(f"the loss is no longer a number at step {step + 1}")
    pair.eval()


# ---- which dimensions are whose ----------------------------------------------------------------------------------------


def readable(columns: Sequence[Tensor], factors: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """How well small probes read every factor off each of some latents, from chance (0) to everything (1).

    Args:
        columns: latents of the same training images, `[N, dim]` each, of one dim. The probes are fitted on every second
            image and scored on the others.
        factors: name -> labels `[N]` or values `[N]` or `[N, channels]` of these images.
    """
    repeated = [column for column in columns for _ in factors]
    targets = [values[0::2] for _ in columns for values in factors.values()]
    probes = fit_probes([c[0::2] for c in repeated], targets, hidden=32, steps=150, batch_size=256)
    predicted = iter(probes.predict([c[1::2] for c in repeated]))
    return [{name: _relative(values[1::2], next(predicted)) for name, values in factors.items()} for _ in columns]


def _relative(true: Tensor, predicted: Tensor) -> float:
    if true.is_floating_point():
        return squared_correlation(true, predicted)
    return normalised(accuracy(true, predicted), 1.0, chance(true))


def assigned_dimensions(latents: Tensor, factors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Each dimension of `[N, dim]` to the factor that is read best from it alone, relative to chance.

    A factor may be left without any: its set is empty, nothing is swapped when it is, and it shows as crossed.
    """
    found: dict[str, list[int]] = {name: [] for name in factors}
    scores = readable([latents[:, [dim]] for dim in range(latents.shape[1])], factors)
    for dim, score in enumerate(scores):
        found[max(score, key=lambda name: score[name])].append(dim)
    return found


def assigned_blocks(latents: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> dict[str, str]:
    """Two blocks to two factors, whichever way round the probes read more."""
    first, second = latents
    one, other = factors
    scores = {block: readable([values], factors)[0] for block, values in latents.items()}
    straight = scores[first][one] + scores[second][other]
    crosswise = scores[first][other] + scores[second][one]
    return {one: first, other: second} if straight >= crosswise else {one: second, other: first}


def sets_of(route: Route, pair: ip.Pair, train: ImageData) -> Sets:
    """Which dimensions are the digit's and which the colour's: as declared, or as training images say.

    The probes read draws from the posteriors, which tell no more of a factor than the decoder is told.
    """
    dims = {name: list(range(block.dim)) for name, block in pair.partition.blocks.items()}
    carriers = route.carriers
    if carriers is None:
        count = min(PROBED, len(train))
        probed = train.subset(torch.arange(count) * len(train) // count)
        latents = {name: values.cpu() for name, values in encodings(pair, probed, samples=True).items()}
        factors = {name: probed.factors[factor] for name, factor in FACTORS.items()}
        if len(dims) == 1:
            ((block, values),) = latents.items()
            return {name: {block: own} for name, own in assigned_dimensions(values, factors).items()}
        carriers = assigned_blocks(latents, factors)
    return {name: {block: dims[block] if block == carriers[name] else [] for block in dims} for name in FACTORS}


# ---- measuring ---------------------------------------------------------------------------------------------------------


def taken(latents: Mapping[str, Tensor], sets: Sets) -> dict[str, Tensor]:
    """The latents by set: ``{"digit": [N, its dimensions], "colour": ...}``."""
    return {
        name: torch.cat([latents[block][:, own] for block, own in parts.items()], 1) for name, parts in sets.items()
    }


def joined(parts: Mapping[str, Tensor], sets: Sets, pair: ip.Pair) -> dict[str, Tensor]:
    """The latents by block again; the other way of :func:`taken`."""
    count = len(next(iter(parts.values())))
    whole = {name: torch.empty(count, block.dim, device=pair.device) for name, block in pair.partition.blocks.items()}
    for name, blocks in sets.items():
        for (block, own), values in zip(
            blocks.items(), parts[name].split([len(own) for own in blocks.values()], 1), strict=True
        ):
            whole[block][:, own] = values
    return whole


def measured(pair: ip.Pair, sets: Sets, data: ImageData, predictors: Mapping[str, Predictor]) -> dict[str, float]:
    """Kept and crossed of digit and colour, as experiment 1 has them, with draws of the prior and with another image's."""
    given = {"ground": "polarity"} if varies(data, "polarity") else {}
    decode = decoder_of(pair, "x")

    def prior(name: str, count: int, generator: torch.Generator | None) -> Tensor:
        # The prior is one normal, so dimensions that go to different sets are independent in it.
        return taken({b: pair.sample_prior(b, count, generator) for b in pair.partition.blocks}, sets)[name]

    with evaluating(pair):
        table = swap(
            taken(encodings(pair, data), sets),
            decode=lambda parts: decode(joined(parts, sets, pair)),
            prior=prior,
            images=data.images,
            factors={name: data.factors[name] for name in (*FACTORS.values(), *given.values())},
            predictors=predictors,
            given=given,
            generator=torch.Generator().manual_seed(0),
        )
    ground = "ground given polarity" if given else "ground"
    found = {f"{name}_reconstructed": float(table.row(factor)["normalised"]) for name, factor in FACTORS.items()}
    for ending, way in WAYS.items():
        values = {
            "digit_kept": table.kept("digit", "digit", way),
            "digit_crossed": table.crossed("digit", "digit", way),
            "colour_kept": table.kept("ground", "colour", way),
            "colour_crossed": table.crossed(ground, "colour", way),
        }
        values["margin"] = min(values[f"{name}_kept"] - values[f"{name}_crossed"] for name in FACTORS)
        found |= {name + ending: value for name, value in values.items()}
    useless = [name for name, value in found.items() if not math.isfinite(value)]
    if useless:
        raise DataError(
            f"{useless[0]} has no value: the predictor reads the {len(data)} real images no better than chance; measure on more "
            "with --images, or let it learn from more with --train-images"
        )
    return found


def checked(
    route: Route, strength: float, seed: int, data: Material, options: argparse.Namespace
) -> tuple[ip.Pair, Sets]:
    """The trained pair and its sets of dimensions, kept beside it."""
    pair = trained(route, strength, seed, data, options)
    path = folder_of(route, strength, seed, options) / "sets.json"
    if not path.is_file():
        files.write_json(path, sets_of(route, pair, data.train))
    return pair, read_json(path)


def run(route: Route, seed: int, data: Material, options: argparse.Namespace) -> None:
    """Train and measure one run, as far as that is not done yet."""
    strength = strength_of(route, data, options)
    folder = folder_of(route, strength, seed, options)
    if result_of(route, seed, data, options) is not None:
        return
    try:
        pair, sets = checked(route, strength, seed, data, options)
    except TrainingError as error:
        print(f"leaving out {route.name}, seed {seed}: {error}", file=sys.stderr, flush=True)
        return
    started = time.perf_counter()
    scores = measured(pair, sets, data.test, data.predictors)
    told = read_json(folder / "trained.json")
    settings = settings_of(route, strength, seed, data, options)
    result = {"images": len(data.test), "strength": strength, "sets": sets, "scores": scores, **told}
    files.write_json(folder / "result.json", {**result, "settings": settings})
    print(f"  margin {scores['margin']:.3f}; measured in {time.perf_counter() - started:.0f} s", flush=True)


# ---- tuning ------------------------------------------------------------------------------------------------------------


def objective_of_tuning(scores: Mapping[str, float]) -> float:
    """What is kept minus what crosses: the rule by which a strength is chosen."""
    return scores["digit_kept"] + scores["colour_kept"] - scores["digit_crossed"] - scores["colour_crossed"]


def tuning_settings(route: Route, data: Material, options: argparse.Namespace) -> dict[str, Any]:
    """What a choice hangs on: everything that a run does but the strength and the seed."""
    settings = settings_of(route, route.values[0], 0, data, options)
    return {key: value for key, value in settings.items() if key not in ("objective", "seed")}


def tuned_file(route: Route, options: argparse.Namespace) -> Path:
    """Where a route's choice is."""
    return Path(options.runs) / route.name / "tuned.json"


def tune(route: Route, data: Material, options: argparse.Namespace) -> None:
    """Train every strength at seed 0 and choose by validation images, where that is not done yet."""
    path, settings = tuned_file(route, options), tuning_settings(route, data, options)
    results_file.check_settings(path, settings)
    if path.is_file():
        return
    validation = load(options.data, "validation", limit=options.images)
    found: dict[float, float] = {}
    for strength in route.values:
        try:
            pair, sets = checked(route, strength, 0, data, options)
        except TrainingError as error:
            print(f"{route.name}, {route.strength} {strength:g}: {error}", file=sys.stderr, flush=True)
            continue
        found[strength] = objective_of_tuning(measured(pair, sets, validation, data.predictors))
    if not found:
        print(f"leaving out {route.name}: no strength could be trained", file=sys.stderr, flush=True)
        return
    best = max(found, key=lambda strength: found[strength])
    scores = {f"{strength:g}": round(score, 4) for strength, score in found.items()}
    files.write_json(path, {"settings": settings, "images": len(validation), "scores": scores, "strength": best})
    print(f"{route.name}: {route.strength} {best:g}, of {scores}", flush=True)


def strength_of(route: Route, data: Material, options: argparse.Namespace) -> float:
    """The strength that was chosen; the middle one of those that can be, where none was."""
    path = tuned_file(route, options)
    results_file.check_settings(path, tuning_settings(route, data, options))
    return float(read_json(path)["strength"]) if path.is_file() else route.values[len(route.values) // 2]


# ---- gathering ---------------------------------------------------------------------------------------------------------


Found = Mapping[str, list[dict[str, Any]]]


def result_of(route: Route, seed: int, data: Material, options: argparse.Namespace) -> dict[str, Any] | None:
    """What a finished run was measured to be on as many images; None where it was not."""
    strength = strength_of(route, data, options)
    folder = folder_of(route, strength, seed, options)
    results_file.check_settings(folder / "settings.json", settings_of(route, strength, seed, data, options))
    if not (folder / "result.json").is_file():
        return None
    result = read_json(folder / "result.json")
    return {**result, "folder": folder, "seed": seed} if result["images"] == len(data.test) else None


def results(data: Material, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The finished runs of each route, in the order of the table."""
    rows = {
        name: [row for seed in range(options.seeds) if (row := result_of(route, seed, data, options)) is not None]
        for name, route in ROUTES.items()
    }
    return {name: found for name, found in rows.items() if found}


def values_of(rows: list[dict[str, Any]], score: str) -> list[float]:
    """A score of every seed."""
    return [float(row["scores"][score]) for row in rows]


def claim(name: str, values: list[float], context: Mapping[str, Any]) -> dict[str, Any]:
    """One number over the seeds."""
    return results_file.claim(name, values, "of what real images give", context={**context, "seeds": len(values)})


def claims(found: Found, data: Material, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every route's scores, and by how much the explicit route's margin leads."""
    context = {
        "data": options.data, "images": len(data.test), "train_images": len(data.train), "steps": options.steps,
        "batch": options.batch,
    }  # fmt: skip
    for name, rows in found.items():
        route = ROUTES[name]
        # A row of the notes' table, as every claim that differs by a change alone.
        own = {"change": f"{name}, {route.strength} {rows[0]['strength']:g}", **context}
        own["tuned"] = tuned_file(route, options).is_file()
        for score in rows[0]["scores"]:
            yield claim(f"{name}_{score}", values_of(rows, score), own)
    for ending in WAYS:
        for rival, which in leaders(found, ending).items():
            ahead = statistics.mean(values_of(found[rival], "margin" + ending))
            values = [value - ahead for value in values_of(found["explicit"], "margin" + ending)]
            yield claim(f"explicit_lead{which}{ending}", values, {**context, "ahead_of": rival})


def leaders(found: Found, ending: str) -> dict[str, str]:
    """Whom the explicit route is held against: ``{route: ending of the claim's name}``."""
    means = {name: statistics.mean(values_of(rows, "margin" + ending)) for name, rows in found.items()}
    if "explicit" not in means:
        return {}
    untold = [name for name in means if name not in ("explicit", TOLD)]
    best = {max(untold, key=lambda name: means[name]): ""} if untold else {}
    return best | ({TOLD: f"_over_{TOLD}"} if TOLD in means else {})


def gather(data: Material, options: argparse.Namespace) -> None:
    """Write the results and the picture from the runs that are finished."""
    found = results(data, options)
    if not found:
        raise SystemExit(f"no finished run in {options.runs}; run {COMMAND} --runs {options.runs}")
    absent = missing(found, options)
    if absent:
        print(f"not measured yet: {', '.join(absent)}", file=sys.stderr)
    draw(found, data, options)
    machine = next(iter(found.values()))[0]["machine"]
    text = notes(found, data, options)
    print(
        results_file.write(
            "routes", command(options), list(claims(found, data, options)), text, machine=machine, folder=options.out
        )
    )


def missing(found: Found, options: argparse.Namespace) -> list[str]:
    """The routes that have fewer finished runs than planned."""
    counts = {name: len(found.get(name, [])) for name in ROUTES}
    return [f"{name} ({count} of {options.seeds} seeds)" for name, count in counts.items() if count < options.seeds]


# ---- pictures and words ------------------------------------------------------------------------------------------------


def pairs_of(data: ImageData) -> tuple[list[int], list[int]]:
    """Images A, and for each an image B of another digit and of the most different ground among some that follow."""
    digits, grounds = data.factors["digit"], data.factors["ground"].reshape(len(data), -1)
    first = [(50 * index) % len(data) for index in range(PAIRS)]
    second = []
    for one in first:
        others = torch.arange(one + 1, one + 50) % len(data)
        far = (grounds[others] - grounds[one]).norm(dim=1) * (digits[others] != digits[one])
        second.append(int(others[far.argmax()]))
    return first, second


@torch.no_grad()
def swapped(pair: ip.Pair, sets: Sets, one: ImageData, other: ImageData) -> tuple[Tensor, Tensor]:
    """Decoded images: digit of the one and colour of the other, and the other way round."""
    parts = [taken(encodings(pair, images), sets) for images in (one, other)]
    decode = decoder_of(pair, "x")
    with evaluating(pair):
        mixed = [
            decode(joined({"digit": digit["digit"], "colour": colour["colour"]}, sets, pair)).cpu()
            for digit, colour in (parts, parts[::-1])
        ]
    return mixed[0], mixed[1]


def draw(found: Found, data: Material, options: argparse.Namespace) -> Path:
    """A row for each route, of its first seed: two test images, and both mixtures of them."""
    from matplotlib.figure import Figure

    first, second = pairs_of(data.test)
    one, other = data.test.subset(first), data.test.subset(second)
    real = [images.images.float() / 255 for images in (one, other)]
    headings = ("A", "B", "digit of A,\ncolour of B", "digit of B,\ncolour of A")
    figure = Figure(figsize=(11, 0.86 * len(found) + 0.5), dpi=110, facecolor="white")
    # A narrow column after each pair keeps the pairs apart.
    across = ([1.0] * len(headings) + [0.25]) * PAIRS
    grid = figure.add_gridspec(
        len(found), len(across), width_ratios=across, left=0.08, right=1, bottom=0.01, top=1 - 0.45 / figure.get_figheight(),
        wspace=0.08, hspace=0.08,
    )  # fmt: skip
    for row, (name, rows) in enumerate(found.items()):
        route = ROUTES[name]
        pair = trained(route, rows[0]["strength"], rows[0]["seed"], data, options)
        columns = [*real, *swapped(pair, rows[0]["sets"], one, other)]
        for index in range(PAIRS * len(headings)):
            which, kind = divmod(index, len(headings))
            panel = figure.add_subplot(grid[row, index + which])
            panel.imshow(plots.image_grid(columns[kind][which : which + 1]), interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if row == 0:
                panel.set_title(headings[kind], fontsize=7)
            if index == 0:
                panel.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    alt = (
        "For every route: two test images A and B, the decoded image with the digit's dimensions of A and the colour's of B, "
        f"and the other way round; {PAIRS} pairs"
    )
    return plots.save(figure, Path(options.out) / "routes.png", alt=alt)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def table(found: Found, ending: str) -> list[str]:
    """All routes in one table, with kept and crossed of both factors."""
    names = [*SCORES, "margin"]
    columns = ["route", "placed by", "strength", "seeds", *(name.replace("_", " ") for name in names)]
    columns += ["digit, colour reconstructed", "dimensions: digit + colour", "seconds"]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for name, route in ROUTES.items():
        rows = found.get(name)
        if rows is None:
            lines.append(f"| {name} | {route.places} | not measured yet |{' |' * (len(columns) - 3)}")
            continue
        counts = {kind: [sum(map(len, row["sets"][kind].values())) for row in rows] for kind in FACTORS}
        dims = ", ".join(f"{one} + {other}" for one, other in dict.fromkeys(zip(*counts.values(), strict=True)))
        cells = [spread(values_of(rows, score + ending)) for score in names]
        cells.append(", ".join(f"{statistics.mean(values_of(rows, f'{kind}_reconstructed')):.2f}" for kind in FACTORS))
        seconds = f"{statistics.mean(row['seconds'] for row in rows):.0f}"
        strength = f"{route.strength} {rows[0]['strength']:g}"
        lines.append(f"| {' | '.join([name, route.places, strength, str(len(rows)), *cells, dims, seconds])} |")
    return lines


def verdict(found: Found, ending: str) -> str:
    """Which route leads by its margin, and whether the explicit one does."""
    margins = {name: values_of(rows, "margin" + ending) for name, rows in found.items()}
    order = sorted(margins, key=lambda name: -statistics.mean(margins[name]))
    listed = ", ".join(f"`{name}` {spread(margins[name])}" for name in order)
    text = f"By the margin, from the largest: {listed}."
    for rival in leaders(found, ending):
        mine, theirs = margins["explicit"], margins[rival]
        gap = statistics.mean(mine) - statistics.mean(theirs)
        leads = "leads" if gap > 0 else "does not lead"
        who = (
            f"`{rival}`, which is told the factors"
            if rival == TOLD
            else f"`{rival}`, the best route that is told nothing"
        )
        text += f" `explicit` {leads} over {who}: {gap:+.2f}"
        if min(len(mine), len(theirs)) > 1:
            clear = "more" if abs(gap) > statistics.stdev(mine) + statistics.stdev(theirs) else "no more"
            text += f", {clear} than both standard deviations together"
        text += "."
    return text


def notes(found: Found, data: Material, options: argparse.Namespace) -> str:
    """What stands below the claims in RESULTS.md."""
    settled = {
        name: read_json(tuned_file(ROUTES[name], options))
        for name in found
        if tuned_file(ROUTES[name], options).is_file()
    }
    tried = "; ".join(
        f"{name} {', '.join(f'{value}: {score:.2f}' for value, score in choice['scores'].items())}"
        for name, choice in settled.items()
    )
    untuned = [name for name in found if name not in settled]
    lines = [
        f"Data: {options.data}; every route learns from the same {len(data.train)} images for {options.steps} steps of "
        f"{options.batch}, with AdamW (peak learning rate {LEARNING_RATE:g}, one cycle), {GLOBAL + LOCAL} latent dimensions with "
        "standard normal priors, also for `explicit` (experiment 1 has a mixture), a discretized logistic likelihood, and "
        "the network `small` or one with about its weights. The discriminator of `factor_vae` (4 layers of 256) and the "
        "second decoder of `explicit` come on top. "
        f"Measured on {len(data.test)} test images; spreads are over seeds. Kept and crossed are those of experiment 1: "
        "posterior means are decoded, a set of dimensions is redrawn from the prior, and predictors of training images read the "
        "result; 0 is chance, 1 what real images give; colour crosses given polarity. The margin is the smaller of kept "
        "minus crossed of the two factors. Seconds are those of the training.",
        "",
        f"Which dimensions are whose: `explicit` and `{TOLD}` declare it. With one block, each dimension goes to the factor that "
        "a probe reads best from it alone, relative to chance; with two blocks whose roles are not known (`hfvae`, `ladder`), "
        "they take the roles in which probes read more. The probes see draws from the posteriors of training images. A set "
        "that is left empty is swapped by changing nothing, so its factor is not kept and crosses. "
        f"`{TOLD}` **is told the factors of the training images** (it holds "
        f"{' and '.join(', '.join(names) for names in GROUPS.values())} in turn), which no other route is.",
        "",
        f"Tuning: every route has one strength with three values ({BETAS[0]:g}, {BETAS[1]:g}, {BETAS[2]:g} for beta of the KL; "
        f"{CORRELATIONS[0]:g}, {CORRELATIONS[1]:g}, {CORRELATIONS[2]:g} for a total correlation), each trained once, at seed 0; "
        "the largest sum of kept minus crossed on validation images chooses, and its run is seed 0 of the table. "
        + (f"What was found: {tried}. " if tried else "")
        + (f"Not tuned, and at the middle value: {', '.join(untuned)}." if untuned else ""),
        "",
    ]  # fmt: skip
    absent = missing(found, options)
    if absent:
        lines += [f"Not measured yet, or with fewer seeds than planned: {', '.join(absent)}.", ""]
    lines += [*table(found, ""), "", verdict(found, ""), ""]
    lines += [
        "The same with the set taken from another test image in place of the prior, which asks nothing of the prior:",
        "",
        *table(found, "_other_image"),
        "",
        verdict(found, "_other_image"),
        "",
        "![For every route: two test images A and B, and the images decoded from the digit's dimensions of one and the colour's "
        "of the other](results/routes.png)",
    ]
    return "\n".join(lines)


# ---- the command -------------------------------------------------------------------------------------------------------


DEFAULTS: dict[str, Any] = {
    "data": "street_numbers/easy", "steps": 1200, "batch": 64, "seeds": 3, "images": 2000, "train_images": None,
}  # fmt: skip


def command(options: argparse.Namespace) -> str:
    """What measures these numbers again."""
    words = [COMMAND]
    for key, default in DEFAULTS.items():
        value = getattr(options, key)
        if value != default:
            words += [f"--{key.replace('_', '-')}", str(value)]
    tuned = any(tuned_file(route, options).is_file() for route in ROUTES.values())
    return " ".join([*words, "--tune"] if tuned else words)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a set of infoplace.data, or a path, with the factors digit and ground")
    parser.add_argument("--steps", type=int, help=f"steps of every route; {DEFAULTS['steps']} if left out")
    parser.add_argument("--batch", type=int, help=f"images a step; {DEFAULTS['batch']} if left out")
    parser.add_argument("--seeds", type=int, help=f"seeds of every route; {DEFAULTS['seeds']} if left out")
    parser.add_argument(
        "--images", type=int, help=f"test (and validation) images to measure on; {DEFAULTS['images']} if left out"
    )
    parser.add_argument(
        "--train-images", type=int, help="training images used, the same for every route; all if left out"
    )
    parser.add_argument("--tune", action="store_true", help="first choose every route's strength, by validation images")
    parser.add_argument("--only", nargs="*", metavar="ROUTE", help=f"some of {', '.join(ROUTES)}; none: gather only")
    parser.add_argument("--runs", type=Path, default=Path("runs/routes"), help="where the runs go")
    parser.add_argument(
        "--out", type=Path, default=results_file.FOLDER, help="the folder for routes.json and routes.png"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--progress", action="store_true", help="show progress bars")
    parser.set_defaults(**DEFAULTS)
    options = parser.parse_args(arguments)
    for key, least in {"steps": 1, "batch": 2, "seeds": 1, "images": 2, "train_images": 2}.items():
        value = getattr(options, key)
        if value is not None and value < least:
            parser.error(f"--{key.replace('_', '-')} must be {least} or more; got {value}")
    for name in options.only or []:
        if name not in ROUTES:
            parser.error(f"there is no route {name!r}; there are {', '.join(ROUTES)}.{did_you_mean(name, ROUTES)}")
    return options


@results_file.plain_errors()
def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for, then gather what is there."""
    options = parsed(arguments)
    chosen = [route for name, route in ROUTES.items() if options.only is None or name in options.only]
    data = material(options)
    if options.tune:
        for route in chosen:
            tune(route, data, options)
    # All first seeds come first, so that a command that is cut short has a bit of everything.
    for seed in range(options.seeds):
        for route in chosen:
            run(route, seed, data, options)
    if not options.only:
        gather(data, options)


if __name__ == "__main__":
    main()
