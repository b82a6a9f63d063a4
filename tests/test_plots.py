"""Figures: what is on them, that pixels stay squares, that pyplot stays out of it, and the error texts."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch

from infoplace import plots
from infoplace.errors import DataError, DeclarationError, UnknownNameError
from infoplace.metrics import clustering


def images(count, channels=3, side=8, seed=0):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def rendered(figure):
    """The figure's pixels, `[height, width, 3]`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def appears_in(picture, image):
    """Whether the uint8 image is in the picture, enlarged by a whole number."""
    small = image.permute(1, 2, 0).numpy()
    for scale in range(1, 9):
        big = np.kron(small, np.ones((scale, scale, 1), dtype=np.uint8))
        height, width = big.shape[:2]
        for y, x in zip(*np.nonzero((picture == big[0, 0]).all(-1)), strict=True):
            if np.array_equal(picture[y : y + height, x : x + width], big):
                return True
    return False


def swap_rows(shift=0.0, ways=("prior",)):
    rows = []
    for factor, metric, base, scores in (
        ("digit", "accuracy", 0.1, (0.9, 0.8, 0.1)),
        ("ground given polarity", "partial_squared_correlation", 0.0, (0.9, 0.0, 0.9)),
    ):
        changes = [(None, "kept", scores[0])]
        changes += [(b, way, s) for way in ways for b, s in zip(("z_l", "z_g"), scores[1:], strict=True)]
        for changed, how, score in changes:
            row = {"changed": changed, "how": how, "factor": factor, "score": score + shift, "metric": metric}
            rows.append({**row, "real": 0.95, "chance": base, "normalised": score})
    return rows


FIGURES = {
    "figure1b": lambda x: plots.figure1b(x, x, x, x),
    "variation_grids": lambda x: plots.variation_grids({"one": x, "two": x}, columns=3),
    "swap_grid": lambda x: plots.swap_grid(x[:2], x[2:5], x),
    "contact_sheet": lambda x: plots.contact_sheet(x, x, "a title", columns=4),
}


