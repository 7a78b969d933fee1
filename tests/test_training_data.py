import numpy as np
import pytest
from made_up import dataset, records, spec, splits

from memfeat.cache import Cache, EncodedVideo, write_shard
from memfeat.errors import TrainingError
from memfeat.manifest import Manifest
from memfeat.training import Examples, select_records


@pytest.fixture
def cache(tmp_path):
    videos = [
        EncodedVideo(name, np.ones((frames, 6), np.float16), np.arange(frames) / 25, **changes)
        for name, frames, changes in (
            ("v0", 3, {}),
            ("v1", 2, {"status": "partial", "reason": "truncated"}),
            ("v2", 0, {"status": "failed", "reason": "missing"}),
            ("extra", 1, {}),
        )
    ]
    write_shard(tmp_path / "cache", spec(6), videos)
    return Cache.open(tmp_path / "cache")


def test_failed_and_partial_videos_and_strangers_are_left_out_and_named(tmp_path, cache):
    manifest = Manifest(tmp_path / "m.csv", tuple(records([0.1, 0.2, 0.3], splits(3, 0, 0))))
    selection = select_records(manifest, cache)
    assert [record.video_id for record in selection.records] == ["v0"]
    assert [note.partition(":")[0] for note in selection.notes][:2] == [
        "1 partial video left out",
        "1 failed video left out",
    ]
    assert "1 video" in selection.notes[2]
    assert "'extra'" in selection.notes[2]
    whole = select_records(manifest, cache, partial=True)
    assert [record.video_id for record in whole.records] == ["v0", "v1"]


def test_videos_that_were_never_extracted_are_an_error_with_the_command(tmp_path, cache):
    manifest = Manifest(tmp_path / "my m.csv", tuple(records([0.5] * 9, splits(9, 0, 0))))
    with pytest.raises(TrainingError) as caught:
        select_records(manifest, cache)
    message = str(caught.value)
    assert message.startswith("6 of the 9 videos of ")
    assert "'v3', 'v4', 'v5' and 3 more" in message
    assert f"memfeat extract --manifest '{tmp_path / 'my m.csv'}' --cache" in message
    assert message.endswith("--encoder made-up")


def test_means_are_each_videos_mean_frame():
    made, labels = dataset(train=4)
    examples = Examples.join(made, labels[::-2])
    for mean, record in zip(*examples.means, examples.records, strict=True):
        frames = made.frames(made.video_ids.index(record.video_id)).astype(np.float64)
        np.testing.assert_allclose(mean, frames.mean(0), atol=1e-12)
