import os
import re
import resource
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch
from clips import read_frames, write_clip
from extracting import ENCODER, FRAMES, config, extract_into, files, manifest, moving_noise
from processes import descendants, start, struck

from memfeat.cache import Cache, CacheSpec, EncodedVideo, verify, write_shard
from memfeat.cache.shard import text_attribute
from memfeat.decoding import DecodeSettings, decode_ahead
from memfeat.encoders import create_encoder
from memfeat.errors import CacheError, EncoderError, VideoError
from memfeat.extraction import encode_video, extract
from memfeat.extraction.workers import _Queue
from memfeat.manifest import VideoRecord
from memfeat.video import write_video


def test_the_pipeline_equals_encoding_frame_by_frame(clips, whole):
    encoder = create_encoder(ENCODER, "random")
    cache = Cache.open(whole)
    for index, frames in enumerate(FRAMES):
        decoded = read_frames(clips / f"v{index}.mp4", size=encoder.image_size)
        batch = torch.zeros((4, *decoded.pixels.shape[1:]), dtype=torch.uint8)
        expected = []
        for pixels in decoded.pixels:
            batch[0] = torch.from_numpy(pixels)
            expected.append(encoder.encode(batch)[0].numpy().astype(np.float16))
        table = cache.load([f"v{index}"])
        assert table.lengths.tolist() == [frames]
        np.testing.assert_array_equal(table.values, np.stack(expected))
        np.testing.assert_array_equal(table.pts_seconds, decoded.pts_seconds)


def test_the_cache_records_what_made_it_and_where_from(clips, whole):
    cache = Cache.open(whole)
    assert cache.spec.encoder == ENCODER
    assert cache.spec.is_random
    assert cache.spec.batch_size == 4
    assert len(cache.shards) == 4
    frames = read_frames(clips / "v0.mp4").pixels
    assert cache.entries["v0"].frame_size == (frames.shape[2], frames.shape[1])
    assert verify(whole) == {}


@pytest.mark.parametrize("changes", [{"decoders": 1}, {"decoders": 3}, {"device": "cpu,cpu"}])
def test_neither_decoders_nor_workers_change_a_byte(clips, whole, tmp_path, changes):
    summary = extract(manifest(clips), config(tmp_path, **changes))
    assert len(summary.outcomes) == len(FRAMES)
    rates = summary.rates
    assert rates.decoded == rates.encoded == rates.written == sum(FRAMES)
    assert 0 < rates.wall_seconds <= summary.seconds
    assert 0 <= rates.queue_fill <= 1
    assert files(tmp_path) == files(whole)


def test_parts_make_the_shards_of_the_whole_in_any_order(clips, whole, tmp_path):
    for part in ("2/2", "1/2"):
        extract(manifest(clips), config(tmp_path, part=part))
    assert files(tmp_path) == files(whole)
    assert len(extract(manifest(clips), config(tmp_path)).outcomes) == 0


def test_a_part_is_every_so_manieth_shard(clips, whole, tmp_path):
    spared = []
    summary = extract(
        manifest(clips), config(tmp_path, part="2/3"), on_start=lambda *start: spared.append(start)
    )
    assert spared == [(len(FRAMES) - 2, f"{ENCODER} in float32 on cpu")]
    assert [outcome.video_id for outcome in summary.outcomes] == ["v2", "v3"]
    assert files(tmp_path).items() <= files(whole).items()


def test_a_second_run_does_nothing(clips, whole):
    before = files(whole)
    summary = extract(manifest(clips), config(whole))
    assert (summary.already_done, len(summary.outcomes)) == (len(FRAMES), 0)
    assert files(whole) == before


def test_a_whole_cache_need_not_be_written_to(clips, whole):
    with tempfile.TemporaryDirectory() as folder:  # where all users may go, unlike in tmp_path
        cache = shutil.copytree(whole, Path(folder, "cache"))
        for path in (Path(folder), cache):
            path.chmod(0o555)
        user = os.geteuid()
        if user == 0:  # who may write everywhere
            os.seteuid(65534)
        try:
            summary = extract(manifest(clips), config(cache))
            with pytest.raises(CacheError, match=r"cannot write into .*cache: Permission denied"):
                extract(manifest(clips, "v0", "new"), config(cache))
        finally:
            os.seteuid(user)
            cache.chmod(0o755)
    assert (summary.already_done, len(summary.outcomes)) == (len(FRAMES), 0)


