import csv
import itertools
import math
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from memfeat.datasets.demo import (
    BACKGROUNDS,
    DEMO,
    DEMO_B,
    DEMOS,
    SALIENCE,
    WORDS,
    DemoSettings,
    Script,
    demo_records,
    write_script,
)
from memfeat.datasets.rendering import load_photos, render_demo, render_frames
from memfeat.errors import MemfeatError
from memfeat.manifest import read_manifest, write_manifest

ROOT = Path(__file__).parents[1]
SMALL = DemoSettings(name="small", clips={"train": 2, "dev": 1})
MANY = 1500  # clips, enough for statements about chance; a script costs a millisecond


def many_scripts(settings: DemoSettings) -> list[Script]:
    many = settings.model_copy(update={"clips": {"train": MANY}})
    return [write_script(index, many) for index in range(MANY)]


@pytest.fixture(scope="module")
def scripts():
    return many_scripts(DEMO)


@pytest.fixture(scope="module")
def scripts_b():
    return many_scripts(DEMO_B)


@pytest.fixture(scope="module")
def photos():
    return load_photos()


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(
    ("name", "words"),
    [("demo", "scores from a formula"), ("demo-b", "scores from another formula")],
)
def test_the_shipped_manifest_is_what_the_code_gives(tmp_path, name, words):
    shipped = ROOT / f"data_manifests/{name}.csv"
    (tmp_path / "data_manifests").mkdir()
    fresh = tmp_path / f"data_manifests/{name}.csv"
    write_manifest(fresh, demo_records(tmp_path / "data" / name, DEMOS[name]))
    assert fresh.read_text() == shipped.read_text()
    with shipped.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[7]["path"] == f"../data/{name}/{name}-0007.mp4"
    assert {row["dataset"] for row in rows} == {
        f"memfeat {name}: rendered clips, {words}, not from people"
    }
    splits = [row["split"] for row in rows]
    assert [splits.count(split) for split in ("train", "dev", "test")] == [240, 60, 120]


def test_the_noise_free_score_follows_the_stated_formula(scripts):
    for script in scripts:
        missed = math.prod(1 - SALIENCE[moment.photo] for moment in script.moments)
        assert script.noise_free_score == pytest.approx(0.5 + 0.4 * (1 - missed), abs=5e-5)


def test_the_second_demos_score_follows_its_own_formula_around_a_higher_mean(scripts, scripts_b):
    for script in scripts_b:
        peak = max((SALIENCE[moment.photo] for moment in script.moments), default=0)
        cuts = len(script.backgrounds) - 1
        expected = 0.775 + 0.2 * peak - 0.03 * cuts
        assert script.noise_free_score == pytest.approx(expected, abs=5e-5)
    means = [np.mean([script.score for script in each]) for each in (scripts, scripts_b)]
    assert means == pytest.approx([0.73, 0.86], abs=0.01)
    assert not {script.backgrounds for script in scripts} & {s.backgrounds for s in scripts_b}


def test_the_noise_is_normal_of_the_stated_size_and_scores_stay_in_range(scripts):
    noise = [script.score - script.noise_free_score for script in scripts]
    assert np.std(noise) == pytest.approx(0.05, rel=0.05)
    assert stats.kstest(noise, stats.norm(0, 0.05).cdf).pvalue > 0.01
    assert all(0 <= script.score <= 1 for script in scripts)


@pytest.mark.parametrize("name", ["scripts", "scripts_b"])
def test_a_perfect_model_would_reach_a_rank_correlation_of_about_0_9(name, request):
    pairs = [(script.noise_free_score, script.score) for script in request.getfixturevalue(name)]
    assert stats.spearmanr(*zip(*pairs, strict=True)).statistic == pytest.approx(0.9, abs=0.02)


def test_captions_name_what_is_shown_and_say_that_they_are_made_up(scripts):
    assert set(WORDS) == {*SALIENCE, *BACKGROUNDS}
    assert len(set(WORDS.values())) == len(WORDS)
    for script, record in zip(scripts, demo_records(Path("data")), strict=False):
        assert record.caption == " | ".join(script.captions)
        assert all(caption.startswith("made up: ") for caption in script.captions)
        shown = {shot.photo for shot in (*script.backgrounds, *script.moments)}
        for photo, words in WORDS.items():
            assert (words in record.caption) == (photo in shown), (photo, record.caption)


def test_moments_do_not_overlap_and_may_fall_anywhere(scripts):
    first, last = [], []
    for script in scripts:
        assert 10 <= script.frames <= 14
        spans = sorted((moment.start, moment.start + moment.frames) for moment in script.moments)
        ends = [0, *(end for _, end in spans)]
        assert all(end <= start for end, (start, _) in zip(ends, spans, strict=False))
        assert ends[-1] <= script.frames
        first += [start == 0 for start, _ in spans]
        last += [end == script.frames for _, end in spans]
    assert any(first)
    assert any(last)


