"""The command line: ``infoplace demo | train | sample | evaluate | report | transforms | plugins | new-plugin``.

Every error of a user's input ends in one sentence on standard error and exit status 2; nothing is half-written.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

import infoplace as ip
from infoplace.errors import DataError, DeclarationError, InfoplaceError, RunFolderError, join_names
from infoplace.files import read_yaml

__all__ = ["app", "main"]

app = typer.Typer(
    name="infoplace",
    help="Decide which latent variable of a generative model carries which information, and prove that it went there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
transforms_app = typer.Typer(
    help="The transforms there are: a table, and a preview of one.", invoke_without_command=True
)
app.add_typer(transforms_app, name="transforms")

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"infoplace {ip.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Decide which latent variable of a generative model carries which information, and prove that it went there."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder for the run, its pictures and its numbers.")] = Path("demo"),
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Seeds the training.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Render street numbers, train the paper's experiment 1 on them, and measure what went where."""
    from infoplace.demo import run_demo

    run_demo(out, device=device, seed=seed)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's file, or the name of one that is shipped.")],
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    data: Annotated[
        str | None, typer.Option(help="A set's name or a path; left out, what the recipe names.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="The split to train on.")] = "train",
    download: Annotated[bool, typer.Option(help="Let torchvision fetch the set.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    device: Device = "auto",
    processes: Annotated[int, typer.Option(help="Processes that train together.")] = 1,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting of the recipe's training: --set steps=500. Repeatable."),
    ] = None,
) -> None:
    """Train a recipe into a run folder."""
    import dataclasses

    from infoplace.pair import resolve_device
    from infoplace.recipe import settings_from
    from infoplace.training import check_folder, is_main_process

    loaded = ip.load_recipe(_recipe_file(recipe))
    settings = {**dataclasses.asdict(loaded.settings), **_parameters(changes or [], "--set")}
    loaded = dataclasses.replace(loaded, settings=settings_from(settings), data=data or loaded.data)
    if loaded.data is None:
        raise DeclarationError(f"{recipe} names no data; say what to train on: --data street_numbers/easy")
    resolve_device(device)
    check_folder(out, resume)
    images = _load(loaded.data, split, download=download)
    if is_main_process():
        print(f"{len(images)} images {list(images.shape)} of {images.name}, {images.split}")
    shape = _data_shape(loaded.partition, images)
    pair = ip.train(loaded, images, shape, out, resume=resume, device=device, processes=processes)
    if is_main_process():
        weights = sum(p.numel() for p in pair.parameters())
        print(f"trained {weights:,} weights for {loaded.settings.steps} steps; the run is in {out}")


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path | None, typer.Option(help="The folder for the pictures; left out, the run folder.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Images to show and to mix; left out, what the run was trained on.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split those come from.")] = "test",
    seed: Annotated[int, typer.Option(help="Seeds the draws.", min=0, max=2**32 - 1)] = 0,
    device: Device = "cpu",
) -> None:
    """Draw a run's pictures: reconstructions, one block varied at a time, mixtures of two images, clusters, and the loss."""
    from infoplace.figures import class_blocks, draw_figures

    pair = ip.load_pair(run, device=device)
    recipe = ip.load_recipe(run / "recipe.yaml") if (run / "recipe.yaml").is_file() else None
    source = data or (recipe.data if recipe is not None else None)
    if source is None:
        raise DeclarationError("the run does not say what it was trained on; say which images to show with --data")
    # Ten images are shown, and clusters are set against the labels of all.
    images = _load(source, split, limit=2000 if class_blocks(pair) else 256)
    factors = {name: factor.block for name, factor in recipe.factors.items()} if recipe is not None else {}
    for path in draw_figures(pair, images, out or run, seed=seed, log=run / "metrics.csv", factors=factors):
        print(path)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[str | None, typer.Option(help="A set's name or a path; left out, the run's own.")] = None,
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    factors: Annotated[
        list[str] | None,
        typer.Option(
            "--factor",
            help="A factor to measure, and the block that should carry it: --factor digit=z_g, or --factor digit. "
            "Repeatable; left out, what the recipe says, or all that the data have.",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="What to measure: swap, placement, kl, ..., or a spec as '{kl: {images: 500}}'. Repeatable; left out, "
            "everything.",
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(help="At most so many images; left out, all.", min=2)] = None,
    samples: Annotated[bool, typer.Option("--samples/--means", help="Use draws from the posteriors.")] = False,
    seed: Annotated[int, typer.Option(help="Seeds every random choice.", min=0, max=2**32 - 1)] = 0,
    out: Annotated[Path | None, typer.Option(help="The folder to write to; left out, the run folder.")] = None,
    device: Device = "auto",
) -> None:
    """Measure a run: which block carries which factor. Writes evaluation.json and a CSV for each table."""
    from infoplace.evaluation import evaluate as measure
    from infoplace.evaluation import progress_bar
    from infoplace.recipe import Factor

    specs = [_yaml(metric, "--metric") for metric in metrics] if metrics else None

    chosen: dict[str, Factor] | None = None
    if factors:
        declared = ip.load_recipe(run / "recipe.yaml").factors if (run / "recipe.yaml").is_file() else {}
        chosen = {}
        for text in factors:
            name, equals, block = text.partition("=")
            chosen[name] = Factor(block) if equals else declared.get(name, Factor())
    with progress_bar() as report:
        found = measure(
            run, data=data, split=split, factors=chosen, metrics=specs, images=images, samples=samples, seed=seed,
            device=device, out=out, report=report,
        )  # fmt: skip
    print(found)
    print(f"\nwritten to {(out or run) / 'evaluation.json'} and evaluation_*.csv beside it")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are set side by side.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    data: Annotated[str | None, typer.Option(help="A set's name or a path; left out, the runs' own.")] = None,
    split: Annotated[str, typer.Option(help="The split whose images are shown.")] = "test",
    images: Annotated[int, typer.Option(help="Images to choose from for each block, at most.", min=2)] = 12,
    seed: Annotated[int, typer.Option(help="Seeds the draws.", min=0, max=2**32 - 1)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page that is there.")] = False,
    device: Device = "cpu",
) -> None:
    """Write one self-contained HTML page about some runs: what was declared, what was measured, and a swap explorer."""
    from infoplace.report import write_report

    print(write_report(runs, out, data=data, split=split, images=images, seed=seed, device=device, overwrite=overwrite))


