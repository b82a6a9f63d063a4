"""Which network makes which encoder and decoder of a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from infoplace.distributions import make_likelihood, make_prior
from infoplace.errors import DeclarationError, check_keys, did_you_mean, join_names
from infoplace.modes import evaluating
from infoplace.networks import Network, make_network
from infoplace.partition import Partition

__all__ = ["Networks", "PairNetworks"]

Networks = str | Network | Mapping[str, Any]
_ROLES = ("encoders", "decoders", "network")


def _holds_modules(given: Mapping[str, Any]) -> bool:
    inner = [part for part in given.values() if isinstance(part, Mapping)]
    return any(isinstance(module, nn.Module) for part in inner for module in part.values())


class PairNetworks:
    """Which network makes which encoder and decoder."""

    def __init__(self, partition: Partition, given: Networks) -> None:
        self.partition = partition
        self.own: dict[str, dict[str, nn.Module]] = {"encoders": {}, "decoders": {}}
        if isinstance(given, Mapping) and (set(_ROLES) & set(given) or _holds_modules(given)):
            check_keys(given, _ROLES, "networks")
            self.network = make_network(given.get("network", "small"))
            for role, known in (("encoders", partition.blocks), ("decoders", partition.observations)):
                for name, module in (given.get(role) or {}).items():
                    kind = "block" if role == "encoders" else "observation"
                    if name not in known:
                        raise DeclarationError(
                            f"networks[{role!r}] names {name!r}, and there is no such {kind}.{did_you_mean(name, known)} "
                            f"There are {join_names(known)}"
                        )
                    if not isinstance(module, nn.Module):
                        raise DeclarationError(
                            f"networks[{role!r}][{name!r}] must be a torch.nn.Module; got {type(module).__name__}"
                        )
                    self.own[role][name] = module
        else:
            self.network = make_network(given)

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
        read_by: dict[str, dict[str, tuple[int, ...]]] = {}
        outputs_of: dict[str, int] = {}
        for name, block in self.partition.blocks.items():
            reads = {}
            for read in block.reads or ():
                observation = self.partition.observations[read]
                example = make_likelihood(observation.likelihood).round(torch.zeros(1, *shapes[read]))
                reads[read] = tuple(observation.features(example, shapes[read]).shape[1:])
            covariates = self.partition.covariates_into(name)
            reads |= {other: (covariate.width,) for other, covariate in covariates.items()}
            own = self.own["encoders"].get(name)
            prior = make_prior(block.prior)
            outputs = 2 * block.dim + (prior.classes if prior.draws_class else 0)
            if own is None:
                read_by[name], outputs_of[name] = reads, outputs
                continue
            _check_own(
                own,
                [torch.zeros(2, *shape) for shape in reads.values()],
                (outputs,),
                (block.dim,),
                f"the encoder of {name!r}",
                "" if outputs == 2 * block.dim else f"its prior draws a class, whose {prior.classes} logits come last",
            )
        joined_by: dict[str, dict[str, int]] = {}
        raw_shapes: dict[str, tuple[int, ...]] = {}
        for name, observation in self.partition.observations.items():
            joined = {block: self.partition.blocks[block].dim for block in observation.blocks or ()}
            joined |= {other: covariate.width for other, covariate in self.partition.covariates_into(name).items()}
            raw_shape = make_likelihood(observation.likelihood).raw_shape(shapes[name])
            own = self.own["decoders"].get(name)
            if own is None:
                joined_by[name], raw_shapes[name] = joined, raw_shape
                continue
            inputs = torch.zeros(2, sum(joined.values()))
            _check_own(own, [inputs], raw_shape, shapes[name], f"the decoder of {name!r}")
        encoders = self.own["encoders"] | (self.network.encoders(read_by, outputs_of) if read_by else {})
        decoders = self.own["decoders"] | (self.network.decoders(joined_by, raw_shapes) if joined_by else {})
        return (
            {name: encoders[name] for name in self.partition.blocks},
            {name: decoders[name] for name in self.partition.observations},
        )

    def to_spec(self) -> dict[str, Any]:
        return {"network": self.network.to_spec(), **{role: sorted(modules) for role, modules in self.own.items()}}

    @classmethod
    def restore(cls, partition: Partition, spec: Mapping[str, Any], given: Networks | None) -> dict[str, Any]:
        """The ``networks`` argument for a saved spec, with the user's own modules in their places."""
        if given is not None and not (isinstance(given, Mapping) and set(given) <= {"encoders", "decoders"}):
            raise DeclarationError(
                "load_pair takes your own modules as networks={'encoders': {block: module}, 'decoders': {observation: "
                f"module}}; the rest is in the folder. Got {given!r}"
            )
        own = {role: dict((given or {}).get(role) or {}) for role in ("encoders", "decoders")}
        missing = {role: [name for name in spec[role] if name not in own[role]] for role in own}
        if any(missing.values()):
            example = ", ".join(
                f"{role!r}: {{{', '.join(f'{name!r}: ...' for name in names)}}}"
                for role, names in missing.items()
                if names
            )
            raise DeclarationError(
                f"this pair was made with modules of your own, which a folder cannot hold; pass them: "
                f"load_pair(path, networks={{{example}}})"
            )
        surplus = [name for role in own for name in own[role] if name not in spec[role]]
        if surplus:
            raise DeclarationError(
                f"this pair was saved with stock networks for {join_names(surplus)}; leave those out"
            )
        return {"network": spec["network"], **own}


def _check_own(
    module: nn.Module,
    inputs: Sequence[Tensor],
    raw_shape: tuple[int, ...],
    event: tuple[int, ...],
    label: str,
    raw_only: str = "",
) -> None:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    sizes = ", ".join(str(list(value.shape)) for value in inputs)
    try:
        with torch.no_grad(), evaluating(module):
            output = module(*(value.to(device) for value in inputs))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise DeclarationError(f"{label} fails on input of shape {sizes}: {error}") from error
    if isinstance(output, torch.distributions.Distribution) and not raw_only:
        if tuple(output.event_shape) != tuple(event) or tuple(output.batch_shape) != (2,):
            raise DeclarationError(
                f"{label} returns a distribution with batch shape {list(output.batch_shape)} and event shape "
                f"{list(output.event_shape)} for {sizes}; expected [2] and {list(event)} "
                f"(end it with .to_event({len(event)}))"
            )
    elif not isinstance(output, Tensor) or tuple(output.shape) != (2, *raw_shape):
        got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise DeclarationError(
            f"{label} returns {got} for input of shape {sizes}; expected {[2, *raw_shape]}"
            + (f" ({raw_only})" if raw_only else f", or a distribution over {list(event)}")
        )