def test_backgrounds_fill_the_clip_with_different_photographs(scripts):
    for script in scripts:
        ends = [shot.start + shot.frames for shot in script.backgrounds]
        assert [shot.start for shot in script.backgrounds] == [0, *ends[:-1]]
        assert ends[-1] == script.frames
        assert min(shot.frames for shot in script.backgrounds) >= 4
        assert len({shot.photo for shot in script.backgrounds}) == len(ends)
        assert {shot.photo for shot in script.backgrounds} <= set(BACKGROUNDS)
    assert {len(script.backgrounds) for script in scripts} == {1, 2}


def test_how_long_moments_last_tells_nothing_about_the_score(scripts):
    some = [script for script in scripts if script.moments]
    seconds = [sum(moment.frames for moment in script.moments) / 5 for script in some]
    scores = [script.noise_free_score for script in some]
    counts = [len(script.moments) for script in some]
    assert set(seconds) == {0.6, 0.8}
    assert abs(stats.spearmanr(seconds, scores).statistic) < 0.06
    assert abs(stats.spearmanr(seconds, counts).statistic) < 0.06
    assert {moment.frames for script in some for moment in script.moments} == {1, 2, 3, 4}


def test_another_seed_or_formula_is_another_dataset_and_a_clip_beyond_the_last_an_error():
    other = write_script(0, DemoSettings(seed=1))
    assert other.backgrounds != write_script(0).backgrounds
    lower = DemoSettings(base=0.2)
    assert write_script(1, lower).moments == write_script(1).moments
    assert write_script(1, lower).noise_free_score == pytest.approx(
        write_script(1).noise_free_score - 0.3
    )
    with pytest.raises(MemfeatError, match="demo has 420 clips, no more"):
        write_script(420)


def test_cameras_move_and_never_leave_the_photograph(scripts, photos):
    for script in scripts:
        for shot in (*script.backgrounds, *script.moments):
            assert 0 <= min(*shot.x, *shot.y) <= max(*shot.x, *shot.y) <= 1
            assert 0 < min(shot.zoom) <= max(shot.zoom) <= 1
    frames = list(render_frames(write_script(0), photos))
    assert all((one != other).any() for one, other in itertools.pairwise(frames))


def test_every_moment_shows_its_photograph(photos):
    def thumbnail(picture: Image.Image) -> np.ndarray:
        small = picture.convert("RGB").resize((16, 12), Image.Resampling.BOX)
        return np.asarray(small, float).ravel()

    def middle(photo: Image.Image) -> Image.Image:
        width = min(photo.width, photo.height * 4 / 3) * 0.9
        left, top = (photo.width - width) / 2, (photo.height - width * 0.75) / 2
        return photo.crop((round(left), round(top), round(left + width), round(top + width * 0.75)))

    references = {name: thumbnail(middle(photo)) for name, photo in photos.items()}
    for index in range(12):
        script = write_script(index)
        frames = list(render_frames(script, photos))
        for moment in script.moments:
            for frame in (moment.start, moment.start + moment.frames - 1):
                seen = thumbnail(Image.fromarray(frames[frame]))
                match = {n: np.corrcoef(seen, values)[0, 1] for n, values in references.items()}
                assert max(match, key=match.__getitem__) == moment.photo


def test_rendered_clips_decode_to_their_script(tmp_path, photos):
    rendered: list[str] = []
    manifest_path, folder = tmp_path / "lists/small.csv", tmp_path / "videos"
    manifest = render_demo(manifest_path, folder, settings=SMALL, on_clip=rendered.append)
    assert read_manifest(manifest_path) == manifest
    assert rendered == ["small-0000", "small-0001", "small-0002"]
    clips = sorted(folder.glob("*.mp4"))
    assert [clip.stem for clip in clips] == rendered
    for index, clip in enumerate(clips):
        script = write_script(index, SMALL)
        frames = np.stack(list(render_frames(script, photos, SMALL)))
        assert decoded(clip).shape == (script.frames, 192, 256, 3)
        # H.264 and its halved colour planes change pixels a little; another shot, a lot.
        assert np.abs(decoded(clip).astype(int) - frames).mean(axis=(1, 2, 3)).max() < 12


def test_existing_clips_are_kept_and_missing_ones_rendered_alike(tmp_path):
    def render() -> list[tuple[int, bytes]]:
        render_demo(tmp_path / "m.csv", tmp_path, settings=SMALL)
        clips = sorted(tmp_path.glob("*.mp4"))
        return [(clip.stat().st_ino, clip.read_bytes()) for clip in clips]

    first = render()
    manifest_inode = (tmp_path / "m.csv").stat().st_ino
    (tmp_path / "small-0001.mp4").unlink()
    again = render()
    assert [content for _, content in again] == [content for _, content in first]
    assert (again[0], again[2]) == (first[0], first[2])
    assert (tmp_path / "m.csv").stat().st_ino == manifest_inode


def test_without_the_photographs_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MemfeatError, match=r"'coffee.png' is not installed .*\[demo\]'"):
        render_demo(tmp_path / "m.csv", tmp_path, settings=SMALL)
    assert list(tmp_path.iterdir()) == []
