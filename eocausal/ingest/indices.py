"""Spectral indices by expression, such as ``(nir - red) / (nir + red)``.

An expression holds band names, numbers, ``+ - * / **``, parentheses and the functions ``sqrt``,
``log``, ``abs``, ``min`` and ``max``. It is parsed, never run as Python code. Pixels where it has
no finite value (a division by zero, the root of a negative number) or where a band is missing are
NaN.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache, reduce
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eocausal.contracts import some
from eocausal.errors import BandError, IngestError

__all__ = ["KNOWN", "Index", "index"]

_MAX_LENGTH: Final = 500
_MAX_NUMBER: Final = 1e300
Value = Any
"""A float64 array, or the float64 scalar of a part that holds only numbers."""


def _finite(value: Value) -> Value:
    return np.where(np.isfinite(value), value, np.nan)


_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Value, Value], Value]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: _finite(np.divide(a, b)),
    ast.Pow: lambda a, b: _finite(np.power(a, b)),
}
_SIGNS: Final[Mapping[type[ast.unaryop], Callable[[Value], Value]]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: Final[Mapping[str, tuple[int, int, Callable[..., Value]]]] = {
    "sqrt": (1, 1, np.sqrt),
    "log": (1, 1, lambda a: _finite(np.log(a))),
    "abs": (1, 1, np.abs),
    "min": (2, 99, lambda *a: reduce(np.minimum, a)),
    "max": (2, 99, lambda *a: reduce(np.maximum, a)),
}
"""Name → least and most arguments, and what it does."""


@dataclass(frozen=True, slots=True)
class Index:
    """A band computed from other bands.

    Parameters
    ----------
    name
        Name of the new band.
    expression
        Arithmetic on band names; see the module's description. ``log`` is the natural logarithm.
    units
        Units that the bands must have for the expression to mean what it says, e.g.
        ``'reflectance'`` (0 to 1) where it holds a constant in these units; empty if any will do.

    Raises
    ------
    IngestError
        If the expression cannot be read; the message says where.

    Examples
    --------
    >>> import numpy as np
    >>> ratio = Index("ratio", "nir / red")
    >>> sorted(ratio.bands)
    ['nir', 'red']
    >>> bands = {"nir": np.float32([4, 1]), "red": np.float32([2, 0])}
    >>> ratio.evaluate(bands)
    array([ 2., nan], dtype=float32)
    """

    name: str
    expression: str
    units: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise IngestError(
                f"The index {self.expression!r} has no name.",
                cause="It becomes a band, which is known by its name.",
                next_step="Write it as 'name = expression'.",
            )
        _parse(self.expression)

    @property
    def bands(self) -> frozenset[str]:
        """Names of the bands it is computed from."""
        return _parse(self.expression)[1]

    def check(self, bands: Collection[str], units: str | None = None) -> None:
        """Refuse bands it cannot be computed from, before any pixel is read.

        Parameters
        ----------
        bands
            Names of the bands that are there.
        units
            Their units, where known.

        Raises
        ------
        BandError
            If a band is missing.
        IngestError
            If the expression holds only in other units.
        """
        missing = sorted(self.bands - set(bands))
        if missing:
            raise BandError(
                f"The index {self.name!r} needs {some(missing)}, which is not among the bands.",
                cause=f"It is {self.expression}; the bands are {some(bands, 20)}.",
                next_step="Ask for the missing bands too, or write the index with the names that "
                "are there: 'name = expression'.",
            )
        if self.units and units is not None and units != self.units:
            raise IngestError(
                f"The index {self.name!r} is defined for {self.units}, but the units are "
                f"{units!r}.",
                cause=f"The constants in {self.expression} are in these units.",
                next_step=f"Scale the bands to {self.units} (scales and offsets of the scenes) and "
                f"say units={self.units!r}.",
            )

    def evaluate(self, values: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Compute the index.

        Parameters
        ----------
        values
            Arrays of one shape by band name, NaN where invalid.

        Returns
        -------
        ndarray
            float32 of that shape (computed in float64); NaN where a band is not finite or the
            expression has no finite value.

        Raises
        ------
        BandError
            If a band is missing.
        """
        tree, names = _parse(self.expression)
        self.check(values.keys())
        arrays = {n: np.asarray(values[n], dtype=np.float64) for n in names}
        invalid = reduce(np.logical_or, (~np.isfinite(a) for a in arrays.values()))
        with np.errstate(all="ignore"):
            result = np.asarray(_compute(tree, arrays)).astype(np.float32)
            return np.where(invalid | ~np.isfinite(result), np.float32(np.nan), result)


