import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from report_helpers import HOSTILE, content, effect_map, record, splits
from shapely.geometry import LineString, Point, Polygon, box

from eocausal.effect_map import EffectMap
from eocausal.errors import CRSError
from eocausal.reports.figures import report_figures, save_figures
from eocausal.reports.html import ReportContent, render_report, write_report
from eocausal.reports.layers import color_scale, place_layers
from eocausal.reports.maps import embeddable_json, interactive_map
from eocausal.reports.plots import effect_records, to_png, to_svg
from eocausal.reports.tables import (
    estimates_table,
    failures_table,
    flatten,
    format_interval,
    format_number,
    text_table,
    vcov_words,
)
from eocausal.reports.text import (
    claim_in_words,
    effect_sentence,
    heterogeneity_in_words,
    median_split_p,
    primary_estimate,
    treatment_auc_in_words,
    truth_in_words,
)


class Page(HTMLParser):
    """Elements with their attributes, and the text outside scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in {"script", "style"}:
            self.text.append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(content())


# --- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0742, "0.0742"), (-0.5, "−0.500"), (12345.6, "12,346"), (0.0, "0"), (2535, "2,535"),
        (np.int64(-3), "−3"), (float("nan"), "–"), (float("-inf"), "−∞"), (1.2e-9, "1.20e−09"),
    ],
)  # fmt: skip
def test_format_number(value, text):
    assert format_number(value) == text


def test_the_ends_of_an_interval_have_the_same_decimals():
    assert format_interval(-0.0123, 0.594) == "−0.012 to 0.594"
    assert format_interval(float("nan"), 1.0) == "–"
    assert format_interval(-0.0001, 5.0) == "0.00 to 5.00"


def test_vcov_in_words():
    assert vcov_words("Clustered(by='a b')") == "clustered by a b"
    assert vcov_words("Conley(km=50, lon='lon', lat='lat')") == "spatial, 50 km (Conley)"
    assert vcov_words("HC2()") == "robust (HC2)"
    assert vcov_words("Other()") == "Other()"


def test_vcov_in_words_knows_the_rules_that_exist():
    from eocausal.estimators.inference import HC2, Clustered, Conley

    for rule in (HC2(), Clustered("village"), Conley(km=100)):
        assert vcov_words(repr(rule)) != repr(rule)


def test_text_table_counts_what_it_leaves_out():
    table = text_table(pd.DataFrame({"a_b": range(5), "c": list("vwxyz")}), max_rows=2)
    assert table.header == ("a b", "c")
    assert table.rows == (("0", "v"), ("1", "w"))
    assert table.left_out == 3
    assert table.numeric == (True, False)


def test_estimates_table_takes_null_and_absent_numbers():
    table = estimates_table([{"estimand": "ATE", "method": "m", "estimate": None, "n": None}])
    assert table.rows[0][3:8] == ("–", "–", "–", "–", "–")


def test_failures_are_counted_by_reason():
    frame = pd.DataFrame({
        "stage": ["cube", "cube", "scan"], "kind": ["chip", "chip", "scene"],
        "subject": ["b", "a", "x.tif"], "reason": ["outside", "outside", "odd_word"],
        "detail": ["", "", "why"], "period": "",
    })  # fmt: skip
    assert failures_table(frame).rows == (
        ("cube", "chip", "Outside every scene", "2", "a"),
        ("scan", "scene", "Odd word", "1", "x.tif: why"),
    )
    assert failures_table(pd.DataFrame()).rows == ()


def test_flatten_keeps_seeds_whole():
    assert flatten({"seed": 1234567, "v": {"a": None, "b": [1, 2]}}) == [
        ("seed", "1234567"), ("v.a", "–"), ("v.b", "1, 2"),
    ]  # fmt: skip


# --- words -------------------------------------------------------------------------------------


def test_the_headline_is_the_primary_then_the_clustered_record():
    plain, clustered = record(), record(vcov="Clustered(by='village')")
    marked = record(primary=True)
    assert primary_estimate([plain, clustered, marked]) is marked
    assert primary_estimate([plain, clustered]) is clustered
    assert primary_estimate([plain]) is plain
    assert primary_estimate([]) is None


def test_a_clear_effect_is_said_with_interval_and_error():
    words = effect_sentence(record(-0.74, 0.08), outcome="income", unit="SD")
    assert "lowered income by 0.740 SD" in words
    assert "95% interval of the effect −0.897 to −0.583" in words
    assert (
        "standard error 0.0800, robust (HC2), n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}2,535" in words
    )


def test_an_interval_with_zero_is_no_evidence_and_not_no_effect():
    words = effect_sentence(record(0.05, 0.1), outcome="income")
    assert "no evidence" in words
    assert "no effect" not in words
    assert "compatible with any effect in that interval" in words


def test_an_effect_without_standard_error_concludes_nothing():
    words = effect_sentence(record(0.7, float("nan")))
    assert "nothing can be concluded" in words
    assert "raised" not in words


def test_a_failed_check_puts_the_claim_in_doubt_first():
    full = content(failed=True)
    assert full.claim.startswith("In doubt: the check “Balance” failed.")
    assert not content().claim.startswith("In doubt")


def test_split_p_is_twice_the_median_and_one_sided_against_bad_rankings():
    assert median_split_p(np.full(20, 1.96)) == pytest.approx(0.1, abs=1e-3)
    assert median_split_p(np.full(20, -5.0)) == 1.0
    assert median_split_p(np.full(3, np.nan)) == 1.0


def test_heterogeneity_and_the_use_of_the_map_go_together():
    emap = effect_map()
    found = claim_in_words([record()], emap, [], heterogeneity=splits(4.0))
    absent = claim_in_words([record()], emap, [], heterogeneity=splits(0.3))
    untested = claim_in_words([record()], emap, [])
    assert "may be used to compare groups of places" in found
    assert "cannot be told from chance" in absent
    assert "not evidence that the effect is the same everywhere" in absent
    assert "not tested" in untested
    assert "1 of the 80 mapped places" in found
    assert "could not be tested" in heterogeneity_in_words(splits(np.nan))


def test_auc_and_truth_in_words():
    full = content()
    assert "grouped by Balance" in treatment_auc_in_words(full.treatment_auc)
    assert (
        "no evidence that the imagery tells the arms apart. Images are shared."
        in treatment_auc_in_words(full.treatment_auc)
    )
    words = truth_in_words(full.truth)
    assert "Over 80 neighborhoods" in words
    assert "correlation of estimate and truth is 1.00" in words
    empty = full.truth.assign(estimate=np.nan)
    assert truth_in_words(empty).startswith("No neighborhood")


# --- shapes and colors -------------------------------------------------------------------------


def test_layers_are_kilometres_around_the_middle():
    layers = place_layers(effect_map(9))
    assert layers.size_km == pytest.approx((100.2, 99.6), rel=0.01)
    corner = layers.polygons[0][0][0]
    assert np.hypot(*np.ptp(corner, axis=0)) == pytest.approx(15.7, abs=0.1)
    assert np.nanmean(layers.x) == pytest.approx(0, abs=0.1)
    assert len(layers.polygons[0][0]) == 2, "the hole is kept"
    assert layers.mark_rows == []
    assert np.flatnonzero(layers.extrapolated).tolist() == [1]


def test_one_hatching_covers_every_extrapolated_area_once():
    table = effect_map(3).table.assign(status="extrapolated")
    wide = [box(x0, y0, x1 + 0.02, y1 + 0.02) for x0, y0, x1, y1 in table.bounds.to_numpy()]
    overlapping = table.set_geometry(wide, crs=table.crs)
    layers = place_layers(EffectMap(overlapping))
    assert len(layers.hatched) == 1
    assert place_layers(effect_map(3, points=True)).hatched == []
    assert place_layers(EffectMap(table.assign(status="ok"))).hatched == []


def test_points_tiny_and_missing_shapes_become_marks_or_nothing():
    shapes = [
        box(30, 0, 30.001, 0.001),
        Point(34, 3),
        None,
        Polygon(),
        LineString([(31, 1), (32, 1)]),
    ]
    n = len(shapes)
    table = gpd.GeoDataFrame(
        {"estimand": "CATE", "method": "m", "estimate": 1.0, "std_error": 1.0, "ci_low": 0.0,
         "ci_high": 2.0, "support": 1.0, "status": ["ok"] * n},
        geometry=shapes, crs=4326, index=pd.Index(range(n), name="neighborhood"),
    )  # fmt: skip
    layers = place_layers(EffectMap(table))
    assert layers.mark_rows == [0, 1, 4]
    assert layers.area_rows == []
    with pytest.raises(CRSError, match="No place"):
        place_layers(EffectMap(table.iloc[2:4]))


def test_places_on_both_sides_of_the_antimeridian_are_neighbors():
    emap = effect_map(2, points=True)
    table = emap.table.set_geometry([Point(179.9, 0), Point(-179.9, 0), Point(179.8, 0.1),
                                     Point(-179.8, 0.1)], crs=4326)  # fmt: skip
    assert max(place_layers(EffectMap(table)).size_km) < 60


def test_many_vertices_are_simplified():
    angle = np.linspace(0, 2 * np.pi, 40_000, endpoint=False)
    wiggly = [Polygon(np.column_stack([32 + i + 0.4 * np.cos(angle), 1 + 0.4 * np.sin(angle)]))
              for i in range(9)]  # fmt: skip
    emap = EffectMap(effect_map(3).table.set_geometry(wiggly, crs=4326))
    layers = place_layers(emap)
    count = sum(len(ring) for row in layers.area_rows for ring in layers.rings(row))
    assert 100 < count < 3_000


def test_colors_diverge_around_zero_only_if_signs_differ():
    table = effect_map().table
    scale = color_scale(table, "estimate")
    assert scale.low == -scale.high
    positive = color_scale(table.assign(estimate=table["estimate"].abs()), "estimate")
    assert positive.low > 0
    assert positive.palette != scale.palette
    negative = color_scale(table.assign(estimate=-table["estimate"].abs()), "estimate")
    assert negative.palette == positive.palette[::-1]


def test_an_extrapolation_does_not_stretch_the_colors():
    table = effect_map().table.copy()
    before = color_scale(table, "estimate")
    table.loc["place 1", "estimate"] = 1e6
    after = color_scale(table, "estimate")
    assert (after.low, after.high) == (before.low, before.high)
    assert after.extend == "max"


@pytest.mark.parametrize("value", [0.0, 0.4, -2.0, np.nan])
def test_one_value_still_has_a_scale(value):
    scale = color_scale(effect_map(2).table.assign(estimate=value, status="ok"), "estimate")
    assert scale.low < scale.high


# --- the page ----------------------------------------------------------------------------------


def test_the_parts_stand_in_order(page):
    titles = [
        "claim", "map-title", "estimates-title", "rate-title", "auc-title", "truth-title",
        "checks-title", "failures-title", "data-title", "provenance-title",
    ]  # fmt: skip
    places = [page.index(f'class="{titles[0]}"'), *(page.index(f'id="{t}"') for t in titles[1:])]
    assert places == sorted(places)
    assert 'class="alarm"' not in page


def test_a_failed_check_stands_before_everything():
    page = render_report(content(failed=True))
    assert page.index('class="alarm"') < page.index("<h1>")
    body = "".join(Page(page).text).split()
    assert " ".join(body[body.index("✕") :][:12]).startswith("✕ A check failed: do not rely")


def test_nothing_is_fetched(page):
    for tag, attributes in Page(page).elements:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_names_the_scripts_by_hash(page):
    policy = next(a["content"] for t, a in Page(page).elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.count("'sha256-") == 2
    assert "unsafe-eval" not in policy


def test_hostile_names_are_escaped_everywhere():
    page = render_report(content(hostile=True))
    parsed = Page(page)
    assert sum(tag == "script" for tag, _ in parsed.elements) == 3
    assert not any("onerror" in attributes for _, attributes in parsed.elements)
    assert "49" not in "".join(parsed.text).split(), "templates in names are not evaluated"
    assert HOSTILE[1] in "".join(parsed.text), "names are shown as they are"
    start = page.index('id="effect-map-item">') + len('id="effect-map-item">')
    item = json.loads(page[start : page.index("</script>", start)])
    assert set(HOSTILE) <= set(_names(item))


def _names(item: dict) -> list[str]:
    found: list[str] = []

    def walk(value):
        if isinstance(value, dict):
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            if len(value) == 2 and value[0] == "neighborhood" and isinstance(value[1], list):
                found.extend(value[1])
            for inner in value:
                walk(inner)

    walk(item)
    return found


def test_embeddable_json_round_trips():
    value = {"a": [*HOSTILE, "é", None, 1.5]}
    text = embeddable_json(value)
    assert json.loads(text) == value
    assert not re.search(r"[<>&\u2028\u2029]", text)


def test_equal_content_gives_equal_bytes_whatever_was_drawn_before(tmp_path):
    from bokeh.plotting import figure

    first = write_report(tmp_path / "a.html", content()).read_bytes()
    figure().scatter([1], [1])
    render_report(content(points=True))
    assert write_report(tmp_path / "b.html", content()).read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_other_numbers_give_other_bytes():
    full = content()
    assert render_report(full) != render_report(replace(full, provenance={"seed": 8}))


def test_a_report_that_cannot_be_drawn_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    broken = replace(content(), treatment_auc=pd.DataFrame({"auc": [0.5]}))
    with pytest.raises(KeyError):
        write_report(path, broken)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_least_report_has_no_script():
    page = render_report(ReportContent(title="T", claim="Nothing yet."))
    assert "<script" not in page
    assert "script-src 'none'" in html.unescape(page)
    assert "Nothing was left out" in page


def test_a_map_without_any_estimate_is_grey():
    emap = effect_map(2)
    table = emap.table.assign(estimate=np.nan, std_error=np.nan, ci_low=np.nan, ci_high=np.nan,
                              support=np.nan, status="no_image")  # fmt: skip
    page = render_report(ReportContent(title="T", claim="C", effect_map=EffectMap(table)))
    assert "grey: no estimate" in page


def test_areas_outside_support_are_hatched_and_marks_crossed():
    areas = interactive_map(effect_map(), place_layers(effect_map()))
    drawn = areas["doc"]["roots"][0]["attributes"]["renderers"]
    hatches = [r["attributes"]["glyph"]["attributes"].get("hatch_pattern") for r in drawn]
    assert hatches == [None, {"type": "value", "value": "/"}]
    points = effect_map(points=True)
    marks = json.dumps(interactive_map(points, place_layers(points)))
    assert '["marker", ["circle", "square_x", "circle"' in marks


def test_ten_thousand_places_stay_small():
    emap = effect_map(100)
    page = render_report(ReportContent(title="T", claim="C", effect_map=emap))
    assert len(page.encode()) < 8_000_000


# --- figures -----------------------------------------------------------------------------------


def test_figures_are_saved_with_equal_bytes(tmp_path):
    paths = save_figures(tmp_path / "one", content())
    again = save_figures(tmp_path / "two", content())
    assert [p.name for p in paths] == [
        "effects_map.png", "coefficients.png", "rate.png", "auc.png", "truth.png",
    ]  # fmt: skip
    for a, b in zip(paths, again, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert a.read_bytes().startswith(b"\x89PNG")


def test_figures_take_hostile_and_foreign_labels():
    for figure in report_figures(content(hostile=True)).values():
        assert b"Date" not in to_svg(figure)
    named = record(method="差の平均 $x_", primary=True)
    figures = report_figures(ReportContent(title="T", claim="C", estimates=[named]))
    assert to_png(figures["coefficients"], dpi=50)


def test_only_effects_share_the_axis_of_coefficients():
    rows = [record(primary=True), record(estimand="AUTOC"), record(float("nan")),
            record(estimand="average effect over mapped neighborhoods")]  # fmt: skip
    assert [r["estimand"] for r in effect_records(rows)] == [
        "ATE", "average effect over mapped neighborhoods",
    ]  # fmt: skip


def test_coefficients_are_told_apart_by_variance_or_estimand():
    rows = [record(primary=True), record(vcov="Clustered(by='village')"),
            record(estimand="average effect over mapped neighborhoods")]  # fmt: skip
    figures = report_figures(ReportContent(title="T", claim="C", estimates=rows))
    labels = [t.get_text() for t in figures["coefficients"].axes[0].get_yticklabels()]
    assert labels == [
        "difference in means\nrobust (HC2)",
        "difference in means\nclustered by village",
        "average effect over\nmapped neighborhoods",
    ]


def test_estimates_without_effect_are_grey_in_the_static_map():
    from matplotlib.collections import PathCollection
    from matplotlib.colors import to_rgba

    from eocausal.reports.layers import NO_ESTIMATE

    figure = report_figures(ReportContent(title="T", claim="C", effect_map=effect_map()))
    axes = figure["effects_map"].axes[0]
    colors = [tuple(c) for c in axes.collections[0].get_facecolors()]
    assert isinstance(axes.collections[0], PathCollection)
    assert colors.count(to_rgba(NO_ESTIMATE)) == 1


def test_levels_and_distances_are_printed_in_full():
    said = effect_sentence(record(level=0.975))
    assert "97.5% interval" in said
    assert vcov_words("Conley(km=1e-05, kernel=Uniform())") == "spatial, 1e-05 km (Conley)"
