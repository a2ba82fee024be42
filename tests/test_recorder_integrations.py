"""Callbacks of Lightning and of transformers: the trace is that of a plain loop, also after an interruption."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import rotsim
from rotsim.measure import Recorder

# Their imports take seconds, and warn of what is not rotsim's.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

EPOCHS, STEPS, BATCH, WIDTH = 2, 30, 8, 12  # steps of an epoch
OPTIONS = {"interval": 1, "window": 10, "lags": 4}


class Samples(torch.utils.data.Dataset):
    """Inputs and classes that depend on the place alone."""

    def __len__(self):
        return STEPS * BATCH

    def __getitem__(self, place):
        x = torch.randn(WIDTH, generator=torch.Generator().manual_seed(place))
        return {"x": x, "labels": int(x[0] > 0)}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.hidden, self.out = nn.Linear(WIDTH, 6, bias=False), nn.Linear(6, 2)

    def forward(self, x, labels):
        return {"loss": nn.functional.cross_entropy(self.out(torch.tanh(self.hidden(x))), labels)}


def optimizer_of(network):
    return torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)


@pytest.fixture(scope="module")
def plain():
    """A training by hand, on the same batches."""
    network = Network()
    optimizer = optimizer_of(network)
    with Recorder(network, optimizer, **OPTIONS) as recorder:
        for batch in EPOCHS * list(torch.utils.data.DataLoader(Samples(), BATCH)):
            optimizer.zero_grad()
            network(**batch)["loss"].backward()
            optimizer.step()
    return recorder.dataset()


def same(trace, plain):
    assert trace["step"].values.tolist() == plain["step"].values.tolist()
    for name in ("norm", "rotation"):
        np.testing.assert_array_equal(trace[name].values, plain[name].values)


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning.pytorch")


def lightning_run(lightning, folder, callback, *, stop=None, checkpoint=None):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = Network()

        def training_step(self, batch, index):
            if self.global_step == stop:
                raise RuntimeError("the machine is gone")
            return self.network(**batch)["loss"]

        def configure_optimizers(self):
            return optimizer_of(self)

    keep = lightning.callbacks.ModelCheckpoint(folder, every_n_train_steps=30, save_top_k=-1, filename="{step}")
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, callbacks=[callback, keep],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(Samples(), BATCH), ckpt_path=checkpoint)


def test_lightning_records_what_a_plain_loop_does(lightning, tmp_path, plain):
    from rotsim.measure.lightning import RotationCallback

    lightning_run(lightning, tmp_path, RotationCallback(tmp_path / "trace.nc", **OPTIONS))
    same(rotsim.load(tmp_path / "trace.nc"), plain)


def test_lightning_goes_on_from_a_checkpoint_after_an_exception(lightning, tmp_path, plain):
    from rotsim.measure.lightning import RotationCallback

    path = tmp_path / "trace.nc"
    with pytest.raises(RuntimeError, match="the machine is gone"):
        lightning_run(lightning, tmp_path, RotationCallback(path, **OPTIONS), stop=45)
    assert rotsim.load(path)["step"].values[-1] == 45
    lightning_run(lightning, tmp_path, RotationCallback(path, **OPTIONS), checkpoint=tmp_path / "step=30.ckpt")
    same(rotsim.load(path), plain)


def test_lightning_has_no_such_optimizer(lightning, tmp_path):
    from rotsim.measure.lightning import RotationCallback

    with pytest.raises(rotsim.InvalidInput, match="`optimizer` must be less than 1"):
        lightning_run(lightning, tmp_path, RotationCallback(optimizer=1))


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def trainer_run(transformers, folder, callback, *, steps=EPOCHS * STEPS, checkpoint=None):
    network = Network()
    arguments = transformers.TrainingArguments(
        str(folder), per_device_train_batch_size=BATCH, max_steps=steps, save_steps=30, report_to=[],
        use_cpu=True, disable_tqdm=True, max_grad_norm=0, train_sampling_strategy="sequential",
    )  # fmt: skip
    optimizer = optimizer_of(network)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
    transformers.Trainer(
        network, arguments, train_dataset=Samples(), callbacks=[callback], optimizers=(optimizer, constant)
    ).train(resume_from_checkpoint=checkpoint)


def test_the_trainer_records_what_a_plain_loop_does(transformers, tmp_path, plain):
    from rotsim.measure.transformers import RotationCallback

    trainer_run(transformers, tmp_path, RotationCallback(tmp_path / "trace.nc", **OPTIONS))
    same(rotsim.load(tmp_path / "trace.nc"), plain)


def test_the_trainer_goes_on_from_a_checkpoint(transformers, tmp_path, plain):
    from rotsim.measure.transformers import RotationCallback

    path = tmp_path / "trace.nc"
    trainer_run(transformers, tmp_path, RotationCallback(path, **OPTIONS), steps=45)
    trainer_run(transformers, tmp_path, RotationCallback(path, **OPTIONS), checkpoint=str(tmp_path / "checkpoint-30"))
    same(rotsim.load(path), plain)


RAISING = """
from pathlib import Path
import sys
import transformers
from rotsim.measure.transformers import RotationCallback
from tests.test_recorder_integrations import OPTIONS, trainer_run

class Raising(RotationCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 25:
            raise RuntimeError("out of memory")

trainer_run(transformers, Path(sys.argv[1]), Raising(sys.argv[2], **OPTIONS))
"""


def test_a_training_that_raises_leaves_its_trace(transformers, tmp_path, plain):
    command = [sys.executable, "-c", RAISING, str(tmp_path), str(tmp_path / "trace.nc")]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert ended.returncode == 1 and "out of memory" in ended.stderr
    found = rotsim.load(tmp_path / "trace.nc")
    assert found["step"].values.tolist() == [10, 20, 25]
    same(found.isel(step=slice(2)), plain.isel(step=slice(2)))


def test_a_new_training_does_not_replace_the_trace(transformers, tmp_path):
    from rotsim.measure.transformers import RotationCallback

    path = tmp_path / "trace.nc"
    path.write_bytes(b"kept")
    with pytest.raises(rotsim.InvalidInput, match="must not exist yet"):
        trainer_run(transformers, tmp_path, RotationCallback(path, **OPTIONS))
    assert path.read_bytes() == b"kept"
