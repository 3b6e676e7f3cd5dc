"""Batch normalisation folded into the convolutions before it.

In evaluation ``gamma (w * x - mu) / s + beta`` is one convolution with weights ``gamma w / s``
(Jacob et al. 2018, arXiv 1712.05877, section 3.2), so that one pass over memory is saved at each.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import fx
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["fold_normalisation"]


def fold_normalisation(traced: fx.GraphModule) -> None:
    """Fold, in place, every batch normalisation whose input is the result of one convolution.

    A convolution whose result is used elsewhere, or one that is called twice, is left alone.
    """
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in traced.graph.nodes:
        if node.op != "call_module" or len(node.args) != 1:
            continue
        before = node.args[0]
        normalisation = modules[node.target]
        if not isinstance(normalisation, torch.nn.BatchNorm2d) or before.op != "call_module":
            continue
        convolution = modules[before.target]
        alone = len(before.users) == 1 and calls[before.target] == calls[node.target] == 1
        if not isinstance(convolution, torch.nn.Conv2d) or not alone:
            continue
        traced.set_submodule(before.target, fuse_conv_bn_eval(convolution, normalisation))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.recompile()
    traced.delete_all_unused_submodules()
