"""Figures of an embedding show what is in the cube, the right way up, and say so."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from eocausal.errors import AlignmentError, BandError, MissingColumnError
from eocausal.reports.contact_sheet import Stretch, contact_sheet, cut_label, picture_bands
from eocausal.reports.embedding import (
    correlogram_figure,
    learning_curves,
    pca_view,
    predictability_figure,
)
from eocausal.reports.plots import to_png, to_svg

SIZE = 6


def cube(n=5, periods=("2000",), bands=("nir", "red", "green"), *, north_up=True) -> xr.Dataset:
    """Chips that are bright in their north-west corner; the third place has a gap."""
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 0.1, (n, len(periods), len(bands), SIZE, SIZE)).astype(np.float32)
    image[:, :, :, 0, 0] = 1.0
    image[2, :, 0, 4, :2] = np.nan
    step = -30.0
    if not north_up:
        image, step = image[..., ::-1, :], 30.0
    transform = np.tile([30.0, 0, 0, 0, step, 0], (n, 1))
    return xr.Dataset(
        {
            "image": (("neighborhood", "period", "band", "y", "x"), image),
            "valid": (("neighborhood", "period"), np.ones((n, len(periods)), np.float32)),
            "status": (("neighborhood", "period"), np.zeros((n, len(periods)), np.int8)),
        },
        coords={
            "neighborhood": [f"<place {i}> $x_1$" for i in range(n)], "period": list(periods),
            "band": list(bands), "transform": (("neighborhood", "affine"), transform),
            "crs": ("neighborhood", ["EPSG:32636"] * n),
        },
        attrs={"resolution": 30.0, "units": "reflectance"},
    )  # fmt: skip


def neighbors(data: xr.Dataset, pairs) -> pd.DataFrame:
    names = data.indexes["neighborhood"]
    rows = [(names[q], r, names[o], 0.1 * r, 0.2 * r, 12.345) for q, r, o in pairs]
    return pd.DataFrame(
        rows, columns=["query", "rank", "neighbor", "distance", "relative", "km"]
    )  # fmt: skip


def pictures(figure):
    """The image of each cell that has one, in the order of cells."""
    found = [axes.findobj(AxesImage) for axes in figure.axes]
    return [images[0].get_array() for images in found if images]


def texts(figure) -> str:
    return "\n".join(t.get_text() for axes in figure.axes for t in axes.findobj(lambda a: hasattr(a, "get_text")))  # fmt: skip # noqa: E501


# --- contact sheets ----------------------------------------------------------------------------


@pytest.mark.parametrize("north_up", [True, False])
def test_north_is_up_whatever_the_order_of_rows(north_up):
    data = cube(north_up=north_up)
    sheet = contact_sheet(data, neighbors(data, [(0, 1, 1), (0, 2, 3)]))
    shown = pictures(sheet.figure)
    assert len(shown) == 3
    for picture in shown:
        brightness = picture[..., :3].sum(axis=-1)
        assert np.unravel_index(brightness.argmax(), brightness.shape) == (0, 0)


def test_chips_are_drawn_over_the_hatching_of_their_gaps():
    data = cube()
    sheet = contact_sheet(data, neighbors(data, [(0, 1, 2)]))
    whole, gap = (a for a in sheet.figure.axes if a.findobj(AxesImage))
    assert not [p for p in whole.findobj(Rectangle) if p.get_hatch()]
    (hatched,) = [p for p in gap.findobj(Rectangle) if p.get_hatch()]
    (image,) = gap.findobj(AxesImage)
    assert hatched.get_zorder() < image.get_zorder()
    alpha = image.get_array()[..., 3]
    assert (alpha == 0).sum() == 2
    assert (alpha[4, :2] == 0).all()


def test_all_chips_have_the_same_stretch():
    data = cube()
    data["image"][1] *= 0.5
    stretch = Stretch.of(data, ["red"])
    values = data["image"].sel(band="red").to_numpy()
    values = values[np.isfinite(values)]
    assert stretch.low[0] == pytest.approx(np.quantile(values, 0.02), rel=1e-5)
    assert stretch.high[0] == pytest.approx(np.quantile(values, 0.98), rel=1e-5)
    dim = stretch.paint(data["image"].isel(neighborhood=1, period=0).sel(band=["red"]).to_numpy())
    full = stretch.paint(data["image"].isel(neighborhood=0, period=0).sel(band=["red"]).to_numpy())
    assert dim[1:, 1:, 0].mean() < 0.6 * full[1:, 1:, 0].mean()


def test_a_constant_or_empty_band_is_drawn():
    data = cube()
    data["image"][:] = 3.0
    data["image"].loc[{"band": "red"}] = np.nan
    sheet = contact_sheet(data, neighbors(data, [(0, 1, 1)]), bands=["red"])
    assert all((picture[..., 3] == 0).all() for picture in pictures(sheet.figure))
    assert to_png(sheet.figure)[:4] == b"\x89PNG"


def test_sequences_are_strips_of_at_most_eight_periods():
    data = cube(periods=[str(year) for year in range(2000, 2012)])
    data["valid"][:, 3] = 0  # a period missing everywhere is not drawn
    sheet = contact_sheet(data, neighbors(data, [(0, 1, 1), (0, 2, 2), (4, 1, 3)]))
    assert len(pictures(sheet.figure)) == 8 * 5
    titles = [axes.get_title() for axes in sheet.figure.axes[:8]]
    assert titles[0] == "2000"
    assert titles[-1] == "2011"
    assert "2003" not in titles
    assert "3 further periods are not drawn" in sheet.caption


def test_hostile_names_are_drawn_as_they_are():
    data = cube()
    sheet = contact_sheet(data, neighbors(data, [(0, 1, 1)]))
    assert "<place 0> $x_1$" in texts(sheet.figure)
    assert "12 km" in texts(sheet.figure)
    to_svg(sheet.figure)


def test_numbered_places_are_found():
    data = cube().assign_coords(neighborhood=pd.RangeIndex(5))
    sheet = contact_sheet(data, neighbors(data, [(0, 1, 3)]))
    assert "3" in texts(sheet.figure).split("\n")


def test_the_caption_says_bands_and_width():
    data = cube()
    caption = contact_sheet(data, neighbors(data, [(0, 1, 1)])).caption
    assert "nir, red, green as red, green and blue" in caption
    assert "180 m wide" in caption
    data = data.drop_vars("crs")
    grey = contact_sheet(data, neighbors(data, [(0, 1, 1)]), bands=["red"]).caption
    assert "red in grey" in grey
    assert "180 (in units of its coordinate system)" in grey


def test_sheets_of_what_is_not_there():
    data = cube()
    good = neighbors(data, [(0, 1, 1)])
    with pytest.raises(BandError, match="blue"):
        contact_sheet(data, good, bands=["red", "green", "blue"])
    with pytest.raises(BandError, match="one band"):
        contact_sheet(data, good, bands=["red", "green"])
    with pytest.raises(AlignmentError, match="contact sheet"):
        contact_sheet(data, good.assign(neighbor="elsewhere"))
    with pytest.raises(MissingColumnError):
        contact_sheet(data, good.drop(columns="km"))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["blue", "green", "red", "nir"], ("red", "green", "blue")),
        (["swir1", "nir", "red", "green"], ("nir", "red", "green")),
        (["red", "nir", "swir1", "ndvi"], ("swir1", "nir", "red")),
        (["swir2_B7", "nir_B4", "green_B2"], ("swir2_B7", "nir_B4", "green_B2")),
        (["b1", "b2", "b3", "b4"], ("b1", "b2", "b3")),
        (["vv", "vh"], ("vv",)),
    ],
)
def test_bands_of_a_picture(names, chosen):
    assert picture_bands(names) == chosen


# --- components --------------------------------------------------------------------------------


def embedding(n=60, features=5, *, placed=True) -> xr.DataArray:
    rng = np.random.default_rng(1)
    array = xr.DataArray(
        rng.standard_normal((n, features)).astype(np.float32),
        dims=("neighborhood", "feature"), coords={"neighborhood": np.arange(n)},
        attrs={"encoder": "by hand", "last_image_date": ""},
    )  # fmt: skip
    if placed:
        array = array.assign_coords(
            lon=("neighborhood", rng.uniform(30, 32, n)), lat=("neighborhood", rng.uniform(0, 2, n))
        )
    return array


def test_places_have_the_color_of_their_value():
    array = embedding()
    arm = pd.Series(np.arange(60) % 2, index=np.arange(60), name="treated").astype(float)
    arm[5] = np.nan
    view = pca_view(array, arm)
    scatter, mapped = view.figure.axes[:2]
    assert [len(c.get_offsets()) for c in scatter.collections] == [1, 30, 29]
    assert "treated 1 (29)" in texts(view.figure)
    assert len(mapped.collections[0].get_offsets()) == 60
    assert "On the map" in view.caption
    shades = mapped.collections[0].get_facecolor()
    assert len(np.unique(shades, axis=0)) == 60
    number = pca_view(array, pd.Series(np.linspace(0, 1, 60), name="elevation"))
    assert len(number.figure.axes) == 3  # with a color bar


def test_components_without_map_without_spread_and_with_unseen_places():
    plain = pca_view(embedding(placed=False))
    assert len(plain.figure.axes) == 1
    assert "On the map" not in plain.caption
    array = embedding()
    array[7] = np.nan
    assert len(pca_view(array).figure.axes[0].collections[0].get_offsets()) == 59
    array[:] = 1.0
    to_png(pca_view(array).figure, dpi=40)


def test_a_map_across_the_antimeridian_is_not_torn():
    array = embedding()
    lon = np.where(np.arange(60) % 2, 179.5, -179.5)
    figure = pca_view(array.assign_coords(lon=("neighborhood", lon))).figure
    east = figure.axes[1].collections[0].get_offsets()[:, 0]
    assert np.ptp(east) == pytest.approx(1.0)


# --- what is told, how far, and training ---------------------------------------------------------


def told() -> pd.DataFrame:
    rows = [("wealth", "R2", 0.6), ("noise", "R2", -3.0), ("urban", "AUC", 0.8)]
    return pd.DataFrame([
        {"covariate": name, "measure": measure, "folds": "blocks of 50 km" if honest else "random",
         "honest": honest, "score": score, "ci_low": score - 0.1, "ci_high": score + 0.1}
        for name, measure, score in rows for honest in (True, False)
    ])  # fmt: skip


def test_each_measure_has_its_axis_and_bad_scores_stay_inside():
    found = predictability_figure(told())
    assert len(found.figure.axes) == 2
    assert "blocks of 50 km" in found.caption
    assert "−3.00" in texts(found.figure)
    assert found.figure.axes[0].get_xlim()[0] > -0.5
    marks = [line for line in found.figure.axes[0].lines if line.get_marker() == "<"]
    assert sum(len(line.get_xdata()) for line in marks) == 2


def test_covariates_without_score_are_left_out():
    table = told()
    table.loc[table["covariate"] == "wealth", "score"] = np.nan
    assert "wealth" not in texts(predictability_figure(table).figure)
    nothing = predictability_figure(table.assign(score=np.nan))
    to_svg(nothing.figure)
    only = predictability_figure(table[table["honest"]])
    assert "flatter" not in only.caption


@pytest.mark.parametrize(
    ("reach", "block", "words"),
    [(50.0, 30.0, "too good"), (50.0, 80.0, "at least as wide"), (0.0, None, "hardly more alike"),
     (np.inf, 80.0, "over all distances")],
)  # fmt: skip
def test_correlogram_says_how_far(reach, block, words):
    table = pd.DataFrame({
        "component": ["PC1"] * 3 + ["all"] * 3, "km": [5, 50, 500] * 2,
        "correlation": [0.6, 0.1, 0.0] * 2,
    })  # fmt: skip
    found = correlogram_figure(table, range_km=reach, threshold=0.1, p_value=0.0004, block_km=block)
    assert words in found.caption
    assert "p < 0.001" in found.caption
    drawn = texts(found.figure)
    assert ("range: 50 km" in drawn) == (reach == 50.0)
    assert ("blocks" in drawn) == (block is not None)
    to_svg(found.figure)


def history(folds=2, epochs=12, **own) -> pd.DataFrame:
    rows = [
        {"fold": f, "epoch": e, "training": 0.7 - 0.03 * e, "held_out": 0.6 + 0.01 * (e - 7) ** 2}
        for f in range(folds) for e in range(epochs)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**own)


def kept(figure) -> list[tuple[float, float]]:
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def test_learning_curves_mark_the_weights_that_were_kept():
    assert kept(learning_curves(history()).figure) == [(7.0, 0.6)] * 2
    named = history(kept=lambda h: h["epoch"] == 3)
    assert kept(learning_curves(named).figure) == [(3.0, pytest.approx(0.76))] * 2
    assert "more epochs" not in learning_curves(history()).caption
    short = learning_curves(history(epochs=6))
    assert "In 2 of 2 folds the last epoch was the best" in short.caption


def test_learning_curves_survive_bursts_and_failures():
    burst = history(epochs=60)
    burst.loc[5, "training"] = 1e6
    figure = learning_curves(burst).figure
    assert figure.axes[0].get_ylim()[1] < 1e3
    failed = learning_curves(history(held_out=np.nan))
    assert kept(failed.figure) == []
    to_svg(learning_curves(history(folds=12)).figure)
    with pytest.raises(MissingColumnError):
        learning_curves(history().drop(columns="held_out"))


def test_figures_are_the_same_every_time():
    data = cube()
    table = neighbors(data, [(0, 1, 1), (3, 1, 2)])
    assert to_png(contact_sheet(data, table).figure) == to_png(contact_sheet(data, table).figure)
    assert to_svg(pca_view(embedding()).figure) == to_svg(pca_view(embedding()).figure)


def test_long_names_that_begin_alike_can_be_told_apart():
    names = [f"District of the North / village {i}" for i in range(5)]
    shown = {cut_label(name, 18) for name in names}
    assert len(shown) == 5
    assert {len(name) for name in shown} == {18}
    assert cut_label("short", 18) == "short"


@pytest.mark.parametrize("km", [[1.5, 3.0, 7.0], [2.0, 20.0], [5.0, 4000.0], [3.0], [6.0, 9.0]])
def test_distances_on_the_axis_are_plain_numbers(km):
    table = pd.DataFrame({"component": "all", "km": km, "correlation": 0.2})
    figure = correlogram_figure(table, range_km=2.0, threshold=0.1, p_value=0.01, block_km=0.9)
    to_png(figure.figure)
    axis = figure.figure.axes[0].xaxis
    low, high = figure.figure.axes[0].get_xlim()
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    shown = [t.label1.get_text() for t in ticks if low <= t.get_loc() <= high]
    written = [text for text in shown if text]
    assert 1 <= len(written) <= 12
    assert all(float(text) > 0 for text in written)


def test_places_along_a_line_are_drawn_on_a_map():
    data = embedding(20)
    flat = data.assign_coords(lat=("neighborhood", np.full(20, 2.3471)))
    figure = pca_view(flat).figure
    to_png(figure)
    box = figure.axes[1].get_window_extent()
    assert 0.2 < box.height / box.width < 5


@pytest.mark.parametrize("names", [["red_edge", "red", "green", "blue"]])
def test_a_band_of_the_very_name_goes_first(names):
    assert picture_bands(names) == ("red", "green", "blue")


def test_no_reach_asks_for_no_blocks():
    table = pd.DataFrame({"component": "all", "km": [1.0, 3.0], "correlation": [0.05, 0.0]})
    found = correlogram_figure(table, range_km=0.0, threshold=0.1, p_value=0.4)
    assert "locks" not in found.caption
