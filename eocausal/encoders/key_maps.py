"""Names of tensors in published weights files, brought to those of torchvision."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

__all__ = ["State", "from_timm_vit"]

State = Mapping[str, torch.Tensor]

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_IN_BLOCK = {
    "norm1.": "ln_1.",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj.": "self_attention.out_proj.",
    "norm2.": "ln_2.",
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.3.",
}
_OUTSIDE = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj.": "conv_proj.",
    "norm.": "encoder.ln.",
    "head.": "heads.head.",
}


def from_timm_vit(state: State) -> dict[str, torch.Tensor]:
    """Rename the tensors of a vision transformer of timm, DINO or MAE.

    Query, key and value are one matrix in both, in this order, so no tensor changes. A name that
    is not of the plain architecture (layer scale, registers, a distillation token) is left as it
    is, and loading refuses it.
    """
    return {_renamed(name): tensor for name, tensor in state.items()}


def _renamed(name: str) -> str:
    block = _BLOCK.fullmatch(name)
    if block is None:
        return _begin(name, _OUTSIDE) or name
    inside = _begin(block[2], _IN_BLOCK)
    return name if inside is None else f"encoder.layers.encoder_layer_{block[1]}.{inside}"


def _begin(name: str, names: Mapping[str, str]) -> str | None:
    for theirs, ours in names.items():
        if name == theirs or (theirs.endswith(".") and name.startswith(theirs)):
            return ours + name.removeprefix(theirs)
    return None
