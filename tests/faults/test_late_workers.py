"""Workers of a cluster that go on after the build that sent them was interrupted."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from ingest_helpers import centred, places_at, write_tif

from eocausal.errors import CubeError
from eocausal.ingest.cube import build_cube
from eocausal.ingest.schedule import Threads
from eocausal.ingest.sources import scan
from eocausal.provenance import hash_tree

HERE = (32.58, 0.32)


@dataclass
class Late:
    """A scheduler that is interrupted while its workers hold their pieces of work."""

    pieces: int = 2
    threads: int = 1
    held: list = field(default_factory=list)

    def run(self, work, watch):
        self.held += work
        raise KeyboardInterrupt


@dataclass
class Beside:
    """Does its own work after work that an earlier build has left with the workers."""

    late: list
    pieces: int = 2
    threads: int = 1

    def run(self, work, watch):
        for piece in self.late:
            with pytest.raises(CubeError, match="does not find the build"):
                piece()
        Threads(1).run(work, watch)


def test_work_of_an_interrupted_build_does_not_enter_the_next(tmp_path):
    values = np.random.default_rng(0).integers(1, 200, size=(2, 128, 128)).astype("uint8")
    write_tif(
        tmp_path / "in/s.tif", values, "EPSG:32636", centred("EPSG:32636", *HERE, 30.0, 128, 128),
        names=("a", "b"),
    )  # fmt: skip
    scenes = scan(tmp_path / "in", time="2010")

    def build(out, bands, scheduler=None):
        build_cube(
            places_at(HERE), scenes, bands=bands, resolution=30, size=16, periods=["2010"],
            out=tmp_path / out, scheduler=scheduler,
        )  # fmt: skip
        return hash_tree(tmp_path / out)

    late = Late()
    with pytest.raises(KeyboardInterrupt):
        build("cube.zarr", ["a", "b"], late)
    assert build("cube.zarr", ["b", "a"], Beside(late.held)) == build("alone.zarr", ["b", "a"])
    for piece in late.held:
        with pytest.raises(CubeError, match="does not find the build"):
            piece()
    assert not (tmp_path / "cube.zarr.parts").exists()