class TestGrid:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("gap", [0, 2])
    def test_every_image_is_in_its_place_and_the_rest_is_white(self, channels, gap):
        batch = (images(5, channels) * 255).round().to(torch.uint8)
        grid = plots.image_grid(batch, columns=3, gap=gap)
        assert grid.dtype == np.uint8
        assert grid.shape == (16 + gap, 24 + 2 * gap, 3)
        seen = np.zeros(grid.shape[:2], dtype=bool)
        for index, image in enumerate(batch):
            y, x = (8 + gap) * (index // 3), (8 + gap) * (index % 3)
            expected = image.expand(3, 8, 8).permute(1, 2, 0).numpy()
            assert np.array_equal(grid[y : y + 8, x : x + 8], expected)
            seen[y : y + 8, x : x + 8] = True
        assert (grid[~seen] == 255).all()

    def test_floats_and_bytes_give_one_picture(self):
        batch = torch.randint(256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        assert np.array_equal(plots.image_grid(batch), plots.image_grid(batch.float() / 255))
        assert np.array_equal(plots.image_grid(batch), plots.image_grid((batch.double() / 255).requires_grad_()))

    def test_about_square_when_not_told(self):
        assert plots.image_grid(images(10), gap=0).shape == (24, 32, 3)


class TestFigures:
    @pytest.mark.parametrize("name", FIGURES)
    def test_every_pixel_of_every_image_is_drawn_as_a_square(self, name):
        batch = (images(6, side=9) * 255).round().to(torch.uint8)
        picture = rendered(FIGURES[name](batch))
        assert all(appears_in(picture, image) for image in batch)

    @pytest.mark.parametrize("name", FIGURES)
    @pytest.mark.parametrize("channels", [1, 3])
    def test_nothing_is_drawn_outside_the_figure(self, name, channels):
        figure = FIGURES[name](images(6, channels, side=28))
        rendered(figure)
        width, height = figure.bbox.size
        for artist in [*figure.texts, *figure.axes]:
            box = artist.get_window_extent()
            assert box.x0 >= -0.5, artist
            assert box.y0 >= -0.5, artist
            assert box.x1 <= width + 0.5, artist
            assert box.y1 <= height + 0.5, artist

    def test_labels_say_what_the_rows_are(self):
        x = images(6)
        assert texts(FIGURES["figure1b"](x)) == ["x", "x_hat", "x, reconstructed", "x_hat, reconstructed"]
        assert texts(FIGURES["variation_grids"](x)) == ["one", "two"]
        assert set(texts(plots.swap_grid(x[:2], x[2:5], x, columns="z_i", rows="z_r"))) >= {"z_i from", "z_r from"}
        assert texts(plots.contact_sheet(x, x, "a title", columns=4, labels=("x", "g(x)"))) == [
            *("x", "g(x)", "x", "g(x)"),
            "a title",
        ]

    def test_mixtures_stand_under_and_beside_their_sources(self):
        shades = torch.tensor([(value, 255, 0) for value in (10, 20, 30, 40, 50)], dtype=torch.uint8)
        squares = shades[:, :, None, None].expand(-1, -1, 4, 4)
        picture = rendered(plots.swap_grid(squares[:2], squares[2:3], squares[3:]))
        places = {int(shade[0]): np.argwhere((picture == shade.numpy()).all(-1)).min(0) for shade in shades}
        assert places[10][1] == places[40][1] < places[20][1] == places[50][1]
        assert places[30][0] == places[40][0] == places[50][0] > places[10][0]
        assert places[30][1] < places[40][1]

    def test_images_after_a_transform_may_be_of_another_size(self):
        rendered(plots.contact_sheet(images(4, side=16), images(4, 1, side=8)))


class TestClusters:
    LABELS: ClassVar = [4, 4, 4, 4, 9, 9, 9, 9]
    CLUSTERS: ClassVar = [0, 2, 2, 2, 1, 1, 1, 2]

    def table(self):
        return clustering(self.CLUSTERS, self.LABELS, self.CLUSTERS, self.LABELS, clusters=4)

    def test_confusion_has_the_counts_in_their_arranged_places(self):
        table = self.table()
        figure = plots.confusion(table, label="digit", title="a title")
        rendered(figure)
        top, panel, _ = figure.axes
        (picture,) = panel.images
        assert np.array_equal(picture.get_array(), table.confusion[:, table.arranged()])
        assert [tick.get_text() for tick in panel.get_xticklabels()] == ["2", "0", "1", "3"]
        assert [tick.get_text() for tick in panel.get_yticklabels()] == ["4", "9"]
        assert (panel.get_xlabel(), panel.get_ylabel()) == ("cluster", "digit")
        assert [text.get_text() for text in top.texts] == ["50", "12", "38", "0"]
        assert [bar.get_height() for bar in top.patches] == [50, 12.5, 37.5]
        # Between the labels, and before the cluster that is not used.
        assert [line.get_xdata()[0] for line in panel.lines] == [1.5, 2.5]
        assert "a title" in texts(figure)

    def test_darker_is_more(self):
        figure = plots.confusion(self.table())
        (picture,) = figure.axes[1].images
        shades = [sum(picture.cmap(picture.norm(count))[:3]) for count in range(4)]
        assert shades == sorted(shades, reverse=True)
        assert shades[0] == pytest.approx(3.0)

    @pytest.mark.parametrize("clusters", [2, 30, 60])
    def test_nothing_overlaps_or_is_drawn_outside(self, clusters):
        known = [number % clusters for number in range(300)]
        labels = [number * 10 // clusters for number in known]
        figure = plots.confusion(clustering(known, labels, known, labels, clusters=clusters), title="a title")
        rendered(figure)
        width, height = figure.bbox.size
        panel = figure.axes[1]
        for artist in [panel.xaxis.label, panel.yaxis.label, *figure.texts, *figure.axes[0].texts]:
            box = artist.get_window_extent()
            assert 0 <= box.x0 < box.x1 <= width
            assert 0 <= box.y0 < box.y1 <= height
        boxes = [tick.get_window_extent() for tick in panel.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))

    def test_every_sample_is_drawn_under_its_title(self):
        batch = (torch.rand(7, 2, 3, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
        titles = [f"cluster {number}\nunused" for number in range(7)]
        figure = plots.cluster_samples(batch, titles, across=3, title="z_g along the columns")
        picture = rendered(figure)
        assert all(appears_in(picture, image) for image in batch.flatten(0, 2))
        assert texts(figure) == [*titles, "z_g along the columns"]
        for title, axes in zip(figure.texts, figure.axes, strict=False):
            words, grid = title.get_window_extent(), axes.get_window_extent()
            assert words.x0 == pytest.approx(grid.x0, abs=2)
            assert 0 < words.y0 - grid.y1 < 20
            assert words.y1 < figure.bbox.height
        assert texts(plots.cluster_samples(batch)) == [f"cluster {number}" for number in range(7)]

    @pytest.mark.parametrize(
        ("call", "error", "text"),
        [
            (
                lambda: plots.confusion({"a": 1}),
                DataError,
                "confusion draws what metrics.clustering returns; got a dict",
            ),
            (
                lambda: plots.cluster_samples(torch.zeros(2, 3, 8, 8)),
                DataError,
                r"takes a tensor \[clusters, rows, columns, channels, height, width\].*got \[2, 3, 8, 8\]",
            ),
            (lambda: plots.cluster_samples([1]), DataError, "got a list"),
            (
                lambda: plots.cluster_samples(torch.zeros(2, 1, 1, 3, 8, 8), ["one"]),
                DataError,
                "there are 2 clusters and 1 titles; give one for each",
            ),
            (
                lambda: plots.cluster_samples(torch.zeros(2, 1, 1, 3, 8, 8), across=0),
                DeclarationError,
                "across must be",
            ),
        ],
    )
    def test_what_cannot_be_drawn_is_said(self, call, error, text):
        with pytest.raises(error, match=text):
            call()


class TestLatents:
    def test_one_block_is_held_and_the_other_varies(self):
        seen = {}
        prior_calls = []

        def prior(block, n, generator):
            prior_calls.append((block, n))
            return torch.randn(n, 2, generator=generator)

        def decode(z):
            seen.update(z)
            return torch.zeros(len(z["z_g"]), 1, 4, 4)

        generator = torch.Generator().manual_seed(0)
        pictures = plots.latent_variation(decode, prior, fixed="z_g", varied=("z_l",), count=7, generator=generator)
        assert pictures.shape == (7, 1, 4, 4)
        assert prior_calls == [("z_g", 1), ("z_l", 7)]
        assert (seen["z_g"] == seen["z_g"][0]).all()
        assert len(seen["z_l"].unique(dim=0)) == 7

    def test_crossing_goes_row_by_row(self):
        columns, rows = {"z_g": torch.tensor([[1.0], [2.0], [3.0]])}, {"z_l": torch.tensor([[10.0], [20.0]])}
        crossed = plots.cross_decode(lambda z: z["z_g"] + z["z_l"], columns, rows)
        assert crossed.flatten().tolist() == [11, 12, 13, 21, 22, 23]

    def test_a_block_belongs_to_one_side(self):
        z = {"z_g": torch.zeros(1, 1)}
        with pytest.raises(DeclarationError, match="got columns 'z_g' and rows 'z_g'"):
            plots.cross_decode(lambda z: z["z_g"], z, z)
        with pytest.raises(DeclarationError, match="'z_g' cannot be fixed and varied at once"):
            plots.latent_variation(lambda z: z["z_g"], None, fixed="z_g", varied=["z_g", "z_l"])


class TestCurves:
    def test_both_forms_draw_the_same_lines(self):
        records = [{"step": 10, "loss": 3.0, "kl/z_g": 1.0}, {"step": 30, "loss": 2.0, "kl/z_g": 1.5}]
        columns = {"loss": [3.0, 2.0], "kl/z_g": [1.0, 1.5]}
        for figure in (plots.loss_curves(records), plots.loss_curves(columns, steps=[10, 30])):
            panels = [panel for panel in figure.axes if panel.get_visible()]
            assert [panel.get_title(loc="left") for panel in panels] == ["loss", "kl/z_g"]
            assert [panel.lines[0].get_xydata().tolist() for panel in panels] == [
                [[10, 3], [30, 2]],
                [[10, 1], [30, 1.5]],
            ]
            rendered(figure)

    def test_a_term_missing_from_some_records_and_a_diverged_one_leave_gaps(self):
        figure = plots.loss_curves([{"loss": 3.0}, {"loss": math.inf, "kl": 1.0}, {"loss": 1.0, "kl": 2.0}])
        loss, kl = (panel.lines[0].get_xydata().tolist() for panel in figure.axes)
        assert loss == [[0, 3], [2, 1]]
        assert kl == [[1, 1], [2, 2]]

    @pytest.mark.parametrize("terms", [1, 4, 5, 9])
    def test_a_panel_for_each_term(self, terms):
        figure = plots.loss_curves({f"term {index}": [1.0, 2.0] for index in range(terms)})
        assert sum(panel.get_visible() for panel in figure.axes) == terms
        rendered(figure)

    @pytest.mark.parametrize(
        ("history", "steps", "text"),
        [
            ([], None, "has nothing to draw"),
            ({"loss": []}, None, "has nothing to draw"),
            ({"loss": [1.0, 2.0]}, [1], "'loss' has 2 values for 1 steps"),
            ([{"loss": "low"}], None, "'loss' holds something that is no number"),
        ],
    )
    def test_errors_say_what_came(self, history, steps, text):
        with pytest.raises(DataError, match=text):
            plots.loss_curves(history, steps)


class TestBars:
    def test_bars_are_means_and_whiskers_deviations(self):
        figure = plots.swap_bars([swap_rows(-0.03), swap_rows(0.0), swap_rows(0.03)])
        digit, ground = figure.axes
        assert digit.get_title() == "digit\naccuracy"
        assert ground.get_title() == "ground given polarity\npartial squared correlation"
        assert [bar.get_height() for bar in digit.patches] == pytest.approx([0.95, 0.9, 0.8, 0.1])
        (whiskers,) = digit.collections
        lengths = [np.ptp(segment[:, 1]) / 2 for segment in whiskers.get_segments()]
        assert lengths == pytest.approx([0.0, 0.03, 0.03, 0.03])
        assert [label.get_text() for label in digit.get_xticklabels()] == [
            *("real images", "reconstruction", "z_l resampled", "z_g resampled")
        ]
        assert "chance" in " ".join(text.get_text() for text in digit.texts)
        assert "chance" not in " ".join(text.get_text() for text in ground.texts)
        rendered(figure)

    def test_one_run_has_no_whiskers(self):
        (panel,) = plots.swap_bars(swap_rows(), factors=["digit"]).axes
        assert not panel.collections
        assert [bar.get_height() for bar in panel.patches] == pytest.approx([0.95, 0.9, 0.8, 0.1])

    def test_how_chooses_the_changes(self):
        rows = swap_rows(ways=("prior", "other image"))
        counts = [len(plots.swap_bars(rows, how=how).axes[0].patches) for how in (None, "prior", "other image")]
        assert counts == [6, 4, 4]

    def test_errors_say_what_came(self):
        with pytest.raises(DataError, match="no rows"):
            plots.swap_bars([])
        with pytest.raises(DataError, match="the runs have different rows"):
            plots.swap_bars([swap_rows(), swap_rows(ways=("other image",))])
        with pytest.raises(UnknownNameError, match=r"no row has the factor 'digits'.*Did you mean 'digit'"):
            plots.swap_bars(swap_rows(), factors=["digits"])
        with pytest.raises(UnknownNameError, match="no row has how='other image'; the rows have 'prior'"):
            plots.swap_bars(swap_rows(), how="other image")


class TestSave:
    @pytest.mark.parametrize("ending", ["png", "svg"])
    def test_writes_the_whole_file_with_its_description(self, tmp_path, ending):
        figure = plots.figure1b(*[images(3)] * 4)
        path = plots.save(figure, tmp_path / "new" / f"figure.{ending}", alt="Three images")
        assert path.parent.is_dir()
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert b"Three images" in path.read_bytes()

    def test_png_has_the_figures_pixels(self, tmp_path):
        from PIL import Image

        figure = plots.contact_sheet(images(4), images(4))
        with Image.open(plots.save(figure, tmp_path / "a.png")) as picture:
            assert np.array_equal(np.asarray(picture)[..., :3], rendered(figure))

    def test_another_ending_is_refused(self, tmp_path):
        with pytest.raises(DeclarationError, match=r"saved as \.png or \.svg; got 'a\.gif'"):
            plots.save(plots.contact_sheet(images(1), images(1)), tmp_path / "a.gif")
        assert not list(tmp_path.iterdir())

    def test_pyplot_and_the_settings_stay_out_of_it(self, tmp_path):
        code = (
            "import sys, torch, matplotlib\n"
            "from infoplace import plots\n"
            # Reading the backend's setting is what makes matplotlib choose one, and import pyplot.
            "settings = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
            "before = settings()\n"
            "x = torch.rand(2, 1, 8, 8)\n"
            "plots.save(plots.contact_sheet(x, x), sys.argv[1])\n"
            "plots.loss_curves({'loss': [1.0, 2.0]})\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
            "assert settings() == before\n"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)


@pytest.mark.parametrize(
    ("batch", "kind", "text"),
    [
        (torch.rand(3, 8, 8), DataError, "got [3, 8, 8]; add a missing dimension with images[None]"),
        (torch.rand(2, 2, 8, 8), DataError, "1 or 3 channels; got [2, 2, 8, 8]"),
        (torch.rand(0, 3, 8, 8), DataError, "N of 1 or more"),
        (torch.rand(2, 3, 8, 8) * 0 + 200, DataError, "from 200 to 200; expected [0, 1]; divide by 255"),
        (torch.rand(2, 3, 8, 8) * 0 - 1, DataError, "expected [0, 1]; shift and scale"),
        (torch.full((2, 3, 8, 8), math.nan), DataError, "hold NaN"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.long), DataError, "are torch.int64; expected uint8 in 0..255 or float"),
        (np.zeros((2, 3, 8, 8)), DataError, "must be a tensor; got a ndarray"),
    ],
)
def test_bad_images_are_named(batch, kind, text):
    for draw in (
        plots.image_grid,
        lambda x: plots.figure1b(x, x, x, x),
        lambda x: plots.variation_grids({"one": x}),
        lambda x: plots.contact_sheet(x, x),
    ):
        with pytest.raises(kind) as error:
            draw(batch)
        assert text in str(error.value)


def test_unequal_numbers_are_named():
    x = images(6)
    with pytest.raises(DataError, match=r"every row must have as many images; got .*'x_hat': 5"):
        plots.figure1b(x, x[:5], x, x)
    with pytest.raises(DataError, match="got 6 before and 5 after"):
        plots.contact_sheet(x, x[:5])
    with pytest.raises(DataError, match="3 row sources and 2 column sources make 6 mixtures; got 5"):
        plots.swap_grid(x[:2], x[:3], x[:5])
    with pytest.raises(DataError, match="must be of one size"):
        plots.swap_grid(x[:2], images(3, side=9), x)
    with pytest.raises(DeclarationError, match="columns must be a whole number of at least 1; got 0"):
        plots.image_grid(x, columns=0)
    with pytest.raises(DeclarationError, match="at least one grid"):
        plots.variation_grids({})


class TestSweepLines:
    LINES: ClassVar = {"kept": {1: [0.9, 0.8], 10: [0.7, 0.9]}, "crossed": {1: [0.0, 0.1], 10: [0.3, 0.1]}}

    def test_a_line_goes_through_the_means_and_every_run_is_a_dot(self):
        (panel,) = plots.sweep_lines(self.LINES, "beta").axes
        drawn = {line.get_label(): line for line in panel.lines}
        assert {"kept", "crossed"} <= set(drawn)
        shown = [line.get_xydata().tolist() for line in panel.lines]
        assert [[0, pytest.approx(0.85)], [1, pytest.approx(0.8)]] in shown
        assert [[0.0, 0.0], [0.0, 0.1], [1.0, 0.3], [1.0, 0.1]] in shown
        assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "10"]
        assert panel.get_xlabel() == "beta"

    @pytest.mark.parametrize(
        ("lines", "text"),
        [
            ({}, "nothing to draw"),
            ({"kept": {}}, "nothing to draw"),
            ({"kept": {1: [1.0]}, "crossed": {2: [1.0]}}, "different settings"),
            ({"kept": {1: []}}, "'kept' has no number at 1"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, lines, text):
        with pytest.raises(DataError, match=text):
            plots.sweep_lines(lines, "beta")


def test_a_long_caption_is_broken_so_that_it_does_not_run_into_the_next():
    grids = {f"block_{name} varied, two other blocks fixed": images(100, side=16) for name in "abc"}
    figure = plots.variation_grids(grids)
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in figure.texts), key=lambda box: box.x0)
    assert len(boxes) == 3
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
