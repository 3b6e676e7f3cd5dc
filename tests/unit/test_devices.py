"""Precision on GPUs: held while encoding, and given back as it was."""

import pytest
import torch

from eocausal.encoders.devices import float32_arithmetic

MATMUL, CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn


def flags():
    return (
        MATMUL.fp32_precision, CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision,
        CUDNN.benchmark, CUDNN.deterministic,
    )  # fmt: skip


@pytest.fixture(params=["default", "new", "old"])
def chosen(request):
    """What a user may have asked of torch beforehand."""
    before = flags()
    if request.param == "new":
        MATMUL.fp32_precision = CUDNN.conv.fp32_precision = "tf32"
        CUDNN.benchmark = True
    if request.param == "old":
        MATMUL.allow_tf32 = True
    yield flags()
    MATMUL.fp32_precision, CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision = before[:3]
    CUDNN.benchmark, CUDNN.deterministic = before[3:]


def test_float32_is_held_and_given_back(chosen):
    with float32_arithmetic():
        assert flags() == ("ieee", "ieee", "ieee", False, True)
    assert flags() == chosen


def test_precision_is_given_back_after_an_error(chosen):
    @float32_arithmetic()
    def fail():
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert flags() == chosen
