"""Indices: against hand-written numpy, and what an expression may not do."""

import numpy as np
import pytest

from eocausal.errors import BandError, IngestError
from eocausal.ingest.indices import KNOWN, Index, index

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")


@pytest.fixture
def values():
    rng = np.random.default_rng(5)
    return {b: rng.uniform(0.01, 0.6, (3, 4)).astype(np.float32) for b in BANDS}


def by_hand(blue, green, red, nir, swir1, swir2):
    return {
        "ndvi": (nir - red) / (nir + red),
        "ndwi": (green - nir) / (green + nir),
        "mndwi": (green - swir1) / (green + swir1),
        "ndbi": (swir1 - nir) / (swir1 + nir),
        "evi": 2.5 * (nir - red) / (nir + 6.0 * red - 7.5 * blue + 1.0),
        "savi": (nir - red) / (nir + red + 0.5) * 1.5,
        "nbr": (nir - swir2) / (nir + swir2),
        "bsi": (swir1 + red - nir - blue) / (swir1 + red + nir + blue),
    }


def test_known_indices_are_what_their_papers_say(values):
    expected = by_hand(**{k: v.astype(np.float64) for k, v in values.items()})
    assert set(KNOWN) == set(expected)
    for name, wanted in expected.items():
        got = KNOWN[name].evaluate(values)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-9)


def test_known_indices_by_value():
    healthy = {"blue": 0.03, "green": 0.05, "red": 0.04, "nir": 0.4, "swir1": 0.2, "swir2": 0.1}
    at = {k: np.full((1,), v) for k, v in healthy.items()}
    assert KNOWN["ndvi"].evaluate(at)[0] == pytest.approx(0.36 / 0.44)
    assert KNOWN["evi"].evaluate(at)[0] == pytest.approx(2.5 * 0.36 / (0.4 + 0.24 - 0.225 + 1))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("nir - red * 2", 4.0 - 6.0),
        ("(nir - red) * 2", 2.0),
        ("-nir ** 2", -16.0),
        ("+nir", 4.0),
        ("2 ** -red", 0.125),
        ("nir / red / 2", 4 / 3 / 2),
        ("sqrt(nir) + log(red)", 2 + np.log(3)),
        ("min(nir, red, 2.5) + max(nir, red) + abs(red - nir)", 2.5 + 4 + 1),
        ("1e-1*nir", 0.4),
        (" nir\n + red ", 7.0),
        ("min + nir", 14.0),
    ],
)
def test_arithmetic(expression, expected):
    at = {"nir": np.float32([4]), "red": np.float32([3]), "min": np.float32([10])}
    assert Index("x", expression).evaluate(at)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "expression",
    ["a / b", "1 / (a / b)", "b ** -1 + a", "1 / b ** -1", "log(b) + a", "1 / log(b)", "sqrt(-a)",
     "b / b", "exp10 ** 400 * a", "a ** b * 0 + m", "m ** 0 * a", "1 ** m + a",
     "min(m, a)"],
)  # fmt: skip
def test_what_has_no_finite_value_is_nan_without_a_warning(expression):
    at = {"a": [1.0], "b": [0.0], "m": [np.nan], "exp10": [10.0]}
    result = Index("x", expression).evaluate({k: np.float32(v) for k, v in at.items()})
    assert np.isnan(result).all()


def test_infinite_bands_are_missing():
    assert np.isnan(Index("x", "1 / a").evaluate({"a": np.float32([np.inf])})).all()


REFUSED = [
    ("__import__('os')", "character 1"),
    ("nir.real", "character 1"),
    ("red + nir[0]", "character 7"),
    ("red + exec(nir)", "character 7"),
    ("[nir for nir in red]", "character 1"),
    ("nir if red else 1", "character 1"),
    ("nir and red", "character 1"),
    ("nir < red", "character 1"),
    ("nir % red", "character 1"),
    ("~nir", "character 1"),
    ("lambda: nir", "character 1"),
    ("(n := nir)", "character 2"),
    ("nir + 'red'", "character 7"),
    ("nir + 2j", "character 7"),
    ("nir + True", "character 7"),
    ("nir + None", "character 7"),
    ("sqrt(nir, red)", "sqrt takes 1 argument, not 2"),
    ("min(nir)", "min takes at least 2 arguments, not 1"),
    ("log(x=nir)", "character 1"),
    ("max(*nir)", "character 1"),
    ("(nir - red / nir", "never closed"),
    ("nir -", "character 5"),
    ("nir red", "character 5"),
    ("μετά + é[1]", "character 8"),
    ("", "cannot be read"),
    ("2 + 3", "names no band"),
    ("nir + 1" + "0" * 400, "too large"),
    ("nir\0red", "cannot be read"),
    ("(" * 240 + "nir" + ")" * 240, "cannot be read"),
    ("nir" + " + nir" * 200, "At most 500"),
]


@pytest.mark.parametrize(("expression", "words"), REFUSED, ids=range(len(REFUSED)))
def test_anything_else_is_refused_with_its_place(expression, words):
    with pytest.raises(IngestError, match=r"Next: ") as error:
        Index("x", expression)
    assert words in str(error.value)


def test_the_longest_expressions_are_evaluated():
    deep = Index("x", "-" * 490 + "nir")
    assert deep.evaluate({"nir": np.float32([2])})[0] == 2
    wide = Index("x", "nir" + "+nir" * 120)
    assert wide.evaluate({"nir": np.float32([1])})[0] == 121


def test_index_reads_names_and_definitions():
    assert index("ndvi") is KNOWN["ndvi"]
    assert index(" NDVI ") is KNOWN["ndvi"]
    assert index("Ratio = nir/red") == Index("Ratio", "nir/red")
    assert index("ratio = nir/red").bands == {"nir", "red"}
    with pytest.raises(IngestError, match=r"closest: 'ndvi'.*'bsi'"):
        index("ndvl")
    with pytest.raises(IngestError, match="has no name"):
        index(" = nir")
    with pytest.raises(IngestError, match="'= y' cannot be read at character 1"):
        index("a == y")


def test_check_names_missing_bands_and_wrong_units():
    KNOWN["evi"].check(BANDS, "reflectance")
    KNOWN["evi"].check(BANDS)
    KNOWN["ndvi"].check(BANDS, "DN")
    with pytest.raises(BandError, match=r"'ndvi' needs 'nir'.*'red', 'green'"):
        KNOWN["ndvi"].check(["red", "green"])
    with pytest.raises(IngestError, match=r"defined for reflectance.*'DN'"):
        KNOWN["evi"].check(BANDS, "DN")
    with pytest.raises(BandError, match="needs 'nir'"):
        KNOWN["ndvi"].evaluate({"red": np.float32([1])})
