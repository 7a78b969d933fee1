"""Inception-I3D against its checkpoints' names and shapes, and against NumPy."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import nn

from memfeat.encoders.inception import InceptionI3d, max_pool

Array = NDArray[np.float64]
LISTED = Path(__file__).with_name("i3d_state_dict.tsv")  # the public checkpoints' names and shapes


@pytest.fixture(scope="module")
def network():
    """The whole network, its batch norms as uneven as trained ones."""
    return uneven(InceptionI3d(classes=5)).eval()


def uneven(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1, generator=generator)
        elif name.endswith("conv3d.weight"):
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    return module


def same(array: Array, kernel: Iterable[int], stride: Iterable[int]) -> Array:
    """Pad (channels, time, height, width) with zeros as TensorFlow's documentation says."""
    pads = [(0, 0)]
    for size, k, s in zip(array.shape[1:], kernel, stride, strict=True):
        total = max(k - s, 0) if size % s == 0 else max(k - size % s, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(array, pads)


def windows(array: Array, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    """Every window a kernel sees: (channels, time, height, width, *kernel)."""
    found = sliding_window_view(same(array, kernel, stride), kernel, axis=(1, 2, 3))
    return found[:, :: stride[0], :: stride[1], :: stride[2]]


def pooled(array: Array, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    return windows(array, kernel, stride).max(axis=(4, 5, 6))


def unit(
    array: Array, tensors: Mapping[str, Array], name: str, stride: tuple[int, ...] = (1, 1, 1)
) -> Array:
    """Convolution without bias, batch norm with epsilon 1e-3, ReLU."""
    weight = tensors[f"{name}.conv3d.weight"]
    seen = windows(array, weight.shape[2:], stride)
    maps = np.tensordot(weight, seen, axes=([1, 2, 3, 4], [0, 4, 5, 6]))
    gain, shift, mean, variance = (
        tensors[f"{name}.bn.{each}"][:, None, None, None]
        for each in ("weight", "bias", "running_mean", "running_var")
    )
    return np.maximum((maps - mean) / np.sqrt(variance + 1e-3) * gain + shift, 0)


def mixed(array: Array, tensors: Mapping[str, Array], name: str) -> Array:
    return np.concatenate(
        [
            unit(array, tensors, f"{name}b0"),
            unit(unit(array, tensors, f"{name}b1a"), tensors, f"{name}b1b"),
            unit(unit(array, tensors, f"{name}b2a"), tensors, f"{name}b2b"),
            unit(pooled(array, (3, 3, 3), (1, 1, 1)), tensors, f"{name}b3b"),
        ]
    )


def numpy_tensors(module: nn.Module) -> dict[str, Array]:
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def test_names_shapes_and_parameters_are_the_checkpoints():
    listed = dict(line.split("\t") for line in LISTED.read_text().splitlines())
    network = InceptionI3d()
    found = {
        name: "x".join(map(str, value.shape)) or "scalar"
        for name, value in network.state_dict().items()
    }
    assert len(listed) == 344
    assert found == listed
    assert sum(value.numel() for value in network.parameters()) == 12_697_264


@pytest.mark.parametrize(("frames", "steps"), [(16, 1), (64, 7), (79, 9)])
def test_a_feature_averages_two_steps_of_the_last_map(frames, steps):
    with torch.device("meta"):
        network = InceptionI3d()
        clip = torch.empty(2, 3, frames, 224, 224)
        assert network.features(clip).shape == (2, steps, 1024)
        assert network(clip).shape == (2, steps, 400)


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [
        ((1, 3, 3), (1, 2, 2)),
        ((3, 3, 3), (2, 2, 2)),
        ((2, 2, 2), (2, 2, 2)),
        ((3, 3, 3), (1, 1, 1)),
    ],
)
@pytest.mark.parametrize("shape", [(4, 6, 8), (5, 7, 9), (1, 2, 3)])
def test_pools_are_those_over_zeros(kernel, stride, shape):
    array = np.random.default_rng(0).uniform(0, 1, (3, *shape))
    found = max_pool(torch.from_numpy(array)[None], kernel, stride)[0]
    np.testing.assert_array_equal(found.numpy(), pooled(array, kernel, stride))


@pytest.mark.parametrize("shape", [(16, 32, 32), (17, 40, 33)])
def test_the_whole_network_is_what_numpy_makes_of_its_weights(network, shape):
    array = np.random.default_rng(2).uniform(-1, 1, (3, *shape))
    tensors = numpy_tensors(network)
    maps = unit(array, tensors, "Conv3d_1a_7x7", (2, 2, 2))
    maps = unit(pooled(maps, (1, 3, 3), (1, 2, 2)), tensors, "Conv3d_2b_1x1")
    maps = pooled(unit(maps, tensors, "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    for letter in "bc":
        maps = mixed(maps, tensors, f"Mixed_3{letter}.")
    maps = pooled(maps, (3, 3, 3), (2, 2, 2))
    for letter in "bcdef":
        maps = mixed(maps, tensors, f"Mixed_4{letter}.")
    maps = pooled(maps, (2, 2, 2), (2, 2, 2))
    for letter in "bc":
        maps = mixed(maps, tensors, f"Mixed_5{letter}.")
    steps = maps.mean(axis=(2, 3)).T
    features = np.stack([(first + second) / 2 for first, second in pairwise(steps)])
    weight, bias = tensors["logits.conv3d.weight"], tensors["logits.conv3d.bias"]
    clip = torch.from_numpy(array).float()[None]
    with torch.no_grad():
        found, logits = network.features(clip)[0], network(clip)[0]
    assert features.std() > 0.01
    np.testing.assert_allclose(found.double().numpy(), features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        logits.double().numpy(), features @ weight[:, :, 0, 0, 0].T + bias, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("counting", [True, False])
def test_checkpointing_changes_neither_gradients_nor_statistics(counting):
    clip = torch.rand(2, 3, 16, 32, 32)
    results = []
    for checkpointing in (False, True):
        network = uneven(InceptionI3d(classes=1, dropout=0.0)).train()
        if not counting:
            for part in network.modules():
                if isinstance(part, nn.BatchNorm3d):
                    part.eval()
        network.gradient_checkpointing = checkpointing
        network(clip).sigmoid().mean().backward()
        gradients = {name: value.grad for name, value in network.named_parameters()}
        results.append((gradients, network.state_dict()))
    (plain, state), (checkpointed, its_state) = results
    assert all(value is not None for value in plain.values())
    for name, gradient in plain.items():
        assert torch.equal(gradient, checkpointed[name]), name
    for name, value in state.items():
        assert torch.equal(value, its_state[name]), name
