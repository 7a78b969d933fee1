"""Checkpoint files: what is read, what is refused, and that the container does not matter."""

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from memfeat.encoders.checkpoints import (
    MOST_UNPACKED,
    fit,
    means_file,
    read_checkpoint,
    tensors_sha256,
    weights_path,
)
from memfeat.errors import EncoderError


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(3, 2, generator=generator).half().float(),
        "bias": torch.randn(3, generator=generator).half().float(),
    }


class _Setting(nn.Module):
    """A TorchScript class that would run code of its own while it is loaded."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(2))
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.weight = state[0]
        self.training = state[1]


def script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), path)
    return path


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


def test_every_kind_of_file_gives_the_same_tensors(tmp_path, tensors):
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "b.pt")
    torch.save(tensors, tmp_path / "c.bin", _use_new_zipfile_serialization=False)
    wrapped = {f"module.{name}": value for name, value in tensors.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": wrapped}, tmp_path / "d.pth")
    layer = nn.Linear(2, 3)
    layer.load_state_dict(tensors)
    script(layer, tmp_path / "e.pt")
    for path in sorted(tmp_path.iterdir()):
        assert same(read_checkpoint(path), tensors), path.name


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"weight": torch.ones(2), "bomb": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(EncoderError, match=r"bomb\.pt .*Python objects besides tensors"):
        read_checkpoint(tmp_path / "bomb.pt")
    assert not (tmp_path / "ran").exists()


def test_a_torchscript_archive_that_runs_code_while_loading_is_refused(tmp_path):
    path = script(_Setting(), tmp_path / "setting.pt")
    with pytest.raises(EncoderError, match=r"setting\.pt .*__setstate__"):
        read_checkpoint(path)


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write a zip archive anew, with right checksums, its entries changed."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries:
            archive.writestr(entry.filename, change(entry.filename, content), entry.compress_type)


def test_a_tensor_that_reaches_beyond_its_memory_is_refused(tmp_path):
    path = script(nn.Linear(2, 3), tmp_path / "a.pt")

    def forge(name: str, content: bytes) -> bytes:
        if not name.endswith("/data.pkl"):
            return content
        content = content.replace(b"K\x06tQ", b"K\xc6tQ")  # 198 numbers where there are 6
        return content.replace(b"K\x00(K\x03K\x02t", b"K\x00(K\x63K\x02t")  # (99, 2), not (3, 2)

    rewritten(path, forge)
    with pytest.raises(EncoderError, match=r"a\.pt .*: 'weight' has not as many numbers in the"):
        read_checkpoint(path)


def test_an_archive_that_does_not_match_its_checksums_is_refused(tmp_path):
    torch.save({"weight": torch.full((64,), 1.5)}, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[content.index(torch.full((64,), 1.5).numpy().tobytes()) + 9] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(EncoderError, match=r"a/data/0' in it does not match its checksum"):
        read_checkpoint(tmp_path / "a.pt")


def test_an_archive_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/code/x.py", bytes(MOST_UNPACKED + 2**20))
        archive.writestr("bomb/constants.pkl", b"")
    assert (tmp_path / "bomb.pt").stat().st_size < 2**20
    with pytest.raises(EncoderError, match=r"bomb\.pt .*claims to unpack to 68157440 bytes"):
        read_checkpoint(tmp_path / "bomb.pt")


def test_a_tensor_that_is_not_plain_is_refused(tmp_path):
    torch.save({"weight": torch.eye(3).to_sparse()}, tmp_path / "a.pt")
    with pytest.raises(EncoderError, match=r"a\.pt: 'weight' is not a plain tensor"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.bin"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, name):
    (tmp_path / name).write_text("these are not weights")
    with pytest.raises(EncoderError, match=name):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.bin"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
        ("<!DOCTYPE html><html>Not Found</html>", "a web page"),
    ],
)
def test_what_stands_in_a_checkpoints_place_is_named(tmp_path, name, content, what):
    (tmp_path / name).write_text(content)
    with pytest.raises(EncoderError, match=f"{name} is .*{what}"):
        read_checkpoint(tmp_path / name)


def test_a_checkpoint_in_several_files_is_refused_by_any_of_them(tmp_path, tensors):
    part = "model-00001-of-00002.safetensors"
    safetensors.torch.save_file({"bias": tensors["bias"]}, tmp_path / part)
    listed = json.dumps({"weight_map": {"bias": part}})
    (tmp_path / "model.safetensors.index.json").write_text(listed)
    for name in (part, "model.safetensors.index.json"):
        with pytest.raises(EncoderError, match=f"{name} is a part of a checkpoint, or lists"):
            read_checkpoint(tmp_path / name)
    safetensors.torch.save_file(tensors, tmp_path / "model-00001-of-00001.safetensors")
    assert same(read_checkpoint(tmp_path / "model-00001-of-00001.safetensors"), tensors)


def test_safetensors_are_known_by_their_content_whatever_the_suffix(tmp_path, tensors):
    for name in ("a.pt", "a.SAFETENSORS", "a.bin"):
        safetensors.torch.save_file(tensors, tmp_path / name)
        assert same(read_checkpoint(tmp_path / name), tensors)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_real_numbers_are_refused_not_copied(tensors, dtype):
    given = {name: (100 * value).to(dtype) for name, value in tensors.items()}
    layer = nn.Linear(2, 3)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(EncoderError, match="2 not of real numbers, as where they are quantized"):
        fit(layer, given, "TinyNet", "w.pt")
    assert same(before, layer.state_dict())


def test_a_home_that_nobody_has_is_a_missing_file(tensors):
    assert means_file("~nobody-of-that-name/w.pt")
    assert weights_path("~nobody-of-that-name/w.pt") == Path("~nobody-of-that-name/w.pt")


def test_a_missing_file_and_a_file_without_tensors_are_refused(tmp_path):
    with pytest.raises(EncoderError, match=r"no checkpoint file .*nowhere\.pt"):
        read_checkpoint(tmp_path / "nowhere.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(EncoderError, match=r"empty\.pt holds no tensors"):
        read_checkpoint(tmp_path / "empty.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(EncoderError, match=r"tensor\.pt holds no tensors by name"):
        read_checkpoint(tmp_path / "tensor.pt")


def test_weights_that_do_not_fit_are_counted_and_named():
    layer = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    given = {"0.weight": torch.zeros(3, 5), "0.bias": torch.zeros(3), "2.bias": torch.zeros(1)}
    with pytest.raises(EncoderError) as error:
        fit(layer, given, "TinyNet", "w.pt")
    for part in (
        "w.pt does not fit TinyNet",
        "of 4 tensors",
        "2 missing (1.weight, 1.bias)",
        "1 unexpected (2.bias)",
        "1 of another shape (0.weight (3, 5) instead of (3, 2))",
    ):
        assert part in str(error.value)
    assert same(layer.state_dict(), before)


def test_the_hash_is_over_name_type_shape_and_bytes(tensors):
    layer = nn.Linear(2, 3)
    fit(layer, {name: value.half() for name, value in tensors.items()}, "layer", "half precision")
    expected = hashlib.sha256(
        b"bias torch.float32 (3,)\n"
        + np.asarray(tensors["bias"], dtype="<f4").tobytes()
        + b"weight torch.float32 (3, 2)\n"
        + np.asarray(tensors["weight"], dtype="<f4").tobytes()
    )
    assert tensors_sha256(layer) == expected.hexdigest()


def test_the_hash_ignores_memory_layout_and_training_steps_but_no_weight():
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    net = nn.Sequential(convolution, norm)
    original = tensors_sha256(net)
    net.to(memory_format=torch.channels_last)
    net.state_dict()["1.num_batches_tracked"].fill_(7)
    assert tensors_sha256(net) == original
    convolution.weight.data[0, 0, 0, 0] += 1e-6
    assert tensors_sha256(net) != original


def test_paths_are_told_from_tags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here").touch()
    assert all(map(means_file, ["a.pt", "b.safetensors", "./openai", "x/y", "~/z", "here"]))
    assert not any(map(means_file, ["openai", "laion2b_s34b_b79k", "random", "v1"]))


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        ("module.weight", "module.bias"),
        ("_orig_mod.weight", "_orig_mod.bias"),
        ("model.weight", "model.bias"),
        ("module._orig_mod.weight", "module._orig_mod.bias"),
        ("_orig_mod.module.module.weight", "_orig_mod.module.module.bias"),
        ("model.module._orig_mod.weight", "model._orig_mod.module.bias"),
        ("module.weight", "bias"),
        ("model.weight", "module.bias"),
    ],
)
def test_the_prefixes_of_wrappers_are_dropped_in_any_order(tmp_path, tensors, weight, bias):
    names = {"weight": weight, "bias": bias}
    torch.save({names[name]: value for name, value in tensors.items()}, tmp_path / "a.pt")
    assert same(read_checkpoint(tmp_path / "a.pt"), tensors)


def test_what_torchs_own_wrappers_save_is_read(tmp_path):
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    plain = net.state_dict()
    torch.save(nn.DataParallel(net).state_dict(), tmp_path / "parallel.pt")
    torch.save(torch.optim.swa_utils.AveragedModel(net).state_dict(), tmp_path / "averaged.pt")
    compiled = {name.replace("0.", "0._orig_mod."): value for name, value in plain.items()}
    torch.save({f"module.{n}": v for n, v in compiled.items()}, tmp_path / "compiled.pt")
    for path in sorted(tmp_path.iterdir()):
        assert same(read_checkpoint(path), plain), path.name


def test_two_models_under_different_prefixes_are_refused(tmp_path, tensors):
    both = {f"{prefix}{name}": v for prefix in ("model.", "module.") for name, v in tensors.items()}
    torch.save(both, tmp_path / "a.pt")
    with pytest.raises(EncoderError, match=r"a\.pt holds 'weight' twice, once as 'module\.weight'"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "teacher"])
def test_the_only_state_dict_is_read_whatever_it_is_called(tmp_path, tensors, key):
    layer = nn.Linear(2, 3)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 3,
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": torch.tensor(2.0)},
        "rng": torch.get_rng_state(),
        key: {f"module.{name}": value for name, value in tensors.items()},
    }
    torch.save(content, tmp_path / "a.pt")
    assert same(read_checkpoint(tmp_path / "a.pt"), tensors)


@pytest.mark.parametrize(
    "keys", [("teacher", "student"), ("model", "model_ema"), ("state_dict_ema", "state_dict")]
)
def test_of_several_state_dicts_none_is_taken_unless_it_is_the_librarys(
    tmp_path, tensors, keys, caplog
):
    other = {name: value + 1 for name, value in tensors.items()}
    for first, second in (keys, keys[::-1]):
        torch.save({first: tensors, second: other}, tmp_path / "a.pt")
        with pytest.raises(EncoderError, match=f"several state dicts, {first}, {second}, and"):
            read_checkpoint(tmp_path / "a.pt")
        assert not caplog.messages
        assert same(read_checkpoint(tmp_path / "a.pt", ("none", first)), tensors)
        assert same(read_checkpoint(tmp_path / "a.pt", (second, first)), other)
        assert f"loading {second}" in caplog.messages[-1]
        caplog.clear()
    torch.save({**tensors, "ema": other}, tmp_path / "a.pt")
    with pytest.raises(EncoderError, match="several state dicts, tensors, ema, and"):
        read_checkpoint(tmp_path / "a.pt")
