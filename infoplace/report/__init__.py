"""The report: one HTML page on some runs, which says what was declared and what was measured, and shows both.

The page needs no network and no other file: pictures, drawings, styles and the swap explorer's script are inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infoplace.data import load
from infoplace.errors import DataError, RunFolderError, is_whole
from infoplace.figures import image_observation
from infoplace.files import make_folder, replacing
from infoplace.report.page import Shown, page
from infoplace.report.pictures import choose_images, draw
from infoplace.report.runs import Run, check_comparable, common_source, read_runs

__all__ = ["write_report"]

POOL = 256
"""Images that those on the page are chosen from."""


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    data: str | None = None,
    split: str = "test",
    images: int = 12,
    seed: int = 0,
    device: str = "cpu",
    overwrite: bool = False,
) -> Path:
    """Write a page on one or several runs, side by side on the same images.

    The page shows each declaration as a graph and as tables; what ``infoplace evaluate`` measured, where it has, clusters
    among it; samples of every block, reconstructions and training curves; versions and settings; and a swap explorer, in
    which a reader chooses the image that each block is taken from and sees the decoded mixture.

    Args:
        runs: run folders, as ``infoplace train`` writes them; those of ``pair.save`` do, with ``data``.
        out: the page, ``.html``.
        data: a set's name or a path, for the images to show; what the runs were trained on when None.
        split: the split that the images come from.
        images: how many images each block can be taken from in the swap explorer, at least 2; fewer where the mixtures
            would be more than 400.
        seed: of the choice of the images, of the transforms and of the draws from the priors.
        device: where the pairs compute: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        overwrite: replace a page that exists.

    Returns:
        The page's path.

    Raises:
        RunFolderError: no run, one that is named twice or is damaged, a page that exists or has another ending, or one
            that cannot be written.
        DataError: images that the runs do not take, or runs of different data.
        UnknownNameError: there is no such set or split.
        DeclarationError: there is no such device, or a pair was made with modules of your own, which a folder cannot hold.

    >>> write_report([], "report.html")
    Traceback (most recent call last):
        ...
    infoplace.errors.RunFolderError: there is no run to report on; name a run folder that infoplace train wrote
    """
    target = Path(out)
    if target.suffix != ".html":
        raise RunFolderError(f"a report is one page, which ends in .html; got {target.name!r}")
    if target.exists() and not overwrite:
        raise RunFolderError(f"{target} exists; choose another name, or replace it with overwrite (--overwrite)")
    if not is_whole(images) or images < 2:
        raise DataError(f"images must be a whole number of at least 2; got {images!r}")
    read = read_runs(runs, device)
    check_comparable(read, data)
    text = page(_shown(read, data, split, images, seed))
    make_folder(target.parent)
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _shown(runs: Sequence[Run], data: str | None, split: str, images: int, seed: int) -> Shown:
    try:
        for run in runs:
            image_observation(run.pair)
    except DataError as error:
        return Shown(runs, data or runs[0].source, split, None, (), str(error))
    source = common_source(runs, data)
    held = load(source, split, limit=POOL)
    choice = choose_images(held, runs[0].pair, images, seed)
    pictures = tuple(draw(run.pair, choice, images, seed, bool(run.table("clustering"))) for run in runs)
    return Shown(runs, held.name, split, choice, pictures, "")
