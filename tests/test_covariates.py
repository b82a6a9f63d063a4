"""Covariates and missing values: in the declaration, the model, the guide, files, and against sums done by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor, nn

import infoplace as ip
from infoplace.errors import DataError, DeclarationError

NAN = float("nan")


@pytest.fixture(autouse=True)
def _clean_store() -> Iterator[None]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()


def declared(**covariates: ip.Covariate) -> ip.Partition:
    return ip.Partition(
        {"z_a": ip.Block(3), "z_b": ip.Block(2, reads=("x_hat",))},
        {
            "x": ip.Observation(likelihood="normal"),
            "x_hat": ip.Observation(blocks=("z_b",), transform={"noise": {"std": 0.1}}, likelihood="normal"),
        },
        covariates or {"dose": ip.Covariate(), "lab": ip.Covariate(classes=4), "where": ip.Covariate(dim=2)},
    )


def batch(size: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "x": torch.rand(size, 6, generator=generator),
        "dose": torch.rand(size, generator=generator),
        "lab": torch.randint(4, (size,), generator=generator),
        "where": torch.rand(size, 2, generator=generator),
    }


class TestDeclaringCovariates:
    def test_they_are_read_by_everything_unless_said_otherwise(self):
        partition = declared(lab=ip.Covariate(classes=4), dose=ip.Covariate(into=("x",), source="milligrams"))
        assert partition.covariates["lab"].into == ("z_a", "z_b", "x", "x_hat")
        assert list(partition.covariates_into("x")) == ["lab", "dose"]
        assert list(partition.covariates_into("z_a")) == ["lab"]
        assert partition.sources == ("x", "lab", "milligrams")
        assert partition.modelled_sources == ("x",)
        assert partition.observed_names == ("x", "x_hat", "lab", "dose")

    def test_files_say_them(self):
        partition = declared()
        text = partition.to_yaml()
        assert ip.Partition.from_yaml(text) == partition
        assert ip.Partition.from_yaml(text).covariates["lab"] == ip.Covariate(
            4, None, ("z_a", "z_b", "x", "x_hat"), "lab"
        )
        without = {key: value for key, value in partition.to_dict().items() if key != "covariates"}
        assert not ip.Partition.from_dict(without).covariates
        assert partition != ip.Partition.from_dict(without)

    def test_the_diagram_has_them(self):
        lines = (
            declared(lab=ip.Covariate(classes=4, into=("x",)), dose=ip.Covariate(into=("z_a",))).diagram().splitlines()
        )
        assert '    lab{{"lab<br/>4 classes"}}' in lines
        assert '    dose{{"dose<br/>a number"}}' in lines
        assert "    lab --> x" in lines
        assert not any(line.startswith("    dose -->") for line in lines)

    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda: ip.Covariate(classes=1), "a covariate's classes must be a whole number of at least 2; got 1"),
            (lambda: ip.Covariate(dim=0), "a covariate's dim must be a whole number of at least 1; got 0"),
            (lambda: ip.Covariate(classes=3, dim=2), "a covariate has classes=3 and dim=2; give one"),
            (lambda: ip.Covariate(into="x"), r"write \('x',\) for a single one"),
            (lambda: ip.Covariate(source=3), "a covariate's source is one name; got 3"),
            (lambda: declared(lab=ip.Covariate(into=("z_c",))), "goes into 'z_c', and there is no such block or obs"),
            (lambda: declared(x=ip.Covariate()), "'x' names a covariate and a block or an observation"),
            (
                lambda: declared(lab=3),
                r"covariates\['lab'\] must be an ip.Covariate, as ip.Covariate\(classes=3\); got 3",
            ),
            (
                lambda: ip.Partition.from_dict({**declared().to_dict(), "covariates": {"lab": {"class": 3}}}),
                "covariates.lab has no 'class'. Did you mean 'classes'?",
            ),
        ],
    )
    def test_what_cannot_be_is_refused(self, make, text):
        with pytest.raises(DeclarationError, match=text):
            make()

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"lab": torch.tensor([0, 1, 2, 3, 4])}, "lab: classes are 0 to 3; got 0 to 4"),
            ({"lab": torch.zeros(5)}, r"lab: a covariate's classes are integers; got torch.float32; use lab.long\(\)"),
            ({"dose": torch.zeros(5, dtype=torch.int64)}, r"dose: a covariate without classes= is made of floats"),
            ({"dose": torch.full((5,), NAN)}, "dose: a covariate's values must be finite"),
            ({"dose": torch.zeros(4)}, "dose has 4 samples and the source before it 5"),
        ],
    )
    def test_bad_values_are_refused(self, change, text):
        with pytest.raises(DataError, match=text):
            declared().observe({**batch(), **change})

    def test_a_batch_without_them_is_refused(self):
        with pytest.raises(DataError, match="4 sources, so a batch is a dict"):
            declared().observe(batch()["x"])
        with pytest.raises(DataError, match="the batch has no 'lab'"):
            declared().observe({key: value for key, value in batch().items() if key != "lab"})


class Reads(nn.Module):
    """Remembers what it is given."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.seen: tuple[Tensor, ...] = ()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, *inputs: Tensor) -> Tensor:
        self.seen = inputs
        return self.weight + torch.zeros(len(inputs[0]), self.outputs)


