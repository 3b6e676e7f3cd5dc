"""What is made of the looks at a chip: bands, indices, masks, composite, resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eocausal.contracts import some
from eocausal.errors import BandError
from eocausal.ingest.composites import Composite, Median
from eocausal.ingest.indices import Index, index
from eocausal.ingest.masks import Mask
from eocausal.ingest.resample import Bilinear, Resampling

__all__ = ["Recipe", "make_recipe"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a chip is made.

    Attributes
    ----------
    bands
        The cube's bands in order: source bands, indices and the count.
    inputs
        Source bands that are resampled; then come the indices' names, in what a composite sees.
    indices
        Computed for every look, before the composite.
    masks
        A pixel of a look counts where all of them are clear.
    composite
        Makes one image of the looks of a period.
    resampling
        How values are taken from a scene; masks are always taken from the nearest pixel.
    count_band
        Name of the band that holds the number of looks valid in all bands; None for none.
    """

    bands: tuple[str, ...]
    inputs: tuple[str, ...]
    indices: tuple[Index, ...]
    masks: tuple[Mask, ...]
    composite: Composite
    resampling: Resampling
    count_band: str | None

    @property
    def wanted(self) -> tuple[str, ...]:
        """Bands that a look must have: the inputs, then those of the masks."""
        return self.inputs + tuple(m.band for m in self.masks)

    @property
    def seen(self) -> tuple[str, ...]:
        """Names of the layers that a composite is made of."""
        return self.inputs + tuple(i.name for i in self.indices)


def make_recipe(
    bands: Sequence[str | Index],
    *,
    masks: Mask | Sequence[Mask] | None = None,
    composite: Composite | None = None,
    resampling: Resampling | None = None,
    count_band: str | None = None,
) -> Recipe:
    """Read what a user asks for; see :func:`eocausal.build_cube`.

    Raises
    ------
    BandError
        If no band is asked for, or one twice.
    """
    asked = [bands] if isinstance(bands, str | Index) else list(bands)
    wanted = [index(b) if isinstance(b, str) and "=" in b else b for b in asked]
    derived = tuple(w for w in wanted if isinstance(w, Index))
    names = [w.name if isinstance(w, Index) else str(w) for w in wanted]
    if count_band is not None:
        names.append(count_band)
    if not names or len(set(names)) < len(names):
        raise BandError(
            "No bands were asked for." if not names else f"A band is named twice: {some(names)}.",
            cause="A cube has one layer per band name.",
            next_step="Give bands=[...] with each name once.",
        )
    plain = [str(w) for w in wanted if not isinstance(w, Index)]
    made = composite if composite is not None else Median()
    needed = [b for i in derived for b in sorted(i.bands)]
    needed += made.needs(tuple(names))
    inputs = tuple(dict.fromkeys(plain + needed))
    given = () if masks is None else tuple(masks) if isinstance(masks, Sequence) else (masks,)
    return Recipe(
        bands=tuple(names),
        inputs=inputs,
        indices=derived,
        masks=given,
        composite=made,
        resampling=resampling if resampling is not None else Bilinear(),
        count_band=count_band,
    )