def test_a_bad_video_costs_the_others_nothing(clips, whole, tmp_path):
    for name, content in {"text": b"not a video", "empty": b""}.items():
        (clips / f"{name}.mp4").write_bytes(content)
    mixed = manifest(clips, "v0", "text", "v1", "gone", "v2", "v3", "empty", "v4", "v5", "v6")
    seen = []
    summary = extract(mixed, config(tmp_path / "mixed"), on_video=seen.append)
    assert summary.failures == {"text": "unreadable", "gone": "missing", "empty": "unreadable"}
    assert [outcome.video_id for outcome in seen] == [r.video_id for r in mixed.records]
    assert all(str(clips) in o.message for o in seen if o.status == "failed")
    ids = [record.video_id for record in manifest(clips).records]
    mixed, alone = (Cache.open(cache).load(ids) for cache in (tmp_path / "mixed", whole))
    np.testing.assert_array_equal(mixed.values, alone.values)


def test_failures_are_remembered_until_a_retry_is_asked_for(clips, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "v0.mp4").write_bytes((clips / "v0.mp4").read_bytes())
    videos = manifest(folder, "v0", "late")
    cache = tmp_path / "cache"
    assert extract(videos, config(cache)).failures == {"late": "missing"}
    (folder / "late.mp4").write_bytes((clips / "v1.mp4").read_bytes())
    again = extract(videos, config(cache))
    assert (again.failures, len(again.outcomes)) == ({"late": "missing"}, 0)
    retried = extract(videos, config(cache, retry_failed=True))
    assert (retried.failures, len(retried.outcomes)) == ({}, 1)
    assert Cache.open(cache).load(["late"]).lengths.tolist() == [FRAMES[1]]


def test_limit_and_max_frames_bound_the_work(clips, tmp_path):
    extract(manifest(clips), config(tmp_path, limit=3, max_frames=2))
    cache = Cache.open(tmp_path)
    assert {v: e.num_frames for v, e in cache.entries.items()} == {"v0": 2, "v1": 2, "v2": 1}
    assert {entry.status for entry in cache.entries.values()} == {"ok"}
    assert cache.spec.max_frames == 2


@pytest.mark.parametrize(
    ("changes", "field"), [({"batch_size": 8}, "batch_size"), ({"max_frames": 3}, "max_frames")]
)
def test_a_cache_made_otherwise_is_refused(clips, whole, changes, field):
    message = rf"made differently; give another --cache, or .*--batch-size 4\): {field} is"
    with pytest.raises(CacheError, match=message):
        extract(manifest(clips), config(whole, **changes))


def test_a_cache_made_before_untagged_hd_was_bt_709_opens_and_is_not_continued(
    clips, whole, tmp_path
):
    written = Cache.open(whole).spec.model_dump(exclude={"untagged_hd"})
    earlier = CacheSpec(**written)
    failed = EncodedVideo(
        "v0", np.empty((0, earlier.width), np.float16), np.empty(0), "failed", "x"
    )
    write_shard(tmp_path, earlier, [failed])
    assert Cache.open(tmp_path).spec == earlier
    with pytest.raises(CacheError, match=r"untagged_hd is 'BT\.709', not 'BT\.601'"):
        extract(manifest(clips), config(tmp_path))


def test_a_cache_of_another_state_dict_than_timm_loads_says_how_it_is_continued(clips, tmp_path):
    """The way that the message names does continue it."""
    dicts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        dicts.append(timm.create_model("test_vit").state_dict())
    several, one = tmp_path / "ck.pth", tmp_path / "one" / "ck.pth"
    one.parent.mkdir()
    torch.save({"state_dict": dicts[0]}, several)
    extract(manifest(clips, "v2"), config(tmp_path / "cache", weights=str(several)))
    torch.save({"state_dict": dicts[0], "state_dict_ema": dicts[1]}, several)
    with pytest.raises(CacheError) as caught:
        extract(manifest(clips, "v2", "v6"), config(tmp_path / "cache", weights=str(several)))
    advice = re.search(r"as by (torch\.save\(.*\)), and give that as weights", str(caught.value))[1]
    assert advice == "torch.save(torch.load('ck.pth')['state_dict'], 'one/ck.pth')"
    torch.save(torch.load(several)["state_dict"], one)
    extract(manifest(clips, "v2", "v6"), config(tmp_path / "cache", weights=str(one)))
    assert Cache.open(tmp_path / "cache").entries.keys() == {"v2", "v6"}


