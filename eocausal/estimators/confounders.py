"""What treatment and outcome may both depend on: table columns and image features as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import check_columns, check_same_neighborhoods, some
from eocausal.errors import EmbeddingError, EstimationError
from eocausal.estimators.learners import feature_frame

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["TABLE", "Confounders", "confounders_of"]

TABLE = "table"


@dataclass(frozen=True, slots=True, eq=False)
class Confounders:
    """Confounders of n units as numbers.

    Attributes
    ----------
    x
        (n, p) values, complete.
    names
        (p,) names of the columns; indicators are called ``column=value``.
    block
        (p,) number of the source of each column.
    blocks
        Names of the sources: ``table`` and those of the embeddings.
    """

    x: NDArray[np.float64]
    names: tuple[str, ...]
    block: NDArray[np.int64]
    blocks: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.x)

    @property
    def p(self) -> int:
        """Number of columns."""
        return int(self.x.shape[1])

    def standardised(self) -> NDArray[np.float64]:
        """Return (n, q) columns with mean 0 that vary, each source with total variance 1.

        Every source then has the same share of a ridge prior's variance: five columns of a table
        are not drowned by five hundred features of an image.
        """
        centred = self.x - self.x.mean(axis=0)
        spread = centred.std(axis=0)
        keep = spread > 1e-10 * (1 + np.abs(self.x.mean(axis=0)))
        out = centred[:, keep] / spread[keep]
        block = self.block[keep]
        for k in np.unique(block):
            out[:, block == k] /= np.sqrt((block == k).sum())
        return np.asarray(out)

    def subset(self, keep: NDArray[np.bool_]) -> Confounders:
        """Keep some units."""
        return Confounders(self.x[keep], self.names, self.block, self.blocks)

    def only(self, *blocks: str) -> Confounders:
        """Keep some sources.

        Raises
        ------
        EstimationError
            If there is no such source.
        """
        unknown = [name for name in blocks if name not in self.blocks]
        if unknown:
            raise EstimationError(
                f"There are no confounders called {unknown[0]!r}.",
                cause=f"The sources are {', '.join(self.blocks) or 'none'}.",
                next_step="Name one of these.",
            )
        wanted = [k for k, name in enumerate(self.blocks) if name in blocks]
        keep = np.isin(self.block, wanted)
        code = np.searchsorted(wanted, self.block[keep])
        names = tuple(np.asarray(self.names, dtype=object)[keep])
        return Confounders(
            self.x[:, keep], names, code, tuple(self.blocks[k] for k in wanted)
        )  # fmt: skip

    def without(self, column: str) -> Confounders:
        """Leave out a column of the table, with all its indicators."""
        keep = np.array([n != column and not n.startswith(f"{column}=") for n in self.names])
        names = tuple(np.asarray(self.names, dtype=object)[keep])
        return Confounders(self.x[:, keep], names, self.block[keep], self.blocks)


def confounders_of(
    units: pd.DataFrame,
    columns: Sequence[str] = (),
    images: Mapping[str, pd.DataFrame | xr.DataArray] | None = None,
) -> Confounders:
    """Turn columns and embeddings into confounders, one row per unit.

    Numbers and yes/no columns are taken as they are; a column of texts (country, district) becomes
    an indicator of each value but the most frequent one.

    Parameters
    ----------
    units
        One row per unit; its column ``neighborhood``, or else its index, names the place in the
        embeddings.
    columns
        Columns of ``units``.
    images
        Embeddings or tables of features by neighborhood, by name.

    Raises
    ------
    EstimationError
        If a column has missing or infinite values.
    EmbeddingError
        If a unit has no features.
    MissingColumnError, AlignmentError
    """
    check_columns(units, columns, what="units table")
    parts: list[NDArray[np.float64]] = []
    names: list[str] = []
    sizes: list[int] = []
    sources: list[str] = []
    if columns:
        table = [_column(units[name], name) for name in dict.fromkeys(columns)]
        parts += [values for values, _ in table]
        names += [name for _, given in table for name in given]
        sizes.append(sum(values.shape[1] for values, _ in table))
        sources.append(TABLE)
    place = pd.Index(units["neighborhood"]) if "neighborhood" in units else units.index
    for source, features in (images or {}).items():
        values = _features(features, place, source)
        parts.append(values)
        names += [f"{source} {k}" for k in range(values.shape[1])]
        sizes.append(values.shape[1])
        sources.append(source)
    x = np.concatenate(parts, axis=1) if parts else np.zeros((len(units), 0))
    return Confounders(x, tuple(names), np.repeat(np.arange(len(sizes)), sizes), tuple(sources))


def _column(values: pd.Series, name: str) -> tuple[NDArray[np.float64], list[str]]:
    if values.isna().any():
        raise EstimationError(
            f"The confounder {name!r} is missing for {int(values.isna().sum())} units: "
            f"{some(values.index[values.isna()])}.",
            cause="A model would drop these units silently.",
            next_step="Impute with an indicator of missingness, or drop the units yourself.",
        )
    if pd.api.types.is_datetime64_any_dtype(values):
        days = (values - values.min()) / pd.Timedelta(days=1)
        return days.to_numpy(float)[:, None], [name]
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        number = values.to_numpy(float)
        if not np.isfinite(number).all():
            raise EstimationError(
                f"The confounder {name!r} is infinite for "
                f"{int((~np.isfinite(number)).sum())} units.",
                cause="A model cannot use it.",
                next_step="Correct the column.",
            )
        return number[:, None], [name]
    counts = values.value_counts()
    levels = sorted(map(str, counts.index[1:]))
    text = values.astype(str).to_numpy()
    columns = [(text == level).astype(float) for level in levels]
    stacked = np.stack(columns, axis=1) if columns else np.zeros((len(values), 0))
    return stacked, [f"{name}={level}" for level in levels]


def _features(
    features: pd.DataFrame | xr.DataArray, place: pd.Index, source: str
) -> NDArray[np.float64]:
    labels = (
        features.index if isinstance(features, pd.DataFrame) else features.indexes["neighborhood"]
    )
    check_same_neighborhoods(place.unique(), labels, what=f"features {source!r}")
    frame = feature_frame(features)
    at = frame.index.get_indexer(place)
    if (at < 0).any():
        raise EmbeddingError(
            f"{int((at < 0).sum())} units have no features in {source!r}: "
            f"{some(place[at < 0].unique())}.",
            cause="Nothing was seen of their places.",
            next_step="Leave these units out, and report how many by arm.",
        )
    return frame.to_numpy()[at]
