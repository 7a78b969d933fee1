"""Finetuning I3D: that it learns, that it goes on where it was stopped, and what it leaves."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from clips import numbered_clip, numbers_in, read_frames, write_clip
from processes import memfeat, start
from safetensors.torch import load_file

from memfeat.cache import Cache
from memfeat.cli import main
from memfeat.config import FinetuneConfig
from memfeat.devices import CPU
from memfeat.encoders import create_encoder
from memfeat.encoders.inception import InceptionI3d
from memfeat.errors import RunError, TrainingError
from memfeat.finetuning import finetune
from memfeat.finetuning.clips import UsableVideos, VideoCheck, clips_at, start_of_clip
from memfeat.finetuning.finetuning import resolved
from memfeat.finetuning.fitting import Fitting, clip_logits, starting_network
from memfeat.manifest import Manifest, VideoRecord, read_manifest
from memfeat.runs import Run, read_predictions

SIZE = 32
SPLITS = ["train"] * 6 + ["dev"] * 4 + ["test"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Clips as bright as they are memorable, and one that cannot be decoded."""
    home = tmp_path_factory.mktemp("videos")
    generator = np.random.default_rng(0)
    (home / "broken.mp4").write_bytes(b"no video")
    rows = ["video_id,path,score,split", "broken,broken.mp4,0.5,train"]
    for number, split in enumerate(SPLITS):
        score = (0.2, 0.9)[number % 2]
        frames = (12, 20, 33)[number % 3]
        pixels = (255 * score + generator.normal(0, 12, (frames, SIZE, SIZE, 3))).clip(0, 255)
        write_clip(home / f"v{number}.mp4", pixels.astype(np.uint8))
        rows.append(f"v{number},v{number}.mp4,{'' if split == 'test' else score},{split}")
    (home / "manifest.csv").write_text("\n".join(rows) + "\n")
    return read_manifest(home / "manifest.csv")


def settings(run: Path, manifest: Manifest, **changes: Any) -> FinetuneConfig:
    values = {
        "manifest": manifest.path,
        "run": run,
        "weights": "random",
        "image_size": SIZE,
        "batch_size": 3,
        "max_epochs": 3,
        "freeze_batch_norm": True,
        "bootstrap": 20,
        "device": "cpu",
    }
    return FinetuneConfig(**(values | changes))


@pytest.fixture(scope="module")
def finished(videos: Manifest, tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    config = settings(tmp_path_factory.mktemp("finished") / "run", videos)
    finetune(videos, config)
    return config


def flags(config: FinetuneConfig) -> list[str]:
    """Write settings as flags of the command."""
    values = config.model_dump(mode="json", exclude_unset=True)
    frozen = values.pop("freeze_batch_norm")
    named = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    return [*named, "--freeze-batch-norm" if frozen else "--no-freeze-batch-norm"]


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def record(path: Path, split: str = "train") -> VideoRecord:
    return VideoRecord(video_id=path.stem, path=path, score=0.5, split=split)


def test_what_shows_in_the_pixels_is_learnt(finished: FinetuneConfig) -> None:
    losses = [epoch["dev_l1"] for epoch in history(finished.run)]
    assert len(losses) == 3
    assert min(losses) < losses[0] / 2
    best = [epoch["epoch"] for epoch in history(finished.run) if epoch["best"]][-1]
    assert losses[best] == min(losses)


@pytest.mark.extras
def test_a_killed_run_goes_on_to_what_an_uninterrupted_one_gives(
    videos: Manifest, finished: FinetuneConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["finetune", *flags(settings(run, videos))]
    killed = start(memfeat, *arguments, log=tmp_path / "log")
    while not (run / "history.jsonl").is_file() or not (run / "history.jsonl").read_bytes():
        assert killed.is_alive()
        time.sleep(0.02)
    killed.kill()
    killed.join()
    assert 1 <= len(history(run)) < 3
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3, result.output
    for name in ("history.jsonl", "i3d.safetensors", "predictions.csv", "metrics.json"):
        assert (run / name).read_bytes() == (finished.run / name).read_bytes(), name
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json",
        "history.jsonl",
        "i3d.safetensors",
        "metrics.json",
        "predictions.csv",
        "provenance.json",
    ]


def test_a_prediction_is_of_the_mean_over_a_videos_clips(
    videos: Manifest, finished: FinetuneConfig
) -> None:
    network = InceptionI3d(classes=1).eval()
    network.load_state_dict(load_file(finished.run / "i3d.safetensors"))
    predictions = read_predictions(finished.run / "predictions.csv")
    assert predictions.split == ("dev",) * 4 + ("test",)
    expected, lengths = [], []
    for video_id in predictions.video_id:
        pixels = read_frames(videos.by_id[video_id].path, size=SIZE).pixels
        lengths.append(len(pixels))
        clips = [pixels[start : start + 16] for start in range(0, len(pixels) - 15, 16)]
        clips = clips or [np.concatenate([pixels, pixels[[-1]].repeat(16 - len(pixels), axis=0)])]
        inputs = torch.from_numpy(np.stack(clips)).double() / 255 * 2 - 1
        with torch.no_grad():
            logits = network(inputs.float().permute(0, 4, 1, 2, 3)).flatten().double().numpy()
        expected.append(1 / (1 + np.exp(-logits.mean())))
    assert min(lengths) < 16 < 32 <= max(lengths), "clips of each kind"
    np.testing.assert_allclose(predictions.prediction, expected, atol=1e-5)


def test_extraction_takes_the_weights_at_their_own_image_size(
    videos: Manifest, finished: FinetuneConfig, tmp_path: Path
) -> None:
    weights = finished.run / "i3d.safetensors"
    arguments = ["--manifest", videos.path, "--cache", tmp_path / "cache", "--weights", weights]
    result = CliRunner().invoke(
        main, ["extract", "--encoder", "i3d", "--limit", "3", *map(str, arguments)]
    )
    assert result.exit_code == 3, result.output
    spec = Cache.open(tmp_path / "cache").spec
    assert (spec.image_size, spec.clip_frames, spec.dim) == (SIZE, 16, 1024)
    assert spec.weights == "file:i3d.safetensors"
    assert spec.trained_on == (
        "memorability scores (the manifest does not say whose), starting from RANDOM WEIGHTS"
    )


def test_checkpointing_and_decoders_change_no_figure(
    videos: Manifest, finished: FinetuneConfig, tmp_path: Path
) -> None:
    changes = {"max_epochs": 1, "gradient_checkpointing": True, "decoders": 1}
    finetune(videos, settings(tmp_path, videos, **changes))
    assert history(tmp_path) == history(finished.run)[:1]


def test_a_video_that_cannot_be_decoded_is_named_and_left_out(
    videos: Manifest, finished: FinetuneConfig
) -> None:
    result = CliRunner().invoke(main, ["finetune", *flags(finished), "--json"])
    assert result.exit_code == 3
    said = json.loads(result.stdout)
    assert said["failures"] == {"broken": "unreadable"}
    assert said["reasons"] == {"unreadable": 1}
    assert said["weights"] == str(finished.run / "i3d.safetensors")
    assert said["metrics"]["dev"]["n"] == 4


def test_a_complete_run_is_kept(videos: Manifest, finished: FinetuneConfig) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.run.iterdir()}
    summary = finetune(videos, finished)
    assert {path: path.stat().st_mtime_ns for path in finished.run.iterdir()} == before
    assert history(finished.run)[summary.provenance["best_epoch"]]["best"]


