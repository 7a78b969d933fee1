"""Several regressors of one shape computed as one, each with parameters of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from memfeat.models.aggregators import AGGREGATORS, Recurrent
from memfeat.models.gru import GruWeights, backend_for
from memfeat.models.heads import HEADS
from memfeat.models.recurrence import run_layers
from memfeat.models.regressor import Regressor, side_by_side


class Stack:
    """Regressors that share every call, so that K models cost the launches of one.

    Their parameters become slices of joint tensors: whatever changes one, such as an optimiser
    step or `load_state_dict`, changes the other. A regressor can be in one stack at a time, the
    last it was put in.

    Args:
        regressors: of the same aggregators, head, options and device; more than one only of a
            kind that `can_stack`.
    """

    def __init__(self, regressors: Sequence[Regressor]) -> None:
        self.regressors = list(regressors)
        self._joint: list[tuple[Tensor, list[nn.Parameter]]] = []
        self._first = _Pooling(self.regressors[0])
        streams = range(len(self.regressors[0].aggregators))
        self._layers = [self._join_layers(stream) for stream in streams]
        layered = {id(each) for _, parameters in self._joint for each in parameters}
        self._rest = {
            f"regressor.{name}": self._join([r.get_parameter(name) for r in self.regressors])
            for name, parameter in self.regressors[0].named_parameters()
            if id(parameter) not in layered
        }

    def __len__(self) -> int:
        return len(self.regressors)

    def scores(
        self,
        streams: Sequence[tuple[Tensor, Tensor]],
        generators: Sequence[Generator] | None = None,
    ) -> Tensor:
        """Return every model's scores, (models, batch), each in (0, 1).

        Args:
            streams: for each stream frames and lengths: float32 (models, batch, time, dim), or
                (1, batch, time, dim) for all models, and int64 (models or 1, batch), best left on
                the CPU.
            generators: in training, where each model's dropout comes from; one that does not
                stack asks torch's own. None for no dropout.
        """
        for regressor in self.regressors:
            regressor.train(generators is not None)
        first = self.regressors[0]
        if not all(aggregator.stacks for aggregator in first.aggregators):
            alone = [(frames[0], lengths[0]) for frames, lengths in streams]
            return torch.stack([first(*alone).scores])
        tensors: list[Tensor] = []
        for aggregator, layers, (frames, lengths) in zip(
            first.aggregators, self._layers, streams, strict=True
        ):
            states, gru = frames, aggregator.gru
            if gru is not None:
                states = run_layers(frames, lengths, layers, gru.dropout, generators)
            tensors += states, frames, lengths
        scores: Tensor
        if len(self) == 1:  # without vmap, whose weights' gradients come transposed on a CPU
            scores = self._first(*(each[0] for each in tensors)).unsqueeze(0)
            return scores
        tensors = [each.to(tensors[0].device) for each in tensors]
        args = [each if len(each) > 1 else each[0] for each in tensors]
        among = [0 if len(each) > 1 else None for each in tensors]
        scores = torch.vmap(self._call, in_dims=(0, *among))(self._rest, *args)
        return scores

    def _call(self, parameters: Mapping[str, Tensor], *args: Any) -> Tensor:
        scores: Tensor = torch.func.functional_call(self._first, dict(parameters), args)
        return scores

    def backward(self, loss: Tensor) -> None:
        """Give each regressor's parameters the gradients of `loss`, in place of older ones."""
        for joint, parameters in self._joint:
            for each in (joint, *parameters):
                each.grad = None
        torch.autograd.backward(loss)
        for joint, parameters in self._joint:
            if joint.grad is not None:
                grads = _slices(joint.grad, parameters)
                for parameter, grad in zip(parameters, grads, strict=True):
                    parameter.grad = grad

    def _join_layers(self, stream: int) -> list[GruWeights]:
        grus = [regressor.aggregators[stream].gru for regressor in self.regressors]
        own = [gru.layer_parameters() for gru in grus if gru is not None]
        layers = []
        for of_models in zip(*own, strict=True):
            kinds = zip(*of_models, strict=True)
            joint = [self._join([each for pair in pairs for each in pair]) for pairs in kinds]
            layers.append(GruWeights(*(x.view(len(self), -1, *x.shape[1:]) for x in joint)))
        return layers

    def _join(self, parameters: list[nn.Parameter]) -> Tensor:
        """Return the parameters as one tensor, (parameters, ...), of which they are slices now."""
        joint = torch.stack([parameter.detach() for parameter in parameters]).requires_grad_()
        for parameter, own in zip(parameters, _slices(joint.detach(), parameters), strict=True):
            parameter.data = own
        self._joint.append((joint, parameters))
        return joint


class _Pooling(nn.Module):
    """A regressor without its recurrence."""

    def __init__(self, regressor: Regressor) -> None:
        super().__init__()
        self.regressor = regressor

    def forward(self, *tensors: Tensor) -> Tensor:
        """Score from each stream's states, frames and lengths, one after another."""
        streams = zip(tensors[::3], tensors[1::3], tensors[2::3], strict=True)
        pooled = [
            aggregator.pool(*stream).vector
            for aggregator, stream in zip(self.regressor.aggregators, streams, strict=True)
        ]
        scores: Tensor = self.regressor.head(side_by_side(pooled))
        return scores


def can_stack(aggregators: Sequence[str], head: str) -> bool:
    """Return whether more than one regressor of this kind can be computed as one.

    Raises:
        UnknownNameError: no such aggregator or head.
    """
    pools = [AGGREGATORS.get(name) for name in aggregators]
    return all(pool.stacks for pool in pools) and HEADS.get(head).stacks


def stacking_pays(aggregators: Sequence[str], head: str, device: torch.device) -> bool:
    """Return whether several are faster as one, than one after another, on a device.

    What is saved is launches. On a CPU they count where plain torch steps through time; where C++
    does, models in turn are as fast, and each gives the very bits that it gives alone.

    Raises:
        UnknownNameError: no such aggregator or head.
    """
    if not can_stack(aggregators, head):
        return False
    is_recurrent = any(issubclass(AGGREGATORS.get(name), Recurrent) for name in aggregators)
    return device.type != "cpu" or (is_recurrent and backend_for(device) == "plain")


def _slices(joint: Tensor, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    return joint.view(len(parameters), *parameters[0].shape).unbind()