def index(text: str) -> Index:
    """Read an index: the name of a known one, or ``'name = expression'``.

    Parameters
    ----------
    text
        E.g. ``'ndvi'`` (in any case; see :data:`KNOWN`) or ``'ratio = nir / red'``.

    Raises
    ------
    IngestError
        If the name is not known or the expression cannot be read.
    """
    name, equals, expression = text.partition("=")
    if equals:
        return Index(name.strip(), expression.strip())
    known = KNOWN.get(text.strip().lower())
    if known is not None:
        return known
    close = get_close_matches(text.strip().lower(), KNOWN, n=1)
    raise IngestError(
        f"There is no index {text!r}" + (f" (closest: {close[0]!r})." if close else "."),
        cause=f"Known by name are {some(KNOWN, 20)}.",
        next_step="Correct the name, or write 'name = expression'.",
    )


@lru_cache(maxsize=256)
def _parse(expression: str) -> tuple[ast.expr, frozenset[str]]:
    """Read an expression once; return its tree and the band names in it."""
    expression = " ".join(expression.split())
    if len(expression) > _MAX_LENGTH:
        raise IngestError(
            f"The expression has {len(expression)} characters: {expression[:40]}...",
            cause=f"At most {_MAX_LENGTH} are read.",
            next_step="Split it into several indices.",
        )
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        at = getattr(error, "offset", None) or len(expression)
        raise _refused(expression, at, getattr(error, "msg", str(error))) from None
    names: set[str] = set()
    _check(tree, expression, names)
    if not names:
        raise _refused(expression, 1, "it names no band")
    return tree, frozenset(names)


def _check(node: ast.expr, expression: str, names: set[str]) -> None:
    """Refuse everything but arithmetic; collect the names of bands."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            _check(left, expression, names)
            _check(right, expression, names)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _SIGNS:
            _check(operand, expression, names)
        case ast.Constant(value=(int() | float()) as value) if not isinstance(value, bool):
            if value > _MAX_NUMBER:
                raise _refused(expression, _column(node, expression), "a number is too large")
        case ast.Name(id=name):
            names.add(name)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            least, most, _ = _FUNCTIONS[name]
            if not least <= len(args) <= most:
                wanted = f"{least} argument" if least == most else f"at least {least} arguments"
                why = f"{name} takes {wanted}, not {len(args)}"
                raise _refused(expression, _column(node, expression), why)
            for part in args:
                _check(part, expression, names)
        case _:
            source = ast.get_source_segment(expression, node)
            raise _refused(expression, _column(node, expression), f"{source!r} is no arithmetic")


def _column(node: ast.expr, expression: str) -> int:
    """Place of a part, in characters from 1 (the parser counts bytes)."""
    return len(expression.encode()[: node.col_offset].decode()) + 1


def _refused(expression: str, column: int | None, why: str) -> IngestError:
    where = f" at character {column}" if column else ""
    return IngestError(
        f"The expression {expression!r} cannot be read{where}: {why}.",
        cause="It may hold band names, numbers, + - * / **, parentheses, and "
        f"{', '.join(_FUNCTIONS)}.",
        next_step="Write it like (nir - red) / (nir + red); a band's name must be one word.",
    )


def _compute(node: ast.expr, values: Mapping[str, NDArray[np.float64]]) -> Value:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_compute(left, values), _compute(right, values))
        case ast.UnaryOp(op=sign, operand=operand):
            return _SIGNS[type(sign)](_compute(operand, values))
        case ast.Call(func=ast.Name(id=name), args=args):
            return _FUNCTIONS[name][2](*(_compute(part, values) for part in args))
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=int() | float() as value):
            return np.float64(value)
        case _:
            raise AssertionError("a part that was not checked")


KNOWN: Final[Mapping[str, Index]] = MappingProxyType(
    {
        known.name: known
        for known in (
            Index("ndvi", "(nir - red) / (nir + red)"),
            Index("ndwi", "(green - nir) / (green + nir)"),
            Index("mndwi", "(green - swir1) / (green + swir1)"),
            Index("ndbi", "(swir1 - nir) / (swir1 + nir)"),
            Index("evi", "2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1)", "reflectance"),
            Index("savi", "1.5 * (nir - red) / (nir + red + 0.5)", "reflectance"),
            Index("nbr", "(nir - swir2) / (nir + swir2)"),
            Index("bsi", "((swir1 + red) - (nir + blue)) / ((swir1 + red) + (nir + blue))"),
        )
    }
)
"""Indices known by name, on bands named blue, green, red, nir, swir1 and swir2.

NDVI (Rouse et al. 1974), NDWI of open water (McFeeters 1996, IJRS 17(7)), MNDWI (Xu 2006, IJRS
27(14)), NDBI (Zha et al. 2003, IJRS 24(3)), EVI (Huete et al. 2002, RSE 83), SAVI with L = 0.5
(Huete 1988, RSE 25), NBR (Key & Benson 2006, FIREMON), BSI (Rikimaru et al. 2002, Tropical Ecology
43). EVI and SAVI hold constants in units of reflectance.
"""
