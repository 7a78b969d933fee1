"""The optimiser of stage 2 (paper, section 2)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """Adam or AdamW, as torch's class computes it with `fused=True`, bit for bit.

    That class imports torch's compiler when it is built, which takes four seconds of CPU in every
    process that trains. The function behind it does not.

    Args:
        parameters: to be adjusted.
        weight_decay: L2 penalty.
        decoupled: AdamW (Loshchilov and Hutter 2019): the penalty shrinks the weights by itself
            instead of through the gradient.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        weight_decay: float = 0.0,
        *,
        decoupled: bool = False,
    ) -> None:
        self._parameters: list[Tensor] = list(parameters)
        self._weight_decay, self._decoupled = weight_decay, decoupled
        self._means = [torch.zeros_like(p, requires_grad=False) for p in self._parameters]
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in self._parameters]
        self._steps = [torch.zeros((), device=p.device) for p in self._parameters]

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Adjust the parameters, all of which have a gradient, at a learning rate."""
        adam(
            self._parameters,
            [p.grad for p in self._parameters if p.grad is not None],
            self._means,
            self._squares,
            [],
            self._steps,
            fused=True,
            decoupled_weight_decay=self._decoupled,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=self._weight_decay,
            eps=1e-8,
            maximize=False,
        )