def test_a_folder_with_another_run_is_refused_by_what_differs(
    videos: Manifest, finished: FinetuneConfig, tmp_path: Path
) -> None:
    changed = finished.model_copy(update={"learning_rate": 0.5, "seed": 7})
    match = r"learning_rate is 0\.0001 there and 0\.5 here; seed is 0 there and 7 here"
    with pytest.raises(RunError, match=match):
        finetune(videos, changed)
    fewer = Manifest(videos.path, videos.records[:-1])
    with pytest.raises(RunError, match="its videos, splits or scores differ"):
        finetune(fewer, finished)
    with pytest.raises(RunError, match=r"holds a finetuned I3D.*memfeat extract --encoder i3d"):
        Run.load(finished.run)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(RunError, match="already holds a run of another kind"):
        finetune(videos, settings(tmp_path, videos))


def test_an_unfinished_run_is_taken_up_by_its_own_settings_alone(
    videos: Manifest, tmp_path: Path
) -> None:
    config = settings(tmp_path, videos, limit=3)  # without a dev split it would not get so far
    records = [record(tmp_path / "gone.mp4"), record(tmp_path / "away.mp4", "dev")]
    gone = Manifest(tmp_path / "gone.csv", tuple(records))
    with pytest.raises(TrainingError, match=r"no scored video of the train split.*1 missing"):
        finetune(gone, config)
    (tmp_path / "state.pt").write_bytes(b"half of a state")
    with pytest.raises(RunError, match=r"state\.pt is damaged.*delete it"):
        finetune(gone, config)
    facts = {"started_from_sha256": "another", "labels_sha256": "another"}
    state = {"config": config.model_dump(mode="json") | {"dropout": 0.1}, "facts": facts}
    torch.save(state, tmp_path / "state.pt")
    found = r"dropout is 0\.1 there and 0\.5 here.*from other weights.*scores differ"
    with pytest.raises(RunError, match=found):
        finetune(gone, config)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_without_scores_to_learn_from_and_stop_by_it_does_not_start(
    split: str, videos: Manifest, tmp_path: Path
) -> None:
    kept = tuple(each for each in videos.records if each.split != split)
    with pytest.raises(TrainingError, match=f"the {split} split has no video; give scored videos"):
        finetune(Manifest(videos.path, kept), settings(tmp_path, videos))
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_ends_the_run(videos: Manifest, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"learning rate of 1e\+30, the loss is nan"):
        finetune(videos, settings(tmp_path, videos, learning_rate=1e30))


