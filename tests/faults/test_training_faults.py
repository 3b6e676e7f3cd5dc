"""What goes wrong in training: killed runs, labels that teach nothing, memory, divergence."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from training_helpers import Tiny, bright_world

from eocausal.encoders.checkpoints import Progressed, read_checkpoint, write_checkpoint
from eocausal.encoders.dragonnet import Dragonnet
from eocausal.encoders.objectives import Outcome, Propensity
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.schedule import TrainingSchedule
from eocausal.encoders.self_supervised import BYOL, SimCLR
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.encoders.trained_files import load_trained
from eocausal.encoders.training import train_encoder
from eocausal.errors import (
    AlignmentError,
    DeviceError,
    EncoderError,
    FoldError,
    MissingColumnError,
    OneArmError,
    OutcomeError,
    WeightsError,
)
from eocausal.folds import GroupFolds

CUBE, UNITS = bright_world()
FOLDS = GroupFolds("group", k=3)
SCHEDULE = TrainingSchedule(epochs=3, batch_size=16, learning_rate=0.05)
HELPERS = Path(__file__).resolve().parents[1]

KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from training_helpers import Tiny, bright_world
from eocausal.encoders.objectives import Propensity
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.schedule import TrainingSchedule
from eocausal.encoders.training import train_encoder
from eocausal.folds import GroupFolds
import time
cube, units = bright_world()
schedule = TrainingSchedule(epochs=6, batch_size=16, learning_rate=0.05, patience=6)
def tell(done, total):
    print(done, flush=True)
    time.sleep(0.1)
train_encoder(cube, Tiny(dropout=0.2), Propensity(), units, folds=GroupFolds("group", k=3),
              out=Path(sys.argv[2]), schedule=schedule, device="cpu", seed=1, progress=tell)
"""


def train(objective=None, units=UNITS, cube=CUBE, architecture=None, **given):
    settings = {"folds": FOLDS, "schedule": SCHEDULE, "device": "cpu"} | given
    return train_encoder(cube, architecture or Tiny(), objective or Propensity(), units, **settings)


