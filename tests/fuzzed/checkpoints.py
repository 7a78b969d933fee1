"""Checkpoints from elsewhere: weights that differ have another hash."""

import warnings
from pathlib import Path

import torch
from torch import nn

from fuzzed import FOUND, SAME, WRONG, Files
from memfeat.encoders.checkpoints import (
    fit,
    read_checkpoint,
    read_statements,
    tensors_sha256,
    write_checkpoint,
)


def checkpoints(folder: Path) -> Files:
    torch.manual_seed(0)

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).eval()

    net = network()
    state = net.state_dict()
    write_checkpoint(folder / "a.safetensors", net, {"trained_on": "nothing"})
    torch.save(state, folder / "b.pt")
    torch.save({"state_dict": state, "epoch": 3}, folder / "c.pth")
    torch.save(state, folder / "d.bin", _use_new_zipfile_serialization=False)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(net), folder / "e.pt")
    right = tensors_sha256(net)

    for path in sorted(folder.iterdir()):

        def read(damaged: bytes, path: Path = path) -> str:
            other = network()
            fit(other, read_checkpoint(path), "net", path.name)
            read_statements(path)
            mine = {k: v for k, v in other.state_dict().items() if "num_batches" not in k}
            same = all(torch.equal(value, state[name]) for name, value in mine.items())
            # Weights that differ are other weights, as every cache made with them says by hash.
            told_apart = (tensors_sha256(other) == right) is same
            return (SAME if same else FOUND) if told_apart else WRONG

        yield path, read
