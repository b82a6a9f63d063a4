"""The compiled loss equals the eager one, follows schedules, and draws anew at every call."""

from __future__ import annotations

import pyro
import pytest
import torch
from torch import Tensor

import infoplace as ip
from infoplace.step import compile as compile_loss

PARTITION = ip.Partition(
    {"z": ip.Block(3), "w": ip.Block(2, beta=2.0)},
    {
        "x": ip.Observation(blocks=("z", "w"), weight=0.5),
        "x_hat": ip.Observation(blocks=("w",), transform={"patch_shuffle": {"n": 4}}),
    },
)


def observations(count: int = 6, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator).float() / 255
    return PARTITION.observe(images, generator)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return ip.make_pair(PARTITION, (3, 8, 8))


OBJECTIVES = {
    "elbo": lambda: ip.make_objective("elbo"),
    "sampled": lambda: ip.make_objective("elbo", kl="sampled"),
    "warm-up": lambda: ip.make_objective("beta_elbo", beta=5.0, warmup=4),
    "particles": lambda: ip.make_objective("elbo", num_particles=3, vectorize_particles=True),
    "sum": lambda: ip.make_objective("beta_elbo", beta=2.0, warmup=3) + 0.5 * ip.make_objective("free_bits", nats=1.0),
}


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_value_gradient_terms_and_schedule_are_those_of_the_eager_loss(pair, name):
    eager_objective, compiled_objective = OBJECTIVES[name](), OBJECTIVES[name]()
    eager = eager_objective(pair.model, pair.guide)
    compiled = compile_loss(pair, compiled_objective, backend="eager")
    for step in range(6):
        batch, results = observations(seed=step), []
        for loss in (eager, compiled):
            pair.zero_grad()
            torch.manual_seed(step)
            value, terms = loss.evaluate(batch)
            value.backward()
            results.append((value.detach(), terms, {n: p.grad.clone() for n, p in pair.named_parameters()}))
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)
    assert compiled_objective.state_dict() == eager_objective.state_dict()


def test_every_call_draws_anew(pair):
    compiled = compile_loss(pair, ip.make_objective("elbo"), backend="eager")
    batch = observations()
    assert compiled(batch) != compiled(batch)


def test_evaluation_does_not_advance_the_schedule(pair):
    objective = ip.make_objective("beta_elbo", warmup=10)
    compiled = compile_loss(pair, objective, observations(), backend="eager")
    assert objective.steps_taken == 0
    with torch.no_grad():
        compiled(observations())
    compiled.eval()
    compiled(observations())
    assert objective.steps_taken == 0
    compiled.train()
    compiled(observations())
    assert objective.steps_taken == 1


def test_another_batch_size_is_traced_anew(pair):
    compiled = compile_loss(pair, ip.make_objective("elbo"), observations(), backend="eager")
    assert float(compiled(observations(3)).detach()) < float(compiled(observations(12)).detach())


def test_tracing_leaves_pyro_and_torch_as_they_were(pair):
    pyro.clear_param_store()
    compiled = compile_loss(pair, ip.make_objective("elbo"), observations(), backend="eager")
    torch.manual_seed(3)
    traced_before = compiled(observations()).detach()
    torch.manual_seed(3)
    traced_now = compile_loss(pair, ip.make_objective("elbo"), backend="eager")(observations()).detach()
    torch.testing.assert_close(traced_now, traced_before)
    assert list(pyro.get_param_store().keys()) == []


def test_it_trains(pair):
    compiled = compile_loss(pair, ip.make_objective("elbo"), observations(), backend="eager")
    optimiser = torch.optim.Adam(compiled.parameters(), lr=1e-2)
    assert {id(p) for p in compiled.parameters()} == {id(p) for p in pair.parameters()}
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = compiled(observations())
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda p: compile_loss(p.model, ip.make_objective("elbo")),
            ip.DeclarationError,
            "takes a pair and an objective",
        ),
        (lambda p: compile_loss(p, "elbo"), ip.DeclarationError, "takes a pair and an objective"),
        (lambda p: compile_loss(p, ip.make_objective("elbo"), torch.zeros(2, 3, 8, 8)), ip.DataError, "observe"),
        (
            lambda p: compile_loss(p, ip.make_objective("elbo"), {"x": torch.zeros(2, 1, 8, 8)}, backend="eager"),
            ip.DataError,
            r"x has shape \[2, 1, 8, 8\]",
        ),
    ],
)
def test_misuse_is_named(pair, call, error, text):
    with pytest.raises(error, match=text):
        call(pair)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_inductor_on_cuda_agrees(pair):
    pair.to("cuda").eval()
    batch = {name: value.cuda() for name, value in observations().items()}
    eager = ip.make_objective("elbo", num_particles=200, vectorize_particles=True)
    compiled = compile_loss(pair, eager, batch)
    assert float(compiled(batch).detach()) == pytest.approx(eager.loss(pair.model, pair.guide, batch), rel=0.01)
