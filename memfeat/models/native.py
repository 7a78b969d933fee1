"""The time loops of a GRU layer in C++, built with the machine's own compiler when first needed.

Where there is none, the loops in plain torch do the same work at half the speed.
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
from memfeat.models.packing import DIRECTIONS

SOURCE = Path(__file__).with_name("native.cpp")
GATES = 3
TYPES = {torch.float32: "float", torch.float64: "double"}
# What the functions take behind sizes and lengths, and of what shape.
TENSORS = {
    "forward": ("gates", "bias", "w_hidden", "b_new", "states", "new_hidden", "states"),
    "backward": (
        *("states", "gates", "new_hidden", "states", "w_hidden"),
        *("gates", "new_hidden", "new_hidden"),
    ),
}

_log = logging.getLogger(__name__)


class _Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("models", "batch", "rows", "hidden")]


class NativeLoops:
    """The loops of both directions of a layer, several models one after the other.

    All tensors lie on the CPU, contiguous; they are float32 or float64, but for the int64
    `lengths` (models, batch), which descend within each model. Rows are packed: by time, then by
    sequence, the longest first; those that are no frames come out as zeros. Gates are in torch's
    order: reset, update, new.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = {
            (way, dtype): library[f"memfeat_{way}_{name}"]
            for way in TENSORS
            for dtype, name in TYPES.items()
        }
        for (way, _), function in self._functions.items():
            function.restype = ctypes.c_bool
            pointers = [ctypes.c_void_p] * (2 + len(TENSORS[way]))  # with lengths and bits
            function.argtypes = [_Sizes, *pointers, ctypes.c_int, ctypes.c_double]

    def forward(  # noqa: PLR0917
        self,
        projected: Tensor,
        bias: Tensor,
        w_hidden: Tensor,
        b_new: Tensor,
        lengths: Tensor,
        dropout: Dropout | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run through time.

        Args:
            projected: (models, rows, 2, 3 * hidden), what the inputs give each gate, without
                biases. Afterwards it holds the gates behind their nonlinearities.
            bias: (models, 2, 3 * hidden), all biases but `b_new`.
            w_hidden: (models, 2, 3 * hidden, hidden).
            b_new: (models, 2, hidden), the hidden bias of the new gate.
            lengths: int64 (models, batch).
            dropout: of the states, if any.

        Returns:
            The states, (models, rows, 2 * hidden), the forward direction's first; for `backward`
            what the reset gate is multiplied with, (models, rows, 2, hidden); and what dropout
            leaves of the states.

        Raises:
            MemfeatError: types, shapes or lengths do not fit together.
        """
        models, rows, hidden = *projected.shape[:2], w_hidden.shape[-1]
        states = projected.new_empty(models, rows, DIRECTIONS * hidden)
        new_hidden = projected.new_empty(models, rows, DIRECTIONS, hidden)
        kept = states if dropout is None else torch.empty_like(states)
        tensors = projected, bias, w_hidden, b_new, states, new_hidden, kept
        self._run("forward", lengths, dropout, *tensors)
        return states, new_hidden, kept

    def backward(  # noqa: PLR0917
        self,
        d_states: Tensor,
        gates: Tensor,
        new_hidden: Tensor,
        states: Tensor,
        w_hidden: Tensor,
        lengths: Tensor,
        dropout: Dropout | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run back through time.

        Args:
            d_states: (models, rows, 2 * hidden), the loss's gradient of what dropout left of each
                state, without what it owes to later steps.
            gates: what `forward` left in `projected`.
            new_hidden: what `forward` returned second.
            states: what it returned first.
            w_hidden: (models, 2, 3 * hidden, hidden).
            lengths: int64 (models, batch).
            dropout: as given to `forward`.

        Returns:
            The gradients of the reset and update gate before their sigmoid and of `new_hidden`,
            (models, rows, 2, 3 * hidden); of the new gate before its tanh, (models, rows, 2,
            hidden); and the state before each step, of the same shape.

        Raises:
            MemfeatError: types, shapes or lengths do not fit together.
        """
        d_gates, d_new, before = map(torch.empty_like, (gates, new_hidden, new_hidden))
        saved = gates, new_hidden, states
        tensors = d_states, *saved, w_hidden, d_gates, d_new, before
        self._run("backward", lengths, dropout, *tensors)
        return d_gates, d_new, before

    def _run(self, way: str, lengths: Tensor, dropout: Dropout | None, *tensors: Tensor) -> None:
        names = TENSORS[way]
        hidden = tensors[names.index("w_hidden")].shape[-1]
        models, rows = tensors[0].shape[:2]
        both = DIRECTIONS * hidden
        shapes = {
            "gates": (models, rows, DIRECTIONS, GATES * hidden),
            "bias": (models, DIRECTIONS, GATES * hidden),
            "w_hidden": (models, DIRECTIONS, GATES * hidden, hidden),
            "b_new": (models, DIRECTIONS, hidden),
            "states": (models, rows, both),
            "new_hidden": (models, rows, DIRECTIONS, hidden),
        }
        dtype = tensors[0].dtype
        for name, tensor in zip(names, tensors, strict=True):
            _check(name, tensor, shapes[name], dtype)
        _check("lengths", lengths, (models, lengths.shape[-1]), torch.int64)
        function = self._functions.get((way, dtype))
        if function is None:
            allowed = ", ".join(map(str, TYPES))
            raise MemfeatError(f"no loops for a layer of {dtype}; give it one of {allowed}")
        sizes = _Sizes(models, lengths.shape[1], rows, hidden)
        bits, threshold, scale = None, 0, 1.0
        if dropout is not None:
            _check("dropout", dropout.bits, shapes["states"], torch.int16)
            bits, threshold, scale = dropout.bits.data_ptr(), dropout.threshold, dropout.scale
        pointers = [tensor.data_ptr() for tensor in (lengths, *tensors)]
        if not function(sizes, *pointers, bits, threshold, scale):
            raise MemfeatError(
                f"sequence lengths {lengths.tolist()} must descend within each model, be 0 or more "
                f"and have no more than {rows} frames, the rows given"
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