class TestPairsWithCovariates:
    def test_networks_read_them(self):
        partition = declared(lab=ip.Covariate(classes=4), dose=ip.Covariate(into=("x", "z_a")))
        encoders = {"z_a": Reads(6), "z_b": Reads(4)}
        decoders = {"x": Reads(12), "x_hat": Reads(12)}
        pair = ip.make_pair(partition, (6,), {"encoders": encoders, "decoders": decoders})
        given = batch()
        obs = partition.observe({name: given[name] for name in ("x", "lab", "dose")})
        means = {name: q.mean for name, q in pair.encode(obs).items()}
        one_hot = torch.eye(4)[given["lab"]]
        assert [tuple(value.shape) for value in encoders["z_a"].seen] == [(5, 6), (5, 4), (5, 1)]
        assert encoders["z_a"].seen[1].equal(one_hot)
        assert encoders["z_a"].seen[2].equal(given["dose"][:, None])
        assert len(encoders["z_b"].seen) == 2
        pair.decode({**means, "lab": given["lab"], "dose": given["dose"]}, "x")
        assert decoders["x"].seen[0].equal(torch.cat([means["z_a"], means["z_b"], one_hot, given["dose"][:, None]], 1))
        pair.decode({**means, "lab": given["lab"]}, "x_hat")
        assert decoders["x_hat"].seen[0].shape == (5, 2 + 4)

    def test_nothing_generates_them(self):
        partition = declared()
        pair = ip.make_pair(partition, (6,))
        terms = ip.make_objective("elbo").terms(pair.model, pair.guide, partition.observe(batch()))
        assert sorted(terms) == ["kl/z_a", "kl/z_b", "log_likelihood/x", "log_likelihood/x_hat", "loss"]
        drawn = pair.model({name: batch()[name] for name in ("dose", "lab", "where")})
        assert drawn["x"].shape == (5, 6)
        with pytest.raises(DataError, match=r"covariate 'dose' is not given, and nothing generates it.*\['batch'\]"):
            pair.model(None, size=4)

    def test_generating_takes_them(self):
        partition = declared()
        pair = ip.make_pair(partition, (6,))
        lab = torch.tensor([0, 1, 2])
        held = {"lab": lab, "dose": torch.zeros(1), "where": torch.zeros(1, 2)}
        assert pair.sample(3, **held)["x"].shape == (3, 6)
        z = {"z_a": torch.zeros(1, 3), "z_b": torch.zeros(1, 2)}
        decoded = pair.decode({**z, **held}, "x").mean
        assert not decoded[0].equal(decoded[1])
        assert pair.sample(3, **held, **z)["x"].allclose(decoded)
        for wrong, text in (
            ({**held, "lab": lab[:2]}, r"covariate 'lab' has 2 samples; sample\(3\) takes 3 or 1"),
            ({**held, "lab": lab + 2}, "lab: classes are 0 to 3; got 2 to 4"),
            ({**held, "where": torch.zeros(3)}, r"covariate 'where' must be \[3, 2\]; got \[3\]"),
            ({"lab": lab}, "covariate 'dose' is not given"),
        ):
            with pytest.raises(DataError, match=text):
                pair.sample(3, **wrong)

    def test_reconstructions_and_swaps_hang_on_them(self):
        partition = declared()
        pair = ip.make_pair(partition, (6,)).eval()
        given = batch()
        obs = partition.observe(given)
        other = {**obs, "lab": (obs["lab"] + 1) % 4}
        assert not pair.reconstruct(obs)["x"].allclose(pair.reconstruct(other)["x"])
        assert pair.resample(obs, blocks=("z_b",))["x"].shape == (5, 6)
        assert pair.predictive(3)(obs)["x"].shape == (3, 5, 6)

    def test_training_saving_and_loading(self, tmp_path):
        partition = declared()
        pair = ip.make_pair(partition, (6,))
        log = ip.fit(pair, batch(40), steps=3, batch_size=8, log_every=1, device="cpu", progress=False)
        assert len(log) == 3
        assert all(math.isfinite(row["loss"]) for row in log)
        pair.save(tmp_path / "pair")
        loaded = ip.load_pair(tmp_path / "pair")
        obs = partition.observe(batch())
        assert loaded.reconstruct(obs)["x"].equal(pair.reconstruct(obs)["x"])

    def test_svi_particles_and_compiling(self):
        partition = declared()
        pair = ip.make_pair(partition, (6,))
        obs = partition.observe(batch())
        SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), loss=ip.make_objective("elbo")).step(obs)
        many = ip.make_objective("elbo", num_particles=3, vectorize_particles=True)
        assert math.isfinite(many.loss(pair.model, pair.guide, obs))
        objective = ip.make_objective("elbo", kl="analytic")
        pyro.set_rng_seed(1)
        eager = objective(pair.model, pair.guide)(obs)
        pyro.set_rng_seed(1)
        torch.testing.assert_close(ip.compile(pair, objective, obs, backend="eager")(obs), eager)


