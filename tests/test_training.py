"""Training: what is learned, logged, checkpointed, resumed and refused."""

from __future__ import annotations

import csv
import dataclasses
import json

import pyro
import pytest
import torch
from torch import Tensor

import infoplace as ip
from infoplace.data import ImageData
from infoplace.evidence import Term
from infoplace.files import locked
from infoplace.objectives import Elbo
from infoplace.training import CHECKPOINT, METRICS

PARTITION = ip.Partition(
    {"z": ip.Block(4), "w": ip.Block(2)},
    {
        "x": ip.Observation(blocks=("z", "w")),
        "x_hat": ip.Observation(blocks=("w",), transform={"patch_shuffle": {"n": 4}}),
    },
)
SETTINGS = ip.Settings(steps=12, batch_size=8, log_every=4, checkpoint_every=4, learning_rate=1e-3)


def images(count: int = 50, seed: int = 0) -> Tensor:
    """Images of one grey value each, so that there is something to learn."""
    values = torch.randint(0, 256, (count, 1, 1, 1), generator=torch.Generator().manual_seed(seed))
    return (values / 255).expand(-1, 1, 8, 8).clone()


def new_pair(seed: int = 0) -> ip.Pair:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ip.make_pair(PARTITION, (1, 8, 8))


def fit(pair: ip.Pair, data=None, **options):
    options = {"settings": SETTINGS, "device": "cpu", "progress": False, **options}
    return ip.fit(pair, images() if data is None else data, "beta_elbo", **options)


def assert_same(one: ip.Pair, two: ip.Pair) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_it_learns():
    pair = new_pair()
    log = fit(pair, steps=300, learning_rate=5e-3, log_every=100)
    assert log[-1]["loss"] < log[0]["loss"] < 2000
    mean = pair.reconstruct(PARTITION.observe(images(20, seed=1)))["x"].mean((1, 2, 3))
    true = images(20, seed=1).mean((1, 2, 3))
    assert torch.corrcoef(torch.stack([mean, true]))[0, 1] > 0.9


def test_the_log_names_every_term_and_adds_up():
    log = fit(new_pair())
    assert [row["step"] for row in log] == [4, 8, 12]
    for row in log:
        total = row["kl/z"] + row["kl/w"] - row["log_likelihood/x"] - row["log_likelihood/x_hat"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)


def test_one_seed_one_result_and_the_global_state_is_left():
    state, validating = torch.get_rng_state(), pyro.infer.util.is_validation_enabled()
    one, two, other = new_pair(), new_pair(), new_pair()
    fit(one), fit(two), fit(other, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert pyro.infer.util.is_validation_enabled() == validating
    assert_same(one, two)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["tensor", "dict", "ImageData"])
def test_data_in_every_form_are_the_same(kind):
    data = {
        "tensor": images(),
        "dict": {"x": images()},
        "ImageData": ImageData((images() * 255).round().to(torch.uint8)),
    }[kind]
    one, two = new_pair(), new_pair()
    fit(one), fit(two, data)
    assert_same(one, two)


def test_factors_come_from_the_data_by_their_names():
    partition = ip.Partition(
        {"z": ip.Block(2)},
        {"image": ip.Observation(), "digit": ip.Observation(likelihood={"categorical": {"classes": 10}})},
    )
    pair = ip.make_pair(partition, {"image": (1, 8, 8), "digit": ()})
    data = ImageData((images() * 255).round().to(torch.uint8), {"digit": torch.arange(50) % 10})
    log = fit(pair, data)
    assert "log_likelihood/digit" in log[-1]


def test_resumed_training_ends_where_uninterrupted_training_does(tmp_path):
    whole, half, resumed = new_pair(), new_pair(), new_pair(seed=5)
    full_log = fit(whole)
    # The schedules of both are those of twelve steps; the first run is stopped after eight.
    stop_after(8, lambda: fit(half, out=tmp_path / "run"))
    log = fit(resumed, out=tmp_path / "run", resume=True)
    assert_same(whole, resumed)
    assert [row["step"] for row in log] == [4, 8, 12]
    assert log[-1]["loss"] == pytest.approx(full_log[-1]["loss"], rel=1e-6)


def stop_after(steps: int, call) -> None:
    """Press Ctrl-C when ``steps`` steps are done."""
    original = ip.Partition.observe
    done = 0

    def interrupting(self, *arguments, **keywords):
        nonlocal done
        if done == steps:
            raise KeyboardInterrupt
        done += 1
        return original(self, *arguments, **keywords)

    patch = pytest.MonkeyPatch()
    patch.setattr(ip.Partition, "observe", interrupting)
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
    finally:
        patch.undo()