@transforms_app.callback()
def transforms(
    context: typer.Context,
    destroys: Annotated[str | None, typer.Option(help="Only those that destroy this, as 'colour'.")] = None,
) -> None:
    """List the transforms: what each destroys, whether it is random, and its parameters."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "destroys", "random", "parameters", header_style="bold")
    names = ip.list_transforms(destroys)
    if not names:
        several = ("compose", "kornia", "torchvision")  # what they destroy is their parts'
        names = [name for name in ip.list_transforms() if name not in several]
        found = sorted({ip.describe_transform(name).details["destroys"] for name in names})
        raise DeclarationError(f"no transform destroys {destroys!r}; those there are destroy {join_names(found)}")
    for name in names:
        described = ip.describe_transform(name)
        details = described.details
        random = details["random"].partition(",")[0]
        parameters = [re.sub(r": .* = ", "=", text) for text in described.parameters.values()]
        table.add_row(name, details["destroys"], random, "\n".join(parameters))
    Console().print(table)


@transforms_app.command()
def preview(
    name: Annotated[str, typer.Argument(help="A transform's name.")],
    parameters: Annotated[list[str] | None, typer.Option("-p", help="A parameter: -p n=8. Repeatable.")] = None,
    data: Annotated[str, typer.Option(help="A set's name or a path.")] = "street_numbers/easy",
    split: Annotated[str, typer.Option(help="The split to show.")] = "test",
    count: Annotated[int, typer.Option(help="How many images.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Seeds the transform.", min=0, max=2**32 - 1)] = 0,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("preview.png"),
) -> None:
    """Draw a contact sheet: images above, what the transform leaves of them below."""
    import torch

    from infoplace.plots import contact_sheet, save

    transform = ip.make_transform(name, **_parameters(parameters or [], "-p"))
    images = _load(data, split, limit=count)
    before = images.batch(torch.arange(len(images)))
    after = transform(before, generator=torch.Generator().manual_seed(seed))
    save(contact_sheet(before, after, title=f"{transform!r} destroys {transform.destroys}"), out)
    print(out)


def _load(source: str, split: str, **options: Any) -> Any:
    """The images of a set or a path; what the library says of a missing download, in the command line's words."""
    from infoplace.data import load

    try:
        return load(source, split, **options)
    except DataError as error:
        raise DataError(re.sub(r"[Tt]ype load\(.*?download=True\)", "Add --download", str(error))) from error


def _parameters(given: list[str], option: str) -> dict[str, Any]:
    values = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise DeclarationError(f"{option} takes name=value, as {option} n=8; got {text!r}")
        values[key] = _yaml(value, f"{option} {text}")
    return values


def _yaml(text: str, where: str) -> Any:
    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        raise DeclarationError(f"{where}: the value is not YAML: {error}") from error


def _recipe_file(name: str) -> Path:
    """The file of a recipe given by path, or by the name of a shipped one."""
    from infoplace.recipe import shipped_recipes

    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    if not Path(name).is_file():
        raise RunFolderError(
            f"there is no recipe {name}; give a file, or one of the shipped ones: {', '.join(shipped)}"
        )
    return Path(name)


def _data_shape(partition: ip.Partition, images: Any) -> Any:
    """The shape of each source: images for the one that no factor is named after."""
    shapes = {
        source: tuple(images.factors[source].shape[1:]) if source in images.factors else images.shape
        for source in partition.modelled_sources
    }
    return shapes if len(shapes) > 1 else images.shape


@app.command("new-plugin")
def new_plugin(
    name: Annotated[str, typer.Argument(help="The distribution's name, as infoplace-swirl.")],
    kind: Annotated[
        str, typer.Option(help="What it adds: transform, objective, likelihood, prior, network or metric.")
    ] = "transform",
    out: Annotated[Path, typer.Option(help="The folder to make the plugin's own folder in.")] = Path(),
) -> None:
    """Write a plugin: a package that can be installed, with one working thing in it, and its tests."""
    from infoplace.scaffold import new_plugin as write

    folder = write(name, out, kind)
    print(f"{folder}\nnext: cd {folder} && pip install -e '.[dev]' && python -m pytest")


@app.command()
def plugins() -> None:
    """List what installed plugins offer, and whether each loads."""
    from rich.console import Console
    from rich.table import Table

    from infoplace.scaffold import installed_plugins

    found = installed_plugins()
    if not found:
        print("no plugins are installed; infoplace new-plugin writes one")
        return
    table = Table("kind", "name", "distribution", "version", "state", header_style="bold")
    for plugin in found:
        table.add_row(plugin.kind, plugin.name, plugin.distribution, plugin.version, plugin.error or "loads")
    Console().print(table)


def main() -> None:
    """Run the command line; errors of a user's input are one sentence and exit status 2."""
    try:
        app()
    except InfoplaceError as error:
        print(f"infoplace: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("infoplace: stopped; train --resume goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