def partly(likelihood: str | dict = "normal", **options) -> ip.Partition:
    return ip.Partition({"z": ip.Block(2)}, {"x": ip.Observation(likelihood=likelihood, missing=True, **options)})


class TestMissing:
    @pytest.mark.parametrize(
        ("likelihood", "value", "shape"),
        [
            ({"normal": {"scale": 0.5}}, torch.tensor([[0.3, NAN, -1.0], [NAN, NAN, NAN]]), (3,)),
            ("discretized_logistic", torch.tensor([[[[0.0, NAN], [1.0, 1.0]]], [[[NAN, 0.2], [NAN, 1.0]]]]), (1, 2, 2)),
            ("bernoulli", torch.tensor([[1.0, NAN, 0.0], [0.0, 1.0, NAN]]), (3,)),
            ({"categorical": {"classes": 3}}, torch.tensor([2, -1]), ()),
            ({"categorical": {"classes": 3}}, torch.tensor([[2, -1], [0, 1]]), (2,)),
        ],
    )
    def test_it_is_left_out_of_the_likelihood(self, likelihood, value, shape):
        partition = partly(likelihood)
        pair = ip.make_pair(partition, shape)
        obs = partition.observe(value)
        z = torch.randn(2, 2)
        conditioned = pyro.poutine.condition(pair.model, {"z": z})
        found = pyro.poutine.trace(conditioned).get_trace(obs)
        found.compute_log_prob()
        whole = pair.model.likelihood("x", {"z": z})
        elementwise = whole.base_dist if len(shape) else whole
        there = (~value.isnan() if value.is_floating_point() else value >= 0).numpy()
        filled = torch.where(torch.from_numpy(there), value, torch.zeros_like(value))
        each = elementwise.log_prob(filled).detach().numpy()
        expected = np.where(there, each, 0.0).reshape(2, -1).sum(1)
        np.testing.assert_allclose(found.nodes["x"]["log_prob"].detach().numpy(), expected, rtol=1e-5)

    def test_leaving_a_class_out_is_the_sum_over_it(self):
        partition = partly({"categorical": {"classes": 3}})
        pair = ip.make_pair(partition, ())
        z = torch.randn(1, 2)
        total = sum(pair.decode({"z": z}, "x").log_prob(torch.tensor([label])).exp() for label in range(3))
        model = pyro.poutine.trace(pyro.poutine.condition(pair.model, {"z": z})).get_trace(
            partition.observe(torch.tensor([-1]))
        )
        torch.testing.assert_close(
            model.nodes["x"]["fn"].log_prob(model.nodes["x"]["value"]), total.log(), atol=1e-6, rtol=0
        )

    def test_what_is_missing_does_not_matter(self):
        # Encoder and likelihood see the same of a value that is not there, whatever else could stand there.
        partition = partly({"normal": {"scale": 0.5}})
        pair = ip.make_pair(partition, (3,))
        value = torch.tensor([[0.3, NAN, -1.0]]).requires_grad_()
        objective = ip.make_objective("elbo", kl="analytic")
        loss = objective(pair.model, pair.guide)(partition.observe(value))
        loss.backward()
        assert loss.isfinite()
        assert value.grad[0, 1] == 0
        assert value.grad[0, 0] != 0
        assert all(p.grad is None or p.grad.isfinite().all() for p in pair.parameters())

    def test_an_encoder_reads_0_and_which_are_there(self):
        for likelihood, value, shape, expected in (
            ("normal", [[0.3, NAN]], (2,), [[0.3, 0.0, 1.0, 0.0]]),
            ("normal", [0.3, NAN], (), [[0.3, 1.0], [0.0, 0.0]]),
            ({"categorical": {"classes": 2}}, [1, -1], (), [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
            ({"categorical": {"classes": 2}}, [[1, -1]], (2,), [[[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]]),
        ):
            encoder = Reads(4)
            partition = partly(likelihood)
            pair = ip.make_pair(partition, shape, {"encoders": {"z": encoder}})
            pair.encode(partition.observe(torch.tensor(value)))
            torch.testing.assert_close(encoder.seen[0], torch.tensor(expected))

    def test_partly_labelled_data(self):
        partition = ip.Partition(
            {"z": ip.Block(2, reads=("x",))},
            {
                "x": ip.Observation(likelihood="normal"),
                "label": ip.Observation(likelihood={"categorical": {"classes": 2}}, missing=True),
            },
        )
        generator = torch.Generator().manual_seed(0)
        label = torch.randint(2, (200,), generator=generator)
        x = (2.0 * label - 1.0)[:, None] + 0.3 * torch.randn(200, 3, generator=generator)
        some = torch.where(torch.arange(200) < 20, label, -1)
        torch.manual_seed(0)
        pair = ip.make_pair(partition, {"x": (3,), "label": ()})
        ip.fit(
            pair, {"x": x, "label": some}, steps=200, batch_size=50, learning_rate=1e-2, device="cpu", progress=False
        )
        obs = partition.observe({"x": x, "label": torch.full((200,), -1)})
        read = pair.reconstruct(obs)["label"]
        assert (read == label).float().mean() > 0.95

    def test_without_the_option_nothing_may_be_missing(self):
        partition = ip.Partition({"z": ip.Block(2)}, {"x": ip.Observation(likelihood="normal")})
        with pytest.raises(DataError, match="1 of 2 values are NaN or infinite"):
            partition.observe(torch.tensor([[0.0, NAN]]))

    def test_values_that_are_there_are_checked_as_ever(self):
        with pytest.raises(DataError, match="bernoulli scores the values 0 and 1 only"):
            partly("bernoulli").observe(torch.tensor([[0.5, NAN]]))

    def test_what_is_derived_may_be_missing_too(self):
        with pytest.raises(DeclarationError, match="'x_hat' is derived from one whose values may be missing"):
            ip.Partition(
                {"z": ip.Block(2)},
                {"x": ip.Observation(missing=True), "x_hat": ip.Observation(transform="patch_shuffle")},
            )
        partition = ip.Partition(
            {"z": ip.Block(2)},
            {"x": ip.Observation(missing=True), "x_hat": ip.Observation(transform="patch_shuffle", missing=True)},
        )
        x = torch.zeros(2, 1, 16, 16)
        x[0, 0, :8, :8] = NAN
        obs = partition.observe(x)
        assert int(obs["x_hat"][0].isnan().sum()) == 64
        pair = ip.make_pair(partition, (1, 16, 16))
        assert math.isfinite(ip.make_objective("elbo").loss(pair.model, pair.guide, obs))

    def test_a_decoder_that_scores_samples_as_a_whole_is_refused(self):
        class Whole(nn.Module):
            def forward(self, z: Tensor) -> pyro.distributions.MultivariateNormal:
                return pyro.distributions.MultivariateNormal(torch.zeros(len(z), 3), torch.eye(3))

        partition = partly("normal")
        pair = ip.make_pair(partition, (3,), {"decoders": {"x": Whole()}})
        with pytest.raises(
            DataError, match="its decoder returns a MultivariateNormal, which scores a sample as a whole"
        ):
            pair.model(partition.observe(torch.zeros(2, 3)))

    def test_it_trains_and_compiles(self):
        partition = partly("normal")
        x = torch.rand(20, 6)
        x[::3, 2] = NAN
        pair = ip.make_pair(partition, (6,))
        log = ip.fit(pair, x, steps=3, batch_size=8, log_every=1, device="cpu", progress=False)
        assert all(math.isfinite(row["loss"]) for row in log)
        objective, obs = ip.make_objective("elbo"), partition.observe(x)
        pyro.set_rng_seed(1)
        eager = objective(pair.model, pair.guide)(obs)
        pyro.set_rng_seed(1)
        torch.testing.assert_close(ip.compile(pair, objective, obs, backend="eager")(obs), eager)