def test_ctrl_c_between_checkpoints_keeps_what_was_done(tmp_path):
    whole, half, resumed = new_pair(), new_pair(), new_pair(seed=5)
    fit(whole)
    stop_after(6, lambda: fit(half, out=tmp_path / "run"))
    fit(resumed, out=tmp_path / "run", resume=True)
    assert_same(whole, resumed)


def test_a_schedule_is_resumed(tmp_path):
    warming = lambda: ip.make_objective("beta_elbo", beta=10.0, warmup=10)  # noqa: E731
    whole, half, resumed = new_pair(), new_pair(), new_pair()
    ip.fit(whole, images(), warming(), SETTINGS, device="cpu", progress=False)
    options = {"settings": SETTINGS, "device": "cpu", "progress": False, "out": tmp_path / "run"}
    stop_after(8, lambda: ip.fit(half, images(), warming(), **options))
    ip.fit(resumed, images(), warming(), resume=True, **options)
    assert_same(whole, resumed)


def test_logs_on_disk(tmp_path):
    log = fit(new_pair(), out=tmp_path / "run")
    with (tmp_path / "run" / METRICS).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [4, 8, 12]
    assert float(rows[-1]["loss"]) == pytest.approx(log[-1]["loss"], rel=1e-5)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_progress_is_printed_with_its_terms(capsys):
    fit(new_pair(), progress=True)
    printed = capsys.readouterr().out
    assert "step 12/12" in printed
    assert "kl/z" in printed


@pytest.mark.parametrize("change", [{"clip": 1e-3}, {"weight_decay": 10.0}, {"schedule": "constant"},
                                    {"learning_rate": 1e-2}, {"betas": (0.5, 0.5)}, {"batch_size": 4},
                                    {"precision": "bf16-mixed"}])  # fmt: skip
def test_every_setting_does_something(change):
    one, two = new_pair(), new_pair()
    fit(one), fit(two, **change)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_an_objective_trains_its_own_parameters():
    class Scaled(ip.Objective):
        """The bound, and a parameter of its own that wants to be 3."""

        def __init__(self) -> None:
            super().__init__()
            self.module = torch.nn.Linear(1, 1)

        def weigh(self, evidence):
            own = Term((self.module.weight - 3).square().sum(), 1000.0)
            return {**evidence.likelihood_terms(), **evidence.kl_terms(1.0), "own": own}

    objective = ip.register_objective("scaled_in_a_test", Scaled)()
    before = abs(objective.module.weight.item() - 3)
    log = ip.fit(new_pair(), images(), objective, SETTINGS, device="cpu", progress=False, learning_rate=0.1)
    assert abs(objective.module.weight.item() - 3) < before
    assert "own" in log[-1]


def test_channels_last_keeps_the_result():
    one, two = new_pair(), new_pair()
    first, second = fit(one), fit(two, channels_last=True)
    assert second[-1]["loss"] == pytest.approx(first[-1]["loss"], rel=1e-3)


def test_a_warm_up_longer_than_the_training_is_said_before_the_first_step():
    objective = ip.make_objective("beta_elbo", beta=4.0, warmup=1000)
    with pytest.warns(UserWarning, match="warm-up takes 1000 steps and the training 12"):
        ip.fit(new_pair(), images(), objective, SETTINGS, device="cpu", progress=False)


def broken(data: Tensor, value: float) -> Tensor:
    data = data.clone()
    data[3, 0, 0, 0] = value
    return data


