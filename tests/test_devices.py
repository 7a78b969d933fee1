from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from memfeat import devices
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


def test_threads_that_seed_at_once_draw_what_one_alone_does():
    def draw(seed: int) -> list[float]:
        with seeded(seed):
            return [torch.rand(()).item() for _ in range(300)]

    alone = [draw(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(draw, range(8))) == alone


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A machine that has a GPU and its driver."""
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64  470.57  Tue\nGCC\n")
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu_that_torch_cannot_use_is_no_reason_to_take_the_cpu(driver, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"driver \(NVIDIA UNIX x86_64  470.57.*--device cpu"):
        resolve_device("auto")
    assert resolve_device("cpu").type == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # whoever hides it knows that it is there
    assert resolve_device("auto").type == "cpu"


@pytest.mark.parametrize(
    ("capability", "codes", "usable"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "compute_90"], True),
        ((6, 1), ["sm_75", "compute_75"], False),
        ((9, 0), ["sm_90a"], True),
    ],
)
def test_torch_needs_code_for_the_gpus_capability(driver, monkeypatch, capability, codes, usable):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "a card")
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: codes)
    assert (devices.unusable_gpu() == "") == usable


def test_float32_is_float32_inside_and_what_it_was_outside():
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    try:
        with devices.exact_float32():
            assert not matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert matmul.allow_tf32
    finally:
        matmul.allow_tf32 = before
