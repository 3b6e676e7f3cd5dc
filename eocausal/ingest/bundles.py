"""The layers that the chips of one chunk of periods are made from, by grid and pixel type."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eocausal.ingest.assets import Asset
from eocausal.ingest.packing import Packing
from eocausal.ingest.readers import stored_nodata
from eocausal.ingest.recipe import Recipe
from eocausal.ingest.spec import GridClass, Layers, Look

__all__ = ["Bundle", "Source", "bundle_up"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Layers of one class of grids and one pixel type, sorted by asset and target.

    ``assets`` holds, for each asset, its number, its bands and where its layers are; ``alike``
    says that all layers have one nodata.
    """

    dtype: np.dtype[Any]
    assets: tuple[tuple[int, tuple[int, ...], slice], ...]
    look: NDArray[np.int32]
    target: NDArray[np.int32]
    nodata: tuple[Any, ...]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    alike: bool

    def group(self, first: int, last: int) -> Bundle:
        """Choose the assets from ``first`` to before ``last``."""
        low, high = self.assets[first][2].start, self.assets[last - 1][2].stop
        moved = tuple(
            (a, b, slice(s.start - low, s.stop - low)) for a, b, s in self.assets[first:last]
        )
        return replace(
            self,
            assets=moved,
            look=self.look[low:high],
            target=self.target[low:high],
            nodata=self.nodata[low:high],
            scale=self.scale[low:high],
            offset=self.offset[low:high],
        )


@dataclass(frozen=True, slots=True)
class Source:
    """What the chips of one chunk of periods are made from.

    ``members[period]`` are the looks of each period of the chunk; ``bundles[class]`` the layers
    of their looks.
    """

    recipe: Recipe
    packing: Packing
    classes: dict[int, GridClass]
    assets: dict[int, Asset]
    looks: dict[int, Look]
    members: tuple[tuple[int, ...], ...]
    bundles: dict[int, tuple[Bundle, ...]]

    def looks_of(self, one: int) -> set[int]:
        """List the looks that have layers on a class of grids."""
        return {k for b in self.bundles.get(one, ()) for k in b.look.tolist()}


def bundle_up(
    layers: Layers, asset_class: NDArray[np.int32], assets: dict[int, Asset], inputs: int
) -> dict[int, tuple[Bundle, ...]]:
    """Sort layers by class of grids, pixel type, asset and target.

    Assets that hold masks (targets from ``inputs`` on) come before those that hold none, so that
    pixels under a cloud are known before any is interpolated.
    """
    found: dict[int, dict[tuple[bool, str], list[int]]] = {}
    masked = set(layers.asset[layers.target >= inputs].tolist())
    for k in np.lexsort((layers.target, layers.asset)).tolist():
        asset = int(layers.asset[k])
        kind = (asset not in masked, assets[asset].dtype)
        found.setdefault(int(asset_class[asset]), {}).setdefault(kind, []).append(k)
    return {
        one: tuple(_bundle(layers, np.array(kinds[k]), assets) for k in sorted(kinds))
        for one, kinds in found.items()
    }


def _bundle(layers: Layers, which: NDArray[np.intp], assets: dict[int, Asset]) -> Bundle:
    number, band = layers.asset[which], layers.band[which]
    cuts = np.flatnonzero(np.diff(number)) + 1
    spans = zip([0, *cuts.tolist()], [*cuts.tolist(), len(which)], strict=True)
    dtype = np.dtype(assets[int(number[0])].dtype)
    parts = tuple((int(number[a]), tuple(band[a:b].tolist()), slice(a, b)) for a, b in spans)
    own = [assets[int(a)] for a in number]
    nodata = tuple(stored_nodata(a.nodata, dtype) for a in own)
    return Bundle(
        dtype=dtype,
        assets=parts,
        look=layers.look[which],
        target=layers.target[which],
        nodata=nodata,
        scale=np.array([a.scales[b] for a, b in zip(own, band.tolist(), strict=True)]),
        offset=np.array([a.offsets[b] for a, b in zip(own, band.tolist(), strict=True)]),
        alike=len({str(v) for v in nodata}) == 1,
    )