@pytest.mark.parametrize(
    ("data", "options", "error", "text"),
    [
        (images() * 255, {}, ip.DataError, "Divide by 255|divide by 255"),
        (broken(images(), float("nan")), {}, ip.DataError, "NaN"),
        ((images() * 255).to(torch.uint8), {}, ip.DataError, "uint8"),
        (images()[:0], {}, ip.DataError, "empty|0 samples"),
        (torch.zeros(50, 3, 8, 8), {}, ip.DataError, r"x has shape \[2, 3, 8, 8\], and this pair takes \[batch, 1"),
        ({"y": images()}, {}, ip.DataError, "no 'x'"),
        ([1, 2], {}, ip.DataError, "fit takes an infoplace.data.ImageData"),
        (None, {"step": 3}, ip.DeclarationError, "fit has no 'step'. Did you mean 'steps'"),
        (images().double(), {}, ip.DataError, "x is float64 and the pair float32; convert the batch"),
        (broken(images(), 200.0), {}, ip.DataError, "0, 1"),
        (None, {"settings": {"steps": 3}}, ip.DeclarationError, "settings is an ip.Settings"),
        (None, {"device": "gpu"}, ip.DeclarationError, "device must be one of"),
        (None, {"processes": 0}, ip.DeclarationError, "processes must be a whole number"),
        (None, {"resume": True}, ip.RunFolderError, "say where it is with out="),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(data, options, error, text):
    with pytest.raises(error, match=text):
        fit(new_pair(), data, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_no_cuda_here():
    with pytest.raises(ip.DeclarationError, match="torch finds no CUDA device here"):
        fit(new_pair(), device="cuda")


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    rates = [1e-3] * 6 + [1e30] * 6
    monkeypatch.setattr(ip.Settings, "learning_rate_at", lambda self, step: rates[step])
    with pytest.raises(
        ip.TrainingError, match=r"no longer a number at step 8 .*lower the learning.*good checkpoint is kept"
    ):
        fit(new_pair(), out=tmp_path / "run")
    kept, expected = ip.load_pair(tmp_path / "run"), new_pair()
    fit(expected, steps=4)
    assert_same(kept, expected)


def test_an_update_that_ruins_the_weights_is_not_saved(tmp_path, monkeypatch):
    """The loss of a step is that of the weights before its update."""
    rates = [1e-3] * 7 + [1e30] * 5
    monkeypatch.setattr(ip.Settings, "learning_rate_at", lambda self, step: rates[step])
    with pytest.raises(ip.TrainingError, match="at step 8"):
        fit(new_pair(), out=tmp_path / "run")
    assert all(value.abs().max() < 1e6 for value in ip.load_pair(tmp_path / "run").state_dict().values())


def test_an_objective_starts_its_schedule_anew_with_every_new_run():
    objective = ip.make_objective("beta_elbo", beta=50.0, warmup=10)
    one, two = new_pair(), new_pair()
    for pair in (one, two):
        ip.fit(pair, images(), objective, SETTINGS, device="cpu", progress=False)
    assert_same(one, two)


def test_mixed_precision_leaves_the_grey_values_alone():
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(64, 8)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach().clone())
            return self.linear(x.flatten(1))

    pair = ip.make_pair(PARTITION, (1, 8, 8), networks={"encoders": {"z": Spy()}})
    seen.clear()
    fit(pair, steps=1, precision="bf16-mixed")
    assert seen[0].dtype == torch.float32
    PARTITION.check(seen[0])


class TestRunFolders:
    recipe = ip.Recipe(PARTITION, settings=SETTINGS, data="grey")

    def train(self, out, **options):
        return ip.train(self.recipe, images(), (1, 8, 8), out, device="cpu", progress=False, **options)

    def test_it_holds_everything_needed_to_use_it(self, tmp_path):
        pair = self.train(tmp_path / "run")
        names = {path.name for path in (tmp_path / "run").iterdir()}
        assert names >= {"recipe.yaml", "partition.yaml", "pair.json", "weights.safetensors", "metrics.csv", "run.json"}
        assert not any("partial" in name for name in names)
        assert_same(pair, ip.load_pair(tmp_path / "run"))
        assert ip.load_recipe(tmp_path / "run" / "recipe.yaml") == self.recipe
        described = json.loads((tmp_path / "run" / "run.json").read_text())
        assert described["steps"] == 12
        assert described["machine"]["torch"] == torch.__version__

    def test_a_run_is_not_overwritten(self, tmp_path):
        self.train(tmp_path / "run")
        with pytest.raises(ip.RunFolderError, match=r"holds a run already.*--resume"):
            self.train(tmp_path / "run")

    def test_a_folder_that_another_run_writes_into(self, tmp_path):
        folder = tmp_path / "run"
        folder.mkdir()
        with locked(folder):
            with pytest.raises(ip.RunFolderError, match=r"another run is writing into .*run; wait until it ends"):
                self.train(folder)
            assert [path.name for path in folder.iterdir()] == ["run.lock"]
        self.train(folder)

    def test_a_run_has_its_folder_to_itself(self, tmp_path):
        folder, refused = tmp_path / "run", []

        class Watched(Elbo):
            def weigh(self, evidence):
                with pytest.raises(ip.RunFolderError, match="another run"), locked(folder):
                    pass
                refused.append(True)
                return super().weigh(evidence)

        ip.fit(new_pair(), images(), Watched(), SETTINGS, out=folder, device="cpu", progress=False)
        assert len(refused) >= SETTINGS.steps
        assert not (folder / "run.lock").exists()

    def test_nothing_to_resume(self, tmp_path):
        with pytest.raises(ip.RunFolderError, match=r"no checkpoint\.safetensors to resume"):
            self.train(tmp_path / "run", resume=True)
        assert not (tmp_path / "run").exists()

    def test_a_checkpoint_cut_short(self, tmp_path):
        self.train(tmp_path / "run")
        file = tmp_path / "run" / CHECKPOINT
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(ip.RunFolderError, match="is not a whole checkpoint"):
            self.train(tmp_path / "run", resume=True)

    def test_a_checkpoint_of_another_run(self, tmp_path):
        self.train(tmp_path / "run")
        other = dataclasses.replace(self.recipe, settings=dataclasses.replace(SETTINGS, seed=3))
        recipe_before = (tmp_path / "run" / "recipe.yaml").read_bytes()
        with pytest.raises(ip.RunFolderError, match="written with seed 0, and this run has 3"):
            ip.train(other, images(), (1, 8, 8), tmp_path / "run", resume=True, device="cpu", progress=False)
        other = dataclasses.replace(self.recipe, partition=ip.Partition({"z": ip.Block(3)}, {"x": ip.Observation()}))
        with pytest.raises(ip.RunFolderError, match="was written with partition"):
            ip.train(other, images(), (1, 8, 8), tmp_path / "run", resume=True, device="cpu", progress=False)
        other = dataclasses.replace(self.recipe, objective={"beta_elbo": {"beta": 9.0}})
        with pytest.raises(ip.RunFolderError, match="was written with objective"):
            ip.train(other, images(), (1, 8, 8), tmp_path / "run", resume=True, device="cpu", progress=False)
        other = dataclasses.replace(self.recipe, networks={"small": {"width": 16}})
        with pytest.raises(ip.DeclarationError, match="do not fit the partition and networks"):
            ip.train(other, images(), (1, 8, 8), tmp_path / "run", resume=True, device="cpu", progress=False)
        other = dataclasses.replace(self.recipe, settings=dataclasses.replace(SETTINGS, steps=4))
        with pytest.raises(ip.RunFolderError, match="12 steps behind it, and this run has 4"):
            ip.train(other, images(), (1, 8, 8), tmp_path / "run", resume=True, device="cpu", progress=False)
        assert (tmp_path / "run" / "recipe.yaml").read_bytes() == recipe_before

    def test_more_steps(self, tmp_path):
        self.train(tmp_path / "run")
        longer = dataclasses.replace(self.recipe, settings=dataclasses.replace(SETTINGS, steps=16))
        ip.train(longer, images(), (1, 8, 8), tmp_path / "run", resume=True, device="cpu", progress=False)
        assert ip.load_recipe(tmp_path / "run" / "recipe.yaml").settings.steps == 16
        with (tmp_path / "run" / METRICS).open() as file:
            assert [row["step"] for row in csv.DictReader(file)] == ["4", "8", "12", "16"]

    def test_a_damaged_log(self, tmp_path):
        self.train(tmp_path / "run")
        (tmp_path / "run" / METRICS).write_text("step,loss\n4,much\n")
        with pytest.raises(ip.RunFolderError, match=r"metrics\.csv is damaged"):
            self.train(tmp_path / "run", resume=True)
        (tmp_path / "run" / METRICS).unlink()
        self.train(tmp_path / "run", resume=True)

    def test_a_pair_can_be_used_while_it_trains(self, tmp_path):
        stop_after(5, lambda: self.train(tmp_path / "run"))
        assert ip.load_pair(tmp_path / "run").partition == PARTITION

    def test_what_fails_after_the_log_is_open_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ip.Settings, "learning_rate_at", lambda self, step: 1e30)
        with pytest.raises(ip.TrainingError):
            self.train(tmp_path / "run")
        assert not (tmp_path / "run").exists()
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("keep")
        with pytest.raises(ip.TrainingError):
            self.train(tmp_path / "mine")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]

    def test_a_failed_run_removes_no_file_of_anybody_else(self, tmp_path, monkeypatch):
        def rate(self, step):
            (tmp_path / "mine" / "elsewhere.txt").write_text("written meanwhile")
            return 1e30

        (tmp_path / "mine").mkdir()
        monkeypatch.setattr(ip.Settings, "learning_rate_at", rate)
        with pytest.raises(ip.TrainingError):
            self.train(tmp_path / "mine")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["elsewhere.txt"]

    def test_modules_of_your_own_are_no_recipe(self):
        with pytest.raises(ip.DeclarationError, match="cannot hold modules of your own"):
            ip.Recipe(PARTITION, networks={"encoders": {"z": torch.nn.Identity()}})

    def test_bad_data_leave_nothing_behind(self, tmp_path):
        with pytest.raises(ip.DataError):
            ip.train(self.recipe, images() * 255, (1, 8, 8), tmp_path / "run", device="cpu", progress=False)
        assert not (tmp_path / "run").exists()

    def test_a_full_disk(self, tmp_path, monkeypatch):
        def full(*arguments, **keywords):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("infoplace.files.os.replace", full)
        with pytest.raises(ip.RunFolderError, match="No space left on device"):
            self.train(tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda(tmp_path):
    pair = new_pair()
    log = fit(pair, device="cuda", precision="bf16-mixed", channels_last=True, out=tmp_path / "run")
    assert pair.device.type == "cuda"
    assert log[-1]["loss"] == pytest.approx(fit(new_pair(), device="cpu")[-1]["loss"], rel=0.05)
