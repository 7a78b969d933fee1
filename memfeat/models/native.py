"""The time loops of a GRU layer in C++, built with the machine's own compiler when first needed.

Where there is none, the loops in plain torch (`plain`) do the same work at half the speed.
"""

import ctypes
import logging
import os
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from memfeat.errors import MemfeatError
from memfeat.models.compiling import CompileError, compiled
from memfeat.models.dropout import Dropout

SOURCE = Path(__file__).with_name("native.cpp")
TYPES = {torch.float32: "float", torch.float64: "double"}
# What the functions take behind sizes and batch sizes, and of what shape.
TENSORS = {
    "forward": ("gates", "bias", "w_hidden", "b_new", "states", "new_hidden", "states"),
    "backward": (
        *("states", "gates", "new_hidden", "states", "w_hidden"),
        *("gates", "new_hidden", "new_hidden"),
    ),
}

_log = logging.getLogger(__name__)


class _Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("steps", "rows", "hidden")]


class NativeLoops:
    """The loops of both directions of a layer.

    All tensors lie on the CPU, contiguous; they are float32 or float64, but for the int64
    `batch_sizes` (steps,). Rows are those of a `PackedSequence`: by step, then by sequence, the
    longest first. Gates are in torch's order: reset, update, new.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = {
            (way, dtype): library[f"memfeat_{way}_{name}"]
            for way in TENSORS
            for dtype, name in TYPES.items()
        }
        for (way, _), function in self._functions.items():
            function.restype = ctypes.c_bool
            pointers = [ctypes.c_void_p] * (2 + len(TENSORS[way]))  # with batch sizes and bits
            function.argtypes = [_Sizes, *pointers, ctypes.c_int, ctypes.c_double]

    def forward(  # noqa: PLR0917
        self,
        projected: Tensor,
        bias: Tensor,
        w_hidden: Tensor,
        b_new: Tensor,
        batch_sizes: Tensor,
        dropout: Dropout | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run through time.

        Args:
            projected: (rows, 2, 3 * hidden), what the inputs give each gate, without biases.
                It is overwritten.
            bias: (2, 3 * hidden), all biases but `b_new`.
            w_hidden: (2, 3 * hidden, hidden).
            b_new: (2, hidden), the hidden bias of the new gate.
            batch_sizes: int64 (steps,), how many sequences reach each step.
            dropout: of the states, if any.

        Returns:
            What dropout leaves of the states, (rows, 2 * hidden), the forward direction's first;
            and what `backward` needs.

        Raises:
            MemfeatError: types, shapes or batch sizes do not fit together.
        """
        rows, hidden = len(projected), w_hidden.shape[-1]
        states = projected.new_empty(rows, 2 * hidden)
        new_hidden = projected.new_empty(rows, 2, hidden)
        kept = states if dropout is None else torch.empty_like(states)
        tensors = projected, bias, w_hidden, b_new, states, new_hidden, kept
        self._run("forward", batch_sizes, dropout, *tensors)
        return kept, (projected, new_hidden, states, batch_sizes)

    def backward(
        self,
        d_kept: Tensor,
        saved: tuple[Tensor, ...],
        w_hidden: Tensor,
        dropout: Dropout | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run back through time.

        Args:
            d_kept: (rows, 2 * hidden), the loss's gradient of what dropout left of each state,
                without what it owes to later steps.
            saved: what `forward` returned second.
            w_hidden: (2, 3 * hidden, hidden).
            dropout: as given to `forward`.

        Returns:
            The gradients of the reset and update gate before their sigmoid and of what the reset
            gate is multiplied with, (rows, 2, 3 * hidden); of the new gate before its tanh,
            (rows, 2, hidden); and the state before each step, of the same shape.

        Raises:
            MemfeatError: types, shapes or batch sizes do not fit together.
        """
        gates, new_hidden, states, batch_sizes = saved
        d_gates, d_new, before = map(torch.empty_like, (gates, new_hidden, new_hidden))
        tensors = d_kept, gates, new_hidden, states, w_hidden, d_gates, d_new, before
        self._run("backward", batch_sizes, dropout, *tensors)
        return d_gates, d_new, before

    def _run(
        self, way: str, batch_sizes: Tensor, dropout: Dropout | None, *tensors: Tensor
    ) -> None:
        names = TENSORS[way]
        hidden = tensors[names.index("w_hidden")].shape[-1]
        rows = len(tensors[0])
        shapes = {
            "gates": (rows, 2, 3 * hidden),
            "bias": (2, 3 * hidden),
            "w_hidden": (2, 3 * hidden, hidden),
            "b_new": (2, hidden),
            "states": (rows, 2 * hidden),
            "new_hidden": (rows, 2, hidden),
        }
        dtype = tensors[0].dtype
        for name, tensor in zip(names, tensors, strict=True):
            _check(name, tensor, shapes[name], dtype)
        _check("batch_sizes", batch_sizes, (batch_sizes.numel(),), torch.int64)
        function = self._functions.get((way, dtype))
        if function is None:
            allowed = ", ".join(map(str, TYPES))
            raise MemfeatError(f"no loops for a layer of {dtype}; give it one of {allowed}")
        bits, threshold, scale = None, 0, 1.0
        if dropout is not None:
            _check("dropout", dropout.bits, shapes["states"], torch.int16)
            bits, threshold, scale = dropout.bits.data_ptr(), dropout.threshold, dropout.scale
        pointers = [tensor.data_ptr() for tensor in (batch_sizes, *tensors)]
        sizes = _Sizes(len(batch_sizes), rows, hidden)
        if not function(sizes, *pointers, bits, threshold, scale):
            raise MemfeatError(
                f"batch sizes {batch_sizes.tolist()} must be positive, never grow, and add up to "
                f"{rows}, the rows given"
            )


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found = tuple(tensor.shape), tensor.dtype, tensor.device.type, tensor.is_contiguous()
    if found != (shape, dtype, "cpu", True):
        raise MemfeatError(
            f"{name} is {found[1]} {found[0]} on {found[2]}"
            f"{'' if found[3] else ', not contiguous'}; it must be {dtype} {shape} on the cpu, "
            "contiguous"
        )


@cache
def kernel() -> NativeLoops | None:
    """Return the loops built for this machine, or None where they cannot be, which is logged.

    `MEMFEAT_NATIVE=0` in the environment asks for None.
    """
    if os.environ.get("MEMFEAT_NATIVE") == "0":
        return None
    try:
        return NativeLoops(compiled(SOURCE, "gru"))
    except (OSError, ValueError, CompileError) as err:
        _log.warning(
            "recurrent layers run in plain torch, at half the speed, as their C++ cannot be built "
            "here: %s",
            err,
        )
    return None
