"""Shared fixtures: where the real data and the reference results are."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Machines are shared: no test fails because it took long.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background, whose children would ignore it too: some tests interrupt programs.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _locate(base: Path, name: str) -> Path:
    path = base / name
    if not path.exists():
        pytest.skip(f"{name} is not at {base}: set EOCAUSAL_DATA / EOCAUSAL_REFERENCE to run this")
    return path


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return a function that gives the path of a real data set, or skips naming it."""
    base = Path(os.environ.get("EOCAUSAL_DATA", SHARED / "data"))
    return lambda name: _locate(base, name)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Path]:
    """Return a function that gives the path of a reference result, or skips naming it."""
    base = Path(os.environ.get("EOCAUSAL_REFERENCE", SHARED / "reference"))
    return lambda name: _locate(base, name)
