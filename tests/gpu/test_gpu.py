"""What runs on a GPU: against the CPU, against itself, and after faults. `make test-gpu` runs it.

With MEMFEAT_TEST_DEVICE=cpu all but what is a GPU's alone runs without one, to test the tests.
"""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from extracting import ENCODER, config, extract_into, files, manifest, render
from processes import start

from memfeat.cache import Cache
from memfeat.config import FinetuneConfig, TrainConfig
from memfeat.devices import unusable_gpu
from memfeat.encoders import create_encoder
from memfeat.errors import EncoderError
from memfeat.extraction import extract
from memfeat.finetuning import finetune
from memfeat.manifest import Manifest, write_manifest
from memfeat.models.gru import BiGru, using_backend
from memfeat.prediction import Predictor
from memfeat.training import read_features, train

GPU = os.environ.get("MEMFEAT_TEST_DEVICE", "cuda:0")

if GPU != "cpu" and not torch.cuda.is_available():
    pytest.skip(unusable_gpu() or "there is no NVIDIA GPU", allow_module_level=True)

gpu_alone = pytest.mark.skipif(GPU == "cpu", reason="only a GPU has that")
SPLITS = ("train", "train", "train", "dev", "dev", "test", "test")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def on_gpu(clips, tmp_path_factory) -> Path:
    """The cache that one GPU makes of the clips."""
    cache = tmp_path_factory.mktemp("gpu")
    extract(manifest(clips), config(cache, device=GPU))
    return cache


@pytest.fixture(scope="module")
def scored(clips) -> Manifest:
    """The clips with scores, for training."""
    records = [
        record.model_copy(update={"score": 0.3 + 0.1 * n, "split": split})
        for n, (record, split) in enumerate(zip(manifest(clips).records, SPLITS, strict=True))
    ]
    write_manifest(clips / "scored.csv", records)
    return Manifest(clips / "scored.csv", tuple(records))


def cosines(one: Path, other: Path) -> np.ndarray:
    first, second = (Cache.open(cache).load().values.astype(float) for cache in (one, other))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)  # of float16's
    return (first * second).sum(1) / lengths


@pytest.mark.parametrize(("precision", "least"), [("float32", 1 - 1e-5), ("auto", 0.999)])
def test_extraction_is_the_cpus_within_a_tolerance(clips, tmp_path, precision, least):
    extract(manifest(clips), config(tmp_path / "cpu", device="cpu", precision="float32"))
    summary = extract(manifest(clips), config(tmp_path / "gpu", device=GPU, precision=precision))
    assert summary.devices[0].startswith(GPU)
    if precision == "auto" and GPU != "cpu":
        assert summary.spec.precision == "bfloat16"  # of weights that did not come in float16
    assert cosines(tmp_path / "cpu", tmp_path / "gpu").min() > least


@pytest.mark.parametrize("changes", [{"decoders": 1}, {"decoders": 5}, {"device": f"{GPU},{GPU}"}])
def test_extraction_again_gives_the_same_bytes(clips, on_gpu, tmp_path, changes):
    extract(manifest(clips), config(tmp_path, **({"device": GPU} | changes)))
    assert files(tmp_path) == files(on_gpu)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_a_vector_does_not_depend_on_its_place_in_the_batch(precision):
    encoder = create_encoder(ENCODER, "random", device=GPU, precision=precision)
    generator = torch.Generator().manual_seed(0)
    shape = (8, *encoder.input_shape)
    frame = torch.randint(0, 256, shape[1:], generator=generator, dtype=torch.uint8)
    found = set()
    for position in (0, 3, 4, 7):
        batch = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        batch[position] = frame
        found.add(encoder.encode(batch)[position].numpy().tobytes())
    assert len(found) == 1


@gpu_alone
def test_too_little_memory_is_told_in_one_line_and_finished_shards_are_kept(clips, tmp_path):
    extract(manifest(clips, "v0", "v1"), config(tmp_path, device=GPU))
    before = files(tmp_path)
    free = torch.cuda.mem_get_info()[0]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-5)
    try:
        with pytest.raises(EncoderError, match=r"^there is no memory on cuda:0 for .*$"):
            extract(manifest(clips), config(tmp_path, device=GPU))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert files(tmp_path) == before
    extract(manifest(clips), config(tmp_path, device=GPU))
    assert torch.cuda.mem_get_info()[0] > free - (1 << 30)


def test_an_extraction_that_was_killed_goes_on_to_the_same_bytes(clips, on_gpu, tmp_path):
    process = start(extract_into, clips, tmp_path, GPU)
    while not list(tmp_path.glob("shard-*")) and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    extract(manifest(clips), config(tmp_path, device=GPU))
    assert files(tmp_path) == files(on_gpu)


@pytest.mark.parametrize("aggregator", ["avg", "bigru", "transformer"])
@pytest.mark.parametrize("trained_on", ["cpu", GPU])
def test_a_run_trained_on_either_predicts_on_both(
    clips, on_gpu, scored, tmp_path, aggregator, trained_on
):
    settings = TrainConfig(
        manifest=scored.path,
        cache=(on_gpu,),
        run=tmp_path / "run",
        aggregator=(aggregator,),
        max_epochs=1,
        device=trained_on,
    )
    features = read_features(scored, [on_gpu])
    run = train(features.tables, features.records, settings)
    scores = [
        Predictor(run, device=device).predict(clips / "v6.mp4").score for device in ("cpu", GPU)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


def test_cudnn_gives_the_states_and_gradients_of_the_loop():
    gru = BiGru(24, 8, 3, dropout=0.0).double()
    frames = torch.randn(4, 11, 24, dtype=torch.float64)
    lengths = torch.tensor([11, 3, 7, 1])

    def results(device: str, backend: str) -> list[torch.Tensor]:
        gru.to(device).zero_grad()
        with using_backend(backend):
            states = gru(frames.to(device), lengths)
        states.square().sum().backward()
        return [states.detach().cpu(), *(each.grad.cpu() for each in gru.parameters())]

    for one, other in zip(results("cpu", "plain"), results(GPU, "library"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_finetuning_runs_for_an_epoch(clips, scored, tmp_path):
    settings = FinetuneConfig(
        manifest=scored.path,
        run=tmp_path / "run",
        weights="random",
        image_size=64,
        max_epochs=1,
        batch_size=2,
        device=GPU,
    )
    summary = finetune(scored, settings)
    assert summary.failures == {}
    assert np.isfinite(summary.metrics["dev"]["mse"])