def test_an_encoder_that_cannot_be_had_is_told_from_the_caches_own(clips, whole):
    made = Cache.open(whole).spec
    changed = config(whole, encoder="i3d", weights="nowhere.pt")
    with pytest.raises(
        EncoderError, match=rf"nowhere\.pt.*was made with --encoder {made.encoder} "
    ):
        extract(manifest(clips), changed)


def test_damaged_shards_are_set_aside_and_made_again(clips, whole, tmp_path):
    for name, content in files(whole).items():
        (tmp_path / name).write_bytes(content)
    broken = sorted(tmp_path.iterdir())
    for path in broken:
        path.write_bytes(path.read_bytes()[:100])
    summary = extract(manifest(clips), config(tmp_path))
    assert [path.name for path in summary.set_aside] == [f"{p.name}.damaged" for p in broken]
    for path in summary.set_aside:
        path.unlink()
    assert files(tmp_path) == files(whole)


@pytest.mark.parametrize("version", [1, 3])
def test_another_memfeats_shard_is_refused_and_left_alone(clips, whole, version, tmp_path):
    for name, content in files(whole).items():
        (tmp_path / name).write_bytes(content)
    with h5py.File(sorted(tmp_path.iterdir())[1], "r+") as shard:
        text = shard.attrs["spec"].decode()
        text = text.replace('"schema_version":2', f'"schema_version":{version}')
        shard.attrs.create("spec", **text_attribute(text))
        if version == 1:
            del shard["covers"]  # which came with the second schema
    before = files(tmp_path)
    with pytest.raises(CacheError, match="schema_version"):
        extract(manifest(clips), config(tmp_path))
    assert files(tmp_path) == before


def test_a_video_that_changes_while_it_is_read_is_not_cached(clips, tmp_path):
    clip = tmp_path / "v.mp4"
    write_video(clip, moving_noise(400, 0), fps=10)  # more than are decoded ahead
    records = [VideoRecord(video_id="v", path=clip, score=None, split="test")]
    with decode_ahead(records, DecodeSettings(64), decoders=1) as videos:
        next(videos)
        clip.write_bytes((clips / "v2.mp4").read_bytes())
        *_, end = videos
    assert (end.result.status, end.result.reason) == ("failed", "changed")


def test_a_cache_that_cannot_be_written_to_is_refused_at_once(clips, tmp_path):
    (tmp_path / "file").touch()
    seen = []
    with pytest.raises(CacheError, match=r"cannot write into .*file: .*give another --cache"):
        extract(manifest(clips), config(tmp_path / "file"), on_video=seen.append)
    assert seen == []


def extract_on_a_full_disk(clips, first, full, size) -> None:
    extract_into(clips, first)  # so that its decoders have their memory, which is limited too
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        extract_into(clips, full)
    except CacheError as error:
        (first / "error").write_text(str(error))


def test_a_full_disk_is_told_of_and_finished_shards_are_kept(clips, whole, tmp_path):
    size = max(map(len, files(whole).values())) - 1
    start(extract_on_a_full_disk, clips, tmp_path / "first", tmp_path / "full", size).join()
    error = (tmp_path / "first/error").read_text()
    assert error.startswith("cannot write")
    assert "File too large. Finished shards are kept" in error
    assert not list((tmp_path / "full").glob(".*.part"))
    extract(manifest(clips), config(tmp_path / "full"))
    assert files(tmp_path / "full") == files(whole)


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_a_partial_video_ends_the_run_where_that_is_asked_for(clips, whole, tmp_path, device):
    cut = write_clip(clips / "cut.mp4", moving_noise(60, 9), muxer={"movflags": "faststart"})
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 6 // 10])
    videos = manifest(clips, "v0", "v1", "cut", *(f"v{index}" for index in range(2, 7)))
    with pytest.raises(VideoError, match=r"cut\.mp4.*truncated.*give --on-partial keep or skip"):
        extract(videos, config(tmp_path, device=device, on_partial="fail"))
    skipping = extract(videos, config(tmp_path, on_partial="skip"))
    assert skipping.failures == {"cut": "truncated"}
    assert Cache.open(tmp_path).load(["v0", "v6"]).lengths.tolist() == [FRAMES[0], FRAMES[6]]
    assert Cache.open(tmp_path).entries["cut"].num_frames == 0