def test_a_clips_start_follows_from_seed_epoch_and_video_and_may_be_any() -> None:
    drawn = [start_of_clip(0, epoch, 3, 20) for epoch in range(200)]
    assert set(drawn) == set(range(5))
    assert drawn == [start_of_clip(0, epoch, 3, 20) for epoch in range(200)]
    assert drawn != [start_of_clip(1, epoch, 3, 20) for epoch in range(200)]
    assert drawn != [start_of_clip(0, epoch, 4, 20) for epoch in range(200)]
    assert {start_of_clip(0, epoch, 0, frames) for epoch in range(9) for frames in (1, 16)} == {0}


def test_a_clip_is_16_frames_from_its_start_and_repeats_the_last_where_there_are_fewer(
    tmp_path: Path,
) -> None:
    video = record(numbered_clip(tmp_path / "clip.mp4", 40))
    (_, whole), (_, short), (_, error) = clips_at([video] * 3, (7, 30, 40), 160, decoders=2)
    assert numbers_in(whole) == list(range(7, 23))
    assert numbers_in(short) == [*range(30, 40), *[39] * 6]
    assert error.reason == "changed"
    assert "no frame 40 any more" in str(error)


def test_autocast_leaves_the_last_layer_in_float32() -> None:
    network = InceptionI3d(classes=1).eval()
    clips = torch.randint(0, 256, (2, 16, SIZE, SIZE, 3), dtype=torch.uint8)
    settings = FinetuneConfig(manifest="m.csv", weights="random", precision="bfloat16")
    with torch.inference_mode():
        found = clip_logits(network, clips, settings)
    assert found.dtype == torch.float32
    assert (found != found.bfloat16()).any()


def test_a_video_lost_during_training_is_left_out_and_ends_nothing(
    videos: Manifest, tmp_path: Path
) -> None:
    config = resolved(settings(tmp_path, videos), CPU)
    kept = [each for each in videos.records if each.video_id in ("v0", "v1", "v6", "v7")]
    lost = record(tmp_path / "lost.mp4"), record(tmp_path / "away.mp4", "dev")
    records = (*kept, *lost)
    usable = UsableVideos.of(records, {each.video_id: VideoCheck(10, "ok") for each in records})
    fitting = Fitting(starting_network(config)[0], usable, config, CPU)
    notes, done = [], 0

    def on_videos(count: int, note: str) -> None:
        nonlocal done
        done += count
        notes.extend([note] if note else [])

    report = fitting.run_epoch(on_videos)
    assert np.isfinite([report.train_l1, report.dev_l1]).all()
    assert done == 6
    assert len(notes) == 1
    assert "left out of this epoch: " in notes[0]
    assert "lost.mp4" in notes[0]


@pytest.mark.parametrize(("classes", "kept"), [(400, False), (1, True)])
def test_a_checkpoint_starts_it_with_all_but_a_last_layer_of_other_classes(
    classes: int, kept: bool, videos: Manifest, tmp_path: Path
) -> None:
    given = InceptionI3d(classes)
    torch.save(given.state_dict(), tmp_path / "rgb.pt")
    config = resolved(
        settings(tmp_path, videos, weights=str(tmp_path / "rgb.pt"), freeze_batch_norm=None), CPU
    )
    network, origin = starting_network(config)
    assert config.freeze_batch_norm
    assert network.logits.conv3d.weight.shape == (1, 1024, 1, 1, 1)
    same = {
        name
        for name, value in network.state_dict().items()
        if torch.equal(value, given.state_dict()[name])
    }
    other = set(given.state_dict()) - same
    assert other == (set() if kept else {"logits.conv3d.weight", "logits.conv3d.bias"})
    assert origin["started_from"].startswith("rgb.pt (not stated: a checkpoint file with")


def test_frozen_batch_norms_keep_their_statistics_and_others_gather_them(
    videos: Manifest, finished: FinetuneConfig, tmp_path: Path
) -> None:
    name = "Mixed_4b.b0.bn.running_mean"
    assert load_file(finished.run / "i3d.safetensors")[name].eq(0).all()
    few = [each for each in videos.records if each.video_id in ("v0", "v1", "v6")]
    config = settings(tmp_path, videos, freeze_batch_norm=None, max_epochs=1)
    assert not resolved(config, CPU).freeze_batch_norm
    finetune(Manifest(videos.path, tuple(few)), config)
    assert load_file(tmp_path / "i3d.safetensors")[name].ne(0).any()


def test_without_weights_or_with_an_odd_setting_it_says_what_to_give(videos: Manifest) -> None:
    result = CliRunner().invoke(main, ["finetune", "--manifest", str(videos.path)])
    assert result.exit_code == 2
    result = CliRunner().invoke(
        main, ["finetune", "--manifest", str(videos.path), "--weights", "gone.pt"]
    )
    assert result.exit_code == 1
    assert "there is no checkpoint file gone.pt" in result.output


def test_the_finished_weights_are_an_encoder_that_says_what_it_is(
    finished: FinetuneConfig,
) -> None:
    encoder = create_encoder("i3d", str(finished.run / "i3d.safetensors"))
    assert encoder.image_size == SIZE
    clip = torch.zeros(1, 16, SIZE, SIZE, 3, dtype=torch.uint8)
    assert encoder.encode(clip).shape == (1, 1024)
