import pytest
import torch

from memfeat.devices import cpu_cores, cpu_threads, resolve_device, resolve_devices, seeded
from memfeat.errors import ConfigError

gpu = torch.cuda.is_available()


def test_auto_is_the_gpu_or_else_the_cpu():
    assert resolve_device("auto").type == ("cuda" if gpu else "cpu")
    assert len(resolve_devices("auto")) == max(1, torch.cuda.device_count())


def test_several_devices_come_in_order():
    assert [str(device) for device in resolve_devices("cpu, cpu")] == ["cpu", "cpu"]


@pytest.mark.parametrize("name", ["abacus", "meta", "mps:9", "", "cpu,abacus", "cuda:99"])
def test_an_unusable_device_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"device '{name.split(',')[-1]}' is not"):
        resolve_devices(name)


def test_there_is_at_least_one_core():
    assert cpu_cores() >= 1


def test_threads_and_generators_are_given_back():
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    with cpu_threads(1), seeded(3):
        assert torch.get_num_threads() == 1
        first = torch.rand(3)
    with seeded(3):
        assert torch.equal(torch.rand(3), first)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
