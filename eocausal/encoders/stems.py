"""First layers of convolutional networks, carried over to other bands."""

from __future__ import annotations

import torch

__all__ = ["inflate_stem", "replace_module", "stem_of", "with_bands", "with_channels"]


def inflate_stem(
    weight: torch.Tensor, own: tuple[str, ...], bands: tuple[str, ...]
) -> torch.Tensor:
    """Carry the filters of a first layer over to other bands, by name.

    A band of ``bands`` that the layer knows gets that band's filter, any other the mean filter;
    all are multiplied by ``len(own) / len(bands)``; what then still lacks to the sum over bands
    of the original is shared equally. So the sum over bands is kept exactly (equal values in
    all bands give the same response as before), and if every known band is there the last step
    does nothing.

    Parameters
    ----------
    weight
        ``(filter, len(own), y, x)``.
    own
        Names of the bands of ``weight``, in order.
    bands
        Names wanted, in order.

    Returns
    -------
    torch.Tensor
        ``(filter, len(bands), y, x)``.
    """
    if own == bands:
        return weight
    mean = weight.mean(dim=1)
    chosen = [weight[:, own.index(b)] if b in own else mean for b in bands]
    inflated = torch.stack(chosen, dim=1) * (len(own) / len(bands))
    lacking = weight.sum(dim=1) - inflated.sum(dim=1)
    return inflated + lacking[:, None] / len(bands)


def stem_of(network: torch.nn.Module) -> torch.nn.Conv2d:
    """Return the first convolution, which reads the bands."""
    return next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))


def replace_module(network: torch.nn.Module, old: torch.nn.Module, new: torch.nn.Module) -> None:
    """Put another module where ``old`` is, in place."""
    path = next(name for name, module in network.named_modules() if module is old)
    parent, _, last = path.rpartition(".")
    setattr(network.get_submodule(parent), last, new)


def with_channels(stem: torch.nn.Conv2d, channels: int) -> torch.nn.Conv2d:
    """Make a new layer of the same kind for another number of channels."""
    return torch.nn.Conv2d(
        channels,
        stem.out_channels,
        stem.kernel_size,  # type: ignore[arg-type]
        stride=stem.stride,  # type: ignore[arg-type]
        padding=stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )


def with_bands(
    stem: torch.nn.Conv2d, own: tuple[str, ...], bands: tuple[str, ...]
) -> torch.nn.Conv2d:
    """Make a first layer for ``bands`` of one for ``own``, as :func:`inflate_stem` says."""
    if own == bands:
        return stem
    new = with_channels(stem, len(bands))
    with torch.no_grad():
        new.weight.copy_(inflate_stem(stem.weight, own, bands))
        if stem.bias is not None and new.bias is not None:
            new.bias.copy_(stem.bias)
    return new
