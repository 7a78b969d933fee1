"""The optimiser, against torch's own class."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from memfeat.training.adam import Adam


@pytest.mark.parametrize(
    ("weight_decay", "kind"),
    [(0.0, torch.optim.Adam), (0.01, torch.optim.Adam), (0.01, torch.optim.AdamW)],
)
def test_parameters_after_some_steps_are_those_of_torchs_class(weight_decay, kind):
    torch.manual_seed(0)
    inputs, targets = torch.randn(64, 20), torch.randn(64, 1)
    ours, theirs = (nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 1)) for _ in "ab")
    theirs.load_state_dict(ours.state_dict())
    optimizer = Adam(ours.parameters(), weight_decay, decoupled=kind is torch.optim.AdamW)
    oracle = kind(theirs.parameters(), weight_decay=weight_decay, fused=True)
    for step in range(20):
        rate = oracle.param_groups[0]["lr"] = 1e-2 * 0.9**step
        for network, one in ((ours, optimizer), (theirs, oracle)):
            one.zero_grad()
            (network(inputs) - targets).abs().mean().backward()
        optimizer.step(rate)
        oracle.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(own, other)


TRAIN = """
import sys
sys.path.insert(0, "tests")
from made_up import config, dataset
from memfeat.training import train
train(*dataset(), config(sys.argv[1]))
print("torch._dynamo" in sys.modules)
"""


def test_training_imports_no_compiler(tmp_path):
    command = [sys.executable, "-c", TRAIN, tmp_path / "run"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