@pytest.fixture
def one_thread():
    """Sums over several threads differ in their last bits from those of the killed process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    schedule = TrainingSchedule(epochs=6, batch_size=16, learning_rate=0.05, patience=6)
    given = {"schedule": schedule, "seed": 1, "architecture": Tiny(dropout=0.2)}
    out = tmp_path / "networks"
    command = [sys.executable, "-c", KILLED, str(HELPERS), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= 8:
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    partial = tmp_path / "networks.partial"
    first = partial / "network_0.safetensors"
    assert not out.exists()
    assert first.exists()
    assert not (partial / "network_2.safetensors").exists()
    stamp = first.stat().st_mtime_ns
    seen = []
    resumed = train(
        **given,
        out=out,
        progress=lambda done, total: seen.append((done, total, first.stat().st_mtime_ns)),
    )
    assert all(when == stamp for _, _, when in seen)
    assert len(seen) < 18 - 6
    whole = train(**given)
    assert resumed.weights_sha256 == whole.weights_sha256
    pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)
    assert not partial.exists()
    began = time.perf_counter()
    again = train(**given, out=out, progress=lambda *_: pytest.fail("nothing is left to train"))
    assert again.weights_sha256 == whole.weights_sha256
    assert time.perf_counter() - began < 30


def test_other_labels_start_anew_only_where_they_were_learnt_from(tmp_path):
    out = tmp_path / "networks"
    whole = train(out=out)
    checkpoints = []

    def watch(done, total):
        checkpoints.append(sorted(p.name for p in (tmp_path / "networks.partial").iterdir()))

    changed = UNITS.copy()
    own = whole.fold[whole.fold == 0].index
    rows = changed["neighborhood"].isin(own)
    changed.loc[rows, "treated"] = 1 - changed.loc[rows, "treated"]
    other = train(units=changed, out=out, progress=watch)
    assert checkpoints
    assert other.networks[0].weights_sha256 == whole.networks[0].weights_sha256
    assert other.networks[1].weights_sha256 != whole.networks[1].weights_sha256
    assert load_trained(out, architecture=Tiny()).weights_sha256 == other.weights_sha256


def test_a_checkpoint_of_other_work_or_a_damaged_one_is_not_used(tmp_path):
    path = tmp_path / "state.safetensors"
    write_checkpoint(path, "key", Progressed(epoch=2), {"a": torch.ones(3)})
    progressed, tensors = read_checkpoint(path, "key")
    assert progressed.epoch == 2
    assert torch.equal(tensors["a"], torch.ones(3))
    assert read_checkpoint(path, "other") is None
    path.write_bytes(path.read_bytes()[:-5])
    assert read_checkpoint(path, "key") is None
    path.write_bytes(b"\x00" * 40)
    assert read_checkpoint(path, "key") is None


@pytest.mark.parametrize("objective", [Propensity(), SimCLR(), BYOL()])
def test_small_memory_takes_a_batch_in_parts_with_the_same_step(objective):
    schedule = replace(SCHEDULE, epochs=2)
    whole = train(objective, schedule=schedule)
    parts = train(objective, schedule=schedule, architecture=Tiny(limit=5))
    np.testing.assert_allclose(parts.history["training"], whole.history["training"], rtol=1e-4)
    for a, b in zip(parts.networks, whole.networks, strict=True):
        for name, tensor in a.network.state_dict().items():
            other = b.network.state_dict()[name]
            torch.testing.assert_close(tensor, other, rtol=1e-3, atol=1e-4)


def test_memory_too_small_for_one_chip_is_said():
    with pytest.raises(DeviceError, match="single chip"):
        train(architecture=Tiny(limit=0.5))


def test_an_epoch_that_diverges_is_done_again_at_half_the_rate(caplog):
    def rows(breaks_at):
        schedule = replace(SCHEDULE, learning_rate=4.0, epochs=2, clip=1e9)
        run = train(architecture=Tiny(breaks_at=breaks_at), schedule=schedule)
        return run.history.query("epoch == 2").set_index("fold")

    caplog.set_level("WARNING")
    calm = rows(np.inf)
    assert caplog.text == ""
    slow = rows(6.0)
    assert "half the rate" in caplog.text
    assert np.isfinite(slow["training"]).all()
    share = slow["rate"] / calm["rate"]
    assert set(share) <= {1.0, 0.5, 0.25, 0.125, 0.0625}
    assert share.min() < 1


def test_a_loss_that_never_is_finite_ends_training():
    with pytest.raises(EncoderError, match="not finite in epoch 1, even at a learning rate"):
        train(schedule=replace(SCHEDULE, learning_rate=1e4), architecture=Tiny(breaks_at=20.0))
    with pytest.raises(EncoderError, match="nan before the first step"):
        train(architecture=Tiny(breaks_at=0.0))


def test_labels_that_teach_nothing_are_refused():
    one = UNITS.assign(treated=1)
    with pytest.raises(OneArmError, match="network 0 is trained on have treated = 1"):
        train(units=one)
    with pytest.raises(OutcomeError, match="is 5 in every neighborhood"):
        train(Outcome(), units=UNITS.assign(outcome=5.0))
    with pytest.raises(EncoderError, match="'treated' is missing in all units"):
        train(units=UNITS.assign(treated=np.nan))
    arm = UNITS.assign(outcome=UNITS["outcome"].where(UNITS["treated"] == 1))
    with pytest.raises(EncoderError, match="treated = 0 has an outcome"):
        train(Dragonnet(), units=arm)
    lonely = UNITS.assign(treated=(UNITS["group"] == 0).astype(int))
    with pytest.raises(OneArmError, match="Next: Use fewer folds"):
        train(units=lonely)


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(MissingColumnError, match="no column 'treated'"):
        train(units=UNITS.drop(columns="treated"))
    with pytest.raises(MissingColumnError, match="no column 'neighborhood'"):
        train(units=UNITS.drop(columns="neighborhood"))
    with pytest.raises(AlignmentError, match="name no neighborhood"):
        train(units=UNITS.assign(neighborhood=UNITS["neighborhood"].where(UNITS.index > 2)))
    with pytest.raises(EncoderError, match="Give units and folds"):
        train(folds=None)
    with pytest.raises(EncoderError, match="seed=-1"):
        train(seed=-1)


def test_cubes_without_a_view_are_refused():
    empty = CUBE.copy(deep=True)
    empty["valid"][:] = 0
    with pytest.raises(EncoderError, match="No chip of the cube has a valid pixel"):
        train(cube=empty)
    constant = CUBE.copy(deep=True)
    constant["image"][:] = 7.0
    constant["valid"][:] = 1.0
    with pytest.raises(EncoderError, match="one constant value"):
        train(cube=constant)


def test_other_places_of_the_same_name_are_refused():
    run = train()
    moved = CUBE.assign_coords(lon=CUBE["lon"] + 1)
    with pytest.raises(AlignmentError, match="lie elsewhere"):
        run.encode(moved, device="cpu")
    with pytest.raises(EncoderError, match="bands"):
        run.predict(CUBE.isel(band=[1, 0]), device="cpu")


def test_known_places_under_other_names_are_refused():
    """Without their names they would be encoded by networks that learnt from their labels."""
    run = train()
    renamed = CUBE.assign_coords(neighborhood=np.arange(90))
    with pytest.raises(AlignmentError, match="under names that training did not know"):
        run.encode(renamed, device="cpu")
    with pytest.raises(AlignmentError, match="lie where others lie"):
        run.predict(renamed, device="cpu")
    moved = renamed.assign_coords(lon=CUBE["lon"] + 5)
    assert (run.encode(moved, device="cpu")["fold"] == -1).all()


def test_other_pixels_of_the_same_mean_and_sd_start_anew(tmp_path):
    out = tmp_path / "networks"
    whole = train(out=out)
    turned = CUBE.copy(deep=True)
    turned["image"][:] = CUBE["image"].to_numpy()[..., ::-1, :]
    other = train(out=out, cube=turned)
    assert other.weights_sha256 == train(cube=turned).weights_sha256 != whole.weights_sha256


def test_what_is_no_decision_is_refused():
    wrong = (
        {"architecture": SmallCNN},
        {"architecture": "SmallCNN"},
        {"architecture": RandomConv(features=8)},
        {"objective": Propensity},
        {"objective": "propensity"},
        {"folds": 5},
        {"folds": GroupFolds},
    )
    for given in wrong:
        with pytest.raises(EncoderError, match=rf"{next(iter(given))} is .*Next: Give"):
            train(**given)


@dataclass(frozen=True)
class CountedFromOne:
    k: int = 3

    def assign(self, units, *, seed, stratum=None):
        return units["group"].to_numpy() % 3 + 1


def test_folds_that_no_network_speaks_for_are_refused():
    with pytest.raises(FoldError, match="3 folds are numbered from 0"):
        train(folds=CountedFromOne())


def test_one_chip_alone_is_not_told_from_others():
    for objective in (SimCLR(), BYOL()):
        with pytest.raises(EncoderError, match="given 1 chip to train on"):
            train(objective, None, CUBE.isel(neighborhood=[0]), folds=None)


def test_files_that_are_not_what_was_written_are_refused(tmp_path):
    run = train(architecture=SmallCNN(widths=(8,)), schedule=replace(SCHEDULE, epochs=1))
    path = tmp_path / "networks"
    run.save(path)
    note = path / "trained.json"
    content = json.loads(note.read_text())
    with pytest.raises(WeightsError, match="were trained with SmallCNN"):
        load_trained(path, architecture=SmallCNN(widths=(16,)))
    harmful = json.loads(json.dumps(content))
    harmful["architecture"]["decision"] = {"class": ["os", "system"], "fields": {}}
    note.write_text(json.dumps(harmful))
    with pytest.raises(WeightsError, match=r"os.*as a decision"):
        load_trained(path)
    note.write_text(json.dumps(content))
    weights = path / "network_1.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-3] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(WeightsError, match=r"network_1\.safetensors is not the file"):
        load_trained(path)
    weights.unlink()
    with pytest.raises(WeightsError, match="that can be read"):
        load_trained(path)
    with pytest.raises(WeightsError, match="no trained networks"):
        load_trained(tmp_path)


def test_decisions_of_others_have_to_be_given_again(tmp_path):
    train().save(tmp_path / "networks")
    with pytest.raises(WeightsError, match="Give it again"):
        load_trained(tmp_path / "networks")
    assert load_trained(tmp_path / "networks", architecture=Tiny()).predict(CUBE).shape == (90, 1)


def test_nothing_is_written_over_other_folders(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(EncoderError, match="holds no trained networks"):
        train(out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
