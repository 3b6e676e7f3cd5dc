"""What reports of placed projects say and draw, whatever the numbers are."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from report_helpers import HOSTILE

from eocausal.checks.base import CheckResult, Verdict
from eocausal.reports.content import ReportContent
from eocausal.reports.evaluation_forest import forest_figure, placement_figure
from eocausal.reports.evaluation_panels import look_of
from eocausal.reports.evaluation_plots import (
    calibration_figure,
    corrections_figure,
    love_figure,
    sensitivity_figure,
)
from eocausal.reports.evaluation_rows import asked_estimand, tidy_sectors
from eocausal.reports.evaluation_text import (
    corrections_words,
    evaluation_claim,
    gaps_words,
    headline_kind,
    placement_words,
    sectors_table,
)
from eocausal.reports.html import render_report
from eocausal.reports.plots import to_png, to_svg

NAN = float("nan")
ADJUSTMENTS = ("table", "image", "both")
COLUMNS = (
    "funder", "sector", "adjustment", "estimand", "status", "estimate", "std_error", "ci_low",
    "ci_high", "simultaneous_low", "simultaneous_high", "p_value", "q_value", "n", "n_treated",
    "ess_treated", "ess_control", "note",
)  # fmt: skip


def effect(sector="Health", funder="World Bank", adjustment="both", value=0.2, error=0.05, **own):
    """A row with an estimate."""
    row = {
        "funder": funder, "sector": sector, "adjustment": adjustment, "estimand": "ATE",
        "status": "ok", "estimate": value, "std_error": error, "ci_low": value - 2 * error,
        "ci_high": value + 2 * error, "simultaneous_low": value - 3 * error,
        "simultaneous_high": value + 3 * error, "p_value": 0.001, "q_value": 0.01, "n": 4000,
        "n_treated": 700, "ess_treated": 350.0, "ess_control": 2000.0, "note": "",
    }  # fmt: skip
    return row | own


def without(sector="Energy", funder="World Bank", adjustment="both", status="refused", **own):
    """A row without an estimate."""
    none = dict.fromkeys(
        (c for c in COLUMNS if c.startswith(("estimate", "std", "ci", "sim"))), NAN
    )
    return effect(sector, funder, adjustment, **none) | {
        "status": status, "p_value": NAN, "q_value": NAN, **own,
    }  # fmt: skip


def frame(*rows):
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def study():
    """Two funders, three sectors, all adjustments; one is refused, one reached too few."""
    rows = []
    for adjustment, shift in zip(ADJUSTMENTS, (0.1, 0.02, 0.0), strict=True):
        rows += [
            effect(adjustment=adjustment, value=0.2 + shift),
            effect("Education", adjustment=adjustment, value=0.01 + shift, q_value=0.8),
            without(adjustment=adjustment),
            effect("Health", "China", adjustment, value=-0.15 + shift, n_treated=120),
            without("Education", "China", adjustment, status="few", n_treated=12),
        ]
    return frame(*rows)


# --- rows --------------------------------------------------------------------------------------


def test_an_effect_on_another_population_stands_in_for_a_refused_one():
    table = tidy_sectors(frame(without(), effect("Energy", estimand="ATO"), effect()))
    assert table[["sector", "given", "fall_back", "refused"]].to_numpy().tolist() == [
        ["Energy", True, True, True], ["Health", True, False, False],
    ]  # fmt: skip


def test_the_effect_asked_for_is_kept_where_there_is_one():
    table = tidy_sectors(frame(effect(estimand="ATO", value=9.0), effect(value=0.2)))
    assert table["estimate"].tolist() == [0.2]
    assert not table["refused"].any()


def test_numbers_of_refused_rows_are_not_shown():
    row = effect(status="refused", value=25.0)
    assert not tidy_sectors(frame(row))["given"].any()
    assert "25" not in evaluation_claim(frame(row))
    assert "25.0" not in sectors_table(frame(row)).rows[0]


def test_the_widest_population_that_occurs_was_asked_for():
    assert asked_estimand(frame(effect(estimand="ATO"), without(estimand="ATT"))) == "ATT"
    assert asked_estimand(frame(effect(estimand="ATE of the kept"))) == "ATE of the kept"
    assert asked_estimand(frame()) == "ATE"


def test_columns_may_be_absent_and_numbers_none():
    row = {k: v for k, v in effect().items() if "simul" not in k and k not in ("note", "q_value")}
    table = tidy_sectors(pd.DataFrame([row, row | {"sector": "Energy", "estimate": None}]))
    assert table["given"].tolist() == [True, False]
    assert table["q_value"].isna().all()


# --- the claim ---------------------------------------------------------------------------------


def test_a_shown_effect_is_said_with_interval_unit_and_population():
    words = evaluation_claim(study(), outcome="wealth", unit="points")
    assert (
        "Adjusted for table and image, World Bank projects in “Health” raised wealth by 0.200 "
        "points on average over all neighborhoods that were compared (95% interval 0.100 to 0.300"
    ) in words
    assert "700 treated" in words


def test_a_negative_effect_lowered_the_outcome():
    words = evaluation_claim(study(), headline=("China", "Health"), outcome="wealth")
    assert "China projects in “Health” lowered wealth by 0.150 on average" in words


def test_the_headline_is_the_kind_with_the_most_treated_that_has_an_estimate():
    rows = [effect(n_treated=50), effect("Education", n_treated=90), without(n_treated=900),
            effect("Water", n_treated=800, estimand="ATO")]  # fmt: skip
    assert headline_kind(frame(*rows)) == ("World Bank", "Education")
    assert headline_kind(frame(without())) is None


def test_how_many_are_shown_is_said_by_funder_after_looking_at_all():
    words = evaluation_claim(study())
    assert "having looked at 3 kinds of projects (q < 0.05)" in words
    assert "1 of 2 sectors of World Bank (“Health” +0.200)" in words
    assert "1 of 1 sectors of China (“Health” −0.150)" in words


def test_nothing_significant_is_no_evidence_of_no_effect():
    rows = [
        effect(value=0.05, error=0.05, q_value=0.6),
        effect("Education", value=-0.02, q_value=1),
    ]
    words = evaluation_claim(frame(*rows), outcome="wealth")
    assert "no effect of World Bank projects in “Health” on wealth is shown" in words
    assert "any effect in that interval, not only with none" in words
    assert "no effect is shown for any of them. That is no evidence that they have none." in words
    assert "raised" not in words
    assert "may as well hide an effect" in words


def test_an_effect_that_many_looks_explain_is_not_claimed():
    rows = [effect(value=0.11, q_value=0.12), effect("Education", value=0.0, q_value=0.9)]
    words = evaluation_claim(frame(*rows))
    assert "raised" not in words
    assert "By itself that excludes zero, but" in words
    assert "not shown (q = 0.12)" in words


def test_all_refused_is_no_zero():
    rows = [without(), without("Health"), without("Water", status="few")]
    words = evaluation_claim(frame(*rows), outcome="wealth")
    assert words.startswith("There is no estimate of an effect on wealth for any of 3 kinds")
    assert "2 without overlap" in words
    assert "1 with too few treated" in words
    assert "no evidence that there is no effect" in words
    assert "assumes" not in words


def test_a_refused_headline_has_no_estimate():
    words = evaluation_claim(study(), headline=("World Bank", "Energy"))
    assert words.startswith("There is no estimate of the effect of World Bank projects in “Energy”")
    assert "That is not an estimate of zero." in words


def test_refused_kinds_are_named_with_the_region():
    gaps = pd.DataFrame({"funder": ["World Bank"], "sector": ["Energy"], "words": ["9 units, all"]})
    words = evaluation_claim(study(), gaps=gaps)
    assert "is refused for World Bank projects in “Energy”" in words
    assert "a refused effect is not an effect of zero" in words
    assert "Without counterpart are, for World Bank projects in “Energy”, 9 units, all." in words
    assert "1 kind of projects reached too few neighborhoods" in words


def test_a_fall_back_says_whose_effect_it_is():
    rows = [without("Health"), effect(estimand="ATO")]
    words = evaluation_claim(frame(*rows))
    assert "in neighborhoods that could about as well have got a project as not" in words
    assert "It is not the effect over all neighborhoods that were compared" in words
    assert "stands in for 1 of them" in words


@pytest.mark.parametrize(
    ("estimand", "whom"),
    [
        ("ATT", "in the neighborhoods that got a project"),
        ("ATE of the kept", "compared, without those that trimming left out"),
    ],
)
def test_the_population_is_said_in_words(estimand, whom):
    assert whom in evaluation_claim(frame(effect(estimand=estimand)))


def test_what_the_image_changed():
    words = evaluation_claim(study(), unit="points")
    assert "changed the estimate from 0.300 to 0.200 points, by 2.0 of its standard errors" in words
    assert "the image alone gives 0.220" in words
    assert "In 2 of 3 kinds of projects it brought the estimate nearer to zero" in words


def test_estimates_of_different_populations_are_not_compared():
    rows = [effect(adjustment="table"), effect(estimand="ATO")]
    words = evaluation_claim(frame(*rows))
    assert "What the image changed cannot be said" in words
    assert "changed the estimate" not in words


def test_the_image_is_not_mentioned_without_the_table_or_where_it_was_not_adjusted_for():
    assert "image besides" not in evaluation_claim(frame(effect()))
    assert "image besides" not in evaluation_claim(study(), adjustment="table")


def test_one_funder_and_one_sector():
    words = evaluation_claim(frame(effect()))
    assert "having looked at" not in words
    assert len(words.split("\n\n")) == 2


def test_the_assumption_and_how_strong_something_hidden_would_be():
    strong = {"factor_interval": 1.3, "factor_estimate": 1.9, "benchmarks": {"a": 1.2, "b": 1.5}}
    words = evaluation_claim(study(), sensitivity=strong, outcome="wealth")
    assert "nothing unmeasured drove both placement and wealth. The data cannot prove that" in words
    assert "by a factor of 1.30 to make the interval of the first effect above" in words
    assert "and of 1.90 to make the estimate zero" in words
    assert "“b”, changes them by 1.50, so that something as strong would be enough" in words
    weak = evaluation_claim(study(), sensitivity=strong | {"benchmarks": {"a": 1.2, "c": NAN}})
    assert "would not be enough" in weak
    alone = evaluation_claim(study(), sensitivity=strong | {"benchmarks": {}})
    assert "no measured confounder could be left out" in alone
    assert "is not computed" in evaluation_claim(study())
    huge = evaluation_claim(study(), sensitivity=strong | {"factor_estimate": np.inf})
    assert "more than 1,000" in huge


def test_a_failed_check_puts_the_claim_in_doubt_first():
    failed = CheckResult("Overlap", Verdict.FAIL, "Bad.")
    assert evaluation_claim(study(), checks=[failed]).startswith("In doubt: the check “Overlap”")


def test_missing_numbers_conclude_nothing():
    words = evaluation_claim(frame(effect(std_error=NAN, ci_low=NAN, ci_high=NAN, q_value=NAN)))
    assert "nothing can be concluded" in words
    assert "raised" not in words
    rows = [effect(q_value=NAN), effect("Education", q_value=NAN, n=NAN, n_treated=NAN)]
    assert "is not computed" in evaluation_claim(frame(*rows))
    assert "nan" not in evaluation_claim(frame(*rows)).lower()
    lost = evaluation_claim(frame(effect(value=NAN), effect("Education")))
    assert "nan" not in lost.lower()
    assert evaluation_claim(frame()) == "Nothing was estimated."


def test_uneven_weights_are_said():
    assert "carry much of the weight" in evaluation_claim(frame(effect(status="warned")))


# --- placement, corrections, gaps --------------------------------------------------------------


def placement(auc=0.8, gain=0.05, sectors=("Health", "Energy")):
    rows = []
    for sector in sectors:
        for name, shift in (("table", 0.0), ("image", 0.02), ("both", gain)):
            value = auc + shift
            rows.append({
                "funder": "World Bank", "sector": sector, "confounders": name, "auc": value,
                "ci_low": value - 0.03, "ci_high": value + 0.03,
                "gain_over_table": NAN if name == "table" else shift,
                "gain_low": NAN if name == "table" else shift - 0.02,
                "gain_high": NAN if name == "table" else shift + 0.02,
            })  # fmt: skip
    return pd.DataFrame(rows)


def test_placement_is_said_for_the_headline_and_by_funder():
    words = placement_words(placement(), headline=("World Bank", "Health"))
    assert "from the table 0.80 (0.77 to 0.83)" in words
    assert "The image adds to what the table tells: 0.05" in words
    assert "0.85 to 0.85 (median 0.85) over 2 sectors of World Bank" in words
    assert "In 2 of 2 the image tells more" in words
    assert "overlap is in doubt" not in words


def test_a_gain_that_may_be_none_is_not_claimed():
    words = placement_words(placement(gain=0.01), headline=("World Bank", "Health"))
    assert "is not shown: 0.01" in words
    assert "In 0 of 2" in words


def test_placement_that_is_nearly_certain_puts_overlap_in_doubt():
    words = placement_words(placement(auc=0.93, sectors=("Health",)))
    assert "For World Bank projects in “Health” so few" in words
    assert "overlap is in doubt" in words


def test_placement_without_numbers_or_with_the_table_alone():
    assert "could not be computed" in placement_words(placement().assign(auc=NAN))
    assert "could not be computed" in placement_words(placement().iloc[:0])
    only = placement()
    words = placement_words(only[only["confounders"] == "table"], headline=("China", "Health"))
    assert "From the table" in words
    assert "the image" not in words


def corrections(measured=0.2, naive=0.1):
    rows = [("", "measured", measured, 0.05, NAN)]
    for name in ("satellites", "lights"):
        rows += [
            (name, "prediction-powered", 0.21, 0.06, 800), (name, "naive", naive, 0.02, NAN),
            (name, "Tweedie", 0.18, 0.05, 800), (name, "linear calibration", 0.19, 0.05, 800),
        ]  # fmt: skip
    table = pd.DataFrame(
        rows, columns=["prediction", "method", "estimate", "std_error", "n_labelled"]
    )
    half = 2 * table["std_error"]
    return table.assign(
        ci_low=table["estimate"] - half, ci_high=table["estimate"] + half, n=4000
    )  # fmt: skip


def test_attenuation_is_said_as_a_share_of_what_was_measured():
    words = corrections_words(corrections(), outcome="wealth", unit="SD")
    assert "On the prediction “satellites” the effect is 0.100 SD (0.060 to 0.140)" in words
    assert "on wealth as measured 0.200 SD (0.100 to 0.300); that is 50% of it" in words
    assert "Corrected, with 800 labelled neighborhoods: linear calibration 0.190 SD" in words
    assert "only measured outcomes help (prediction-powered inference)" in words


def test_no_share_of_an_effect_that_is_not_shown():
    words = corrections_words(corrections(measured=0.02))
    assert "which includes zero), so that no share of it can be given" in words
    assert "% of it" not in words


def test_where_errors_depend_on_treatment_only_labels_help():
    tested = pd.DataFrame({"prediction": ["satellites", "lights"], "p_value": [1e-6, 0.4]})
    words = corrections_words(corrections(), exclusion=tested)
    assert "depends on treatment (p < 0.001): use the prediction-powered effect alone" in words
    assert "That its error depends on treatment is not shown (p = 0.400)" in words
    bare = corrections()
    bare = bare[bare["method"] != "prediction-powered"]
    assert "do not use it" in corrections_words(bare, exclusion=tested)
    lost = corrections_words(corrections(), exclusion=tested.assign(p_value=NAN))
    assert "could not be tested" in lost


def test_corrections_with_missing_numbers():
    table = corrections().assign(ci_low=NAN, ci_high=NAN)
    assert "of unknown uncertainty" in corrections_words(table)
    assert "nan" not in corrections_words(table.assign(estimate=NAN)).lower()
    assert corrections_words(table.iloc[:0]) == ""
    own = corrections()
    own.loc[0, "prediction"] = "lights"
    assert corrections_words(own).count("as measured") == 1


def test_gaps_in_words():
    gaps = pd.DataFrame({
        "funder": ["World Bank", "China"], "sector": ["Energy", "Health"],
        "words": ["132 units, exactly those with lon below 20.1.", None], "n_inside": [132, 7],
        "share": [0.12, NAN],
    })  # fmt: skip
    assert gaps_words(gaps) == [
        "World Bank projects in “Energy”: no counterpart among the others for 132 units, exactly "
        "those with lon below 20.1 (12.0% of those compared).",
        "China projects in “Health”: no counterpart among the others for 7 neighborhoods.",
    ]
    assert gaps_words(gaps.iloc[:0]) == []


def test_the_table_of_sectors_says_why_a_number_is_missing():
    table = sectors_table(study())
    by = {(row[0], row[1], row[2]): row for row in table.rows}
    assert len(table.header) == len(table.numeric) == len(table.rows[0])
    assert by["World Bank", "Energy", "the table"][7:11] == ("no overlap", "–", "–", "–")
    assert by["China", "Education", "the image"][7] == "too few treated"
    assert by["World Bank", "Health", "table and image"][7:11] == (
        "0.200", "0.100 to 0.300", "0.050 to 0.350", "0.010",
    )  # fmt: skip


# --- figures -----------------------------------------------------------------------------------


def words_of(axes):
    return [text.get_text() for text in axes.texts]


def marks(axes, color=None):
    """Lines of one point that are marks of estimates, as marker, colour and whether open."""
    found = []
    for line in axes.lines:
        if line.get_marker() not in ("None", None, "<", ">") and len(line.get_xdata()) == 1:
            open_ = line.get_markerfacecolor() == "white"
            found.append((line.get_marker(), to_hex(line.get_color()), open_))
    return [m for m in found if color is None or m[1] == color]


def test_a_forest_has_a_panel_per_funder_and_a_row_per_sector():
    figure = forest_figure(study(), outcome="wealth", unit="points")
    bank, china = figure.axes
    assert [a.get_title(loc="left") for a in figure.axes] == ["World Bank", "China"]
    labels = [t.get_text() for t in bank.get_yticklabels()]
    assert labels == ["Health", "Education", "Energy"]
    assert len(marks(bank)) == 6
    assert len(marks(china)) == 3
    assert {m[:2] for m in marks(bank)} == {
        (look_of(a).marker, look_of(a).color) for a in ADJUSTMENTS
    }
    assert words_of(bank).count("no overlap") == 1
    assert words_of(china).count("too few treated") == 1
    assert words_of(china).count("–") == 1
    assert {"700", "120", "12"} <= set(words_of(bank) + words_of(china))
    assert figure.get_supxlabel() == "Effect on wealth (points)"


def test_intervals_are_thick_pointwise_and_thin_together():
    axes = forest_figure(frame(effect())).axes[0]
    ends = {line.get_linewidth(): list(line.get_xdata()) for line in axes.lines
            if len(set(line.get_ydata())) == 1 and len(line.get_xdata()) == 2}  # fmt: skip
    assert ends[3.0] == pytest.approx([0.1, 0.3])
    assert ends[1.0] == pytest.approx([0.05, 0.35])


def test_another_population_is_drawn_open_and_named():
    figure = forest_figure(frame(effect(), without(), effect("Energy", estimand="ATO")))
    axes = figure.axes[0]
    assert [m[2] for m in marks(axes)] == [False, True]
    assert any(text.startswith("ATO") for text in words_of(axes))
    assert "no overlap" not in words_of(axes)
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert "open: ATO, not ATE" in legend


def test_one_adjustment_may_be_refused_where_others_are_not():
    axes = forest_figure(frame(effect(), without("Health", adjustment="image"))).axes[0]
    assert words_of(axes).count("no overlap") == 1
    assert len(marks(axes)) == 1


def test_shown_and_warned_effects_are_marked():
    rows = [effect(status="warned"), effect("Education", q_value=0.5)]
    figure = forest_figure(frame(*rows))
    assert "* !" in words_of(figure.axes[0])
    legend = " ".join(t.get_text() for t in figure.legends[0].get_texts())
    assert "q < 0.05" in legend
    assert "few units carry" in legend


def test_sectors_that_are_few_everywhere_are_named_below():
    rows = [effect(), *(without(f"sector {i}", status="few") for i in range(12))]
    figure = forest_figure(frame(*rows))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["Health"]
    assert "Too few treated neighborhoods: sector 0" in figure.get_supxlabel().replace("\n", " ")
    assert "4 more" in figure.get_supxlabel().replace("\n", " ")


def test_a_huge_interval_is_cut_with_arrows():
    rows = [effect(f"s{i}", value=0.1 * i) for i in range(8)] + [
        effect("wild", value=300, error=90)
    ]
    axes = forest_figure(frame(*rows)).axes[0]
    assert axes.get_xlim()[1] < 3
    assert "300" in " ".join(words_of(axes))
    assert any(line.get_marker() == ">" for line in axes.lines)


@pytest.mark.parametrize(
    "rows",
    [
        [], [without()], [without(status="few")], [effect(value=NAN)],
        [effect(ci_low=NAN, ci_high=NAN, simultaneous_low=NAN, simultaneous_high=NAN)],
        [effect(value=0, error=0)], [effect(funder=f"funder {i}") for i in range(5)],
        [effect(n_treated=NAN)],
    ],
)  # fmt: skip
def test_forests_of_little_or_nothing_are_drawn(rows):
    assert to_png(forest_figure(frame(*rows)), dpi=40)


def test_placement_is_drawn_by_set_of_confounders():
    figure = placement_figure(placement())
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["Health", "Energy"]
    assert sorted(m[0] for m in marks(axes)) == ["^", "^", "o", "o", "s", "s"]
    lost = placement_figure(placement().assign(auc=NAN, ci_low=NAN)).axes[0]
    assert words_of(lost) == ["not told", "not told"]
    assert to_png(placement_figure(placement().iloc[:0]), dpi=40)


def test_sets_by_other_names_have_looks():
    assert look_of("table + landsat").marker == look_of("both").marker
    assert look_of("landsat").marker == look_of("image").marker


def balance(columns=40, features=100):
    rng = np.random.default_rng(0)
    n = columns + features
    names = [f"column {i}" for i in range(columns)] + [f"f{i}" for i in range(features)]
    return pd.DataFrame(
        {
            "source": ["table"] * columns + ["landsat"] * features,
            "smd_before": rng.normal(0, 0.4, n), "smd_after": rng.normal(0, 0.05, n),
        },
        index=pd.Index(names, name="covariate"),
    )  # fmt: skip


def test_a_love_plot_has_at_most_thirty_rows_and_sums_up_features():
    table = balance()
    axes = love_figure(table).axes[0]
    labels = [t.get_text().replace("\n", " ") for t in axes.get_yticklabels()]
    assert len(labels) == 30
    assert labels[-1] == "landsat: 100 features, median and worst"
    before = table.loc[labels[:-1], "smd_before"].abs()
    assert before.is_monotonic_decreasing
    assert "11 further columns" in axes.get_xlabel().replace("\n", " ")
    drawn = [line.get_xdata()[0] for line in axes.lines if line.get_markersize() == 6
             and len(line.get_xdata()) == 1]  # fmt: skip
    assert drawn[:58:2] == pytest.approx(before.tolist())
    assert drawn[58] == pytest.approx(table.iloc[40:]["smd_before"].abs().median())


def test_a_column_that_got_worse_is_drawn_even_if_it_began_small():
    table = balance()
    table.loc["column 7", ["smd_before", "smd_after"]] = [0.0, 0.9]
    labels = [t.get_text() for t in love_figure(table).axes[0].get_yticklabels()]
    assert "column 7" in labels


def test_infinite_and_missing_differences_are_drawn():
    table = balance(3, 2)
    table.iloc[0, 1], table.iloc[1, 1:], table.iloc[3:, 1:] = np.inf, NAN, NAN
    axes = love_figure(table).axes[0]
    assert sum(line.get_marker() == ">" for line in axes.lines) == 1
    assert np.isfinite(axes.get_xlim()).all()
    assert to_png(love_figure(table), dpi=40)
    assert to_png(love_figure(table.iloc[:0]), dpi=40)
    assert to_png(love_figure(table.iloc[3:]), dpi=40)


def test_corrections_stand_beside_what_was_measured():
    axes = corrections_figure(corrections(), outcome="wealth", unit="SD").axes[0]
    labels = [t.get_text() for t in axes.get_yticklabels()]
    four = ["naive", "linear calibration", "Tweedie", "prediction-powered"]
    assert labels == ["measured", *four, *four]
    assert [m[0] for m in marks(axes)] == ["D", *("Xs^o" * 2)]
    assert {"satellites", "lights", "0.100"} <= set(words_of(axes))
    assert len(axes.collections) == 3, "the band of the measured effect goes through all groups"


def test_corrections_with_holes_are_drawn():
    table = corrections()
    table.loc[[0, 2], ["estimate", "ci_low", "ci_high"]] = NAN
    axes = corrections_figure(table).axes[0]
    assert words_of(axes).count("no estimate") == 2
    assert len(axes.collections) == 0
    assert to_png(corrections_figure(table.iloc[:0]), dpi=40)


def bounds():
    factor = np.array([1.0, 1.25, 1.5, 2.0, 3.0])
    low, high = 0.12 - 0.3 * np.log(factor), 0.12 + 0.3 * np.log(factor)
    return pd.DataFrame({"factor": factor, "low": low, "high": high, "ci_low": low - 0.05,
                         "ci_high": high + 0.05})  # fmt: skip


def test_bounds_are_drawn_with_measured_confounders():
    known = {"lights": 1.32, "country": 2.6, "landsat": 4.1, "nothing": 1.0, "lost": NAN}
    axes = sensitivity_figure(bounds(), benchmarks=known, outcome="wealth").axes[0]
    assert set(words_of(axes)) == {"lights", "country"}
    label = axes.get_xlabel().replace("\n", " ")
    assert "landsat 4.10, country 2.60, lights 1.32" in label
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "1.25", "1.5", "2", "3"]
    near = dict.fromkeys("abc", 1.5)
    assert len(words_of(sensitivity_figure(bounds(), benchmarks=near).axes[0])) == 1
    assert to_png(sensitivity_figure(bounds(), benchmarks=pd.Series(known)), dpi=40)
    assert to_png(sensitivity_figure(bounds().iloc[:1]), dpi=40)


def curves():
    predicted = np.linspace(0.02, 0.4, 5)
    parts = [
        pd.DataFrame({"confounders": name, "predicted": predicted, "share_treated": predicted,
                      "ci_low": predicted - 0.01, "ci_high": predicted + 0.01, "n": 100})
        for name in ADJUSTMENTS
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_calibration_has_a_curve_per_set():
    table = curves()
    table.loc[0, "share_treated"] = NAN
    axes = calibration_figure(table).axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 4, 5, 5]
    assert axes.get_xlim() == axes.get_ylim()
    assert to_png(calibration_figure(table.iloc[:0]), dpi=40)


# --- odd names ---------------------------------------------------------------------------------


def hostile_sectors():
    rows = [effect(name, funder=HOSTILE[3], n_treated=i) for i, name in enumerate(HOSTILE)]
    return frame(
        *rows, without("a" * 300, funder=HOSTILE[1]), effect("教育\nの", adjustment="table")
    )


def test_figures_take_any_name():
    sectors = hostile_sectors()
    names = [*HOSTILE, "x" * 200]
    odd = dict(zip(names, [1.1, 1.3, 1.6, 2.2, 2.8], strict=True))
    figures = [
        forest_figure(sectors, outcome=HOSTILE[0], unit=HOSTILE[3]),
        placement_figure(placement(sectors=HOSTILE)),
        love_figure(balance(5, 4).assign(source=[*["table"] * 5, *[HOSTILE[0]] * 4])
                    .set_axis([*names, *"abcd"])),
        corrections_figure(corrections().replace({"lights": HOSTILE[1]})),
        sensitivity_figure(bounds(), benchmarks=odd),
        calibration_figure(curves().replace({"image": HOSTILE[3]})),
    ]  # fmt: skip
    for figure in figures:
        drawn = ET.fromstring(to_svg(figure))
        assert not [e for e in drawn.iter() if e.tag.rpartition("}")[2] in ("script", "a")]


def test_names_in_claims_are_escaped_in_the_page_and_cut():
    claim = evaluation_claim(hostile_sectors(), outcome=HOSTILE[0])
    page = render_report(ReportContent(title="T", claim=claim))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "a" * 100 not in claim


def test_equal_frames_give_equal_bytes():
    one = frame(effect())
    assert to_svg(forest_figure(one)) == to_svg(forest_figure(one))
    small = balance(3, 2)
    assert to_png(love_figure(small), dpi=50) == to_png(love_figure(small), dpi=50)