def test_a_killed_worker_costs_its_shard_and_the_job_finishes(clips, whole, tmp_path):
    process = start(extract_into, clips, tmp_path, "cpu,cpu")
    while not list(tmp_path.glob(".*.part")) and process.is_alive():
        time.sleep(0.002)
    os.kill(worker_writing_in(tmp_path, process.pid), signal.SIGKILL)
    process.join()
    assert process.exitcode == 0
    for part in tmp_path.glob(".*.part"):  # which the next run would remove
        part.unlink()
    assert files(tmp_path) == files(whole)


def worker_writing_in(cache: Path, parent: int) -> int:
    """The process other than `parent` that has a part of a shard open."""
    while True:
        for pid in set(descendants()) - {parent}:
            with suppress(OSError):
                links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]
                if any(link.parent == cache and link.suffix == ".part" for link in links):
                    return pid


@pytest.fixture(scope="module")
def with_a_long_one(clips, tmp_path_factory) -> Path:
    """A folder with the clips and, as v0, one of 250 frames."""
    folder = tmp_path_factory.mktemp("long")
    for clip in clips.glob("v*.mp4"):
        (folder / clip.name).write_bytes(clip.read_bytes())
    write_video(folder / "v0.mp4", moving_noise(250, 1), fps=10)
    return folder


@pytest.fixture(scope="module")
def whole_with_a_long_one(with_a_long_one, tmp_path_factory) -> Path:
    """The cache that one decoder makes of them."""
    cache = tmp_path_factory.mktemp("whole")
    extract(manifest(with_a_long_one), config(cache, decoders=1))
    return cache


def test_a_long_video_among_short_ones_is_the_same_with_any_number_of_decoders(
    with_a_long_one, whole_with_a_long_one, tmp_path
):
    finished = []
    for decoders in (2, 5):
        summary = extract(
            manifest(with_a_long_one),
            config(tmp_path / f"{decoders}", decoders=decoders),
            on_video=lambda outcome: finished.append(outcome.video_id),
        )
        assert {outcome.status for outcome in summary.outcomes} == {"ok"}
    assert files(tmp_path / "2") == files(tmp_path / "5") == files(whole_with_a_long_one)
    assert finished[-1] == "v0"  # its shard's rows had to wait, those of others did not
    alone = manifest(with_a_long_one, "v0")
    extract(alone, config(tmp_path / "alone"))
    one, other = (Cache.open(tmp_path / name).load(["v0"]).values for name in ("alone", "5"))
    np.testing.assert_array_equal(one, other)


def test_a_decoder_killed_within_a_long_video_costs_nothing(
    with_a_long_one, whole_with_a_long_one, tmp_path
):
    with struck(with_a_long_one / "v0.mp4", 1, signal.SIGKILL) as hit:
        extract(manifest(with_a_long_one), config(tmp_path / "hit", decoders=2))
    assert len(hit) == 1
    assert files(tmp_path / "hit") == files(whole_with_a_long_one)


def test_one_video_is_encoded_as_the_cache_holds_it(clips, whole):
    encoder = create_encoder(ENCODER, "random")
    cache = Cache.open(whole)
    encoded = encode_video(clips / "v1.mp4", encoder, cache.spec)
    np.testing.assert_array_equal(encoded.embeddings, cache.load(["v1"]).values)
    with pytest.raises(VideoError, match=r"nowhere\.mp4") as caught:
        encode_video(clips / "nowhere.mp4", encoder, cache.spec)
    assert caught.value.reason == "missing"


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(clips, whole, tmp_path):
    kills = 0
    for wanted in (0, 1, 3):
        process = start(extract_into, clips, tmp_path)
        while len(list(tmp_path.glob("shard-*"))) < wanted and process.is_alive():
            time.sleep(0.005)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if any(tmp_path.glob("shard-*")):
            assert verify(tmp_path) == {}
    assert kills >= 2
    extract(manifest(clips), config(tmp_path))
    assert files(tmp_path) == files(whole)


def test_a_shard_at_which_workers_die_twice_ends_the_work_and_one_that_is_done_is_not_blamed():
    shards = [[VideoRecord(video_id=v, path=Path(v), score=None, split="test")] for v in "abc"]
    queue = _Queue(shards, 1, lambda _: None, lambda _: None)
    job = queue.next_job()
    queue.receive(job, job[0][0])  # its shard is in place, and then the worker ends
    queue.retry(job, 1)
    second = queue.next_job()
    assert [records for _, records in (*job, *second)] == shards[:2]
    queue.retry(second, -9)
    assert queue.next_job() == second
    message = "workers that made one shard were killed by signal 9, 2 times over"
    with pytest.raises(EncoderError, match=message):
        queue.retry(second, -9)
