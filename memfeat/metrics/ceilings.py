"""How well a perfect model would do: measured scores are noisy, so none fits exactly."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memfeat.errors import counted
from memfeat.manifest import VideoRecord
from memfeat.metrics.agreement import Metrics, evaluate
from memfeat.metrics.resampling import MIN_VIDEOS, Interval, Values, interval, measure, resamples

RANDOM_SPLITS = 10  # of the viewers, whose correlations are averaged
_WHOLE = 0.1  # score * answers may differ by this much from a whole number, for rounding
_FEW_INEXACT = 0.1  # of the scores may be no share of their answers
_CORRELATIONS: tuple[Literal["plcc", "srocc"], ...] = ("plcc", "srocc")

Halves = tuple[Values, Values]


@dataclass(frozen=True)
class SplitHalf:
    """How well one half of the viewers agrees with the other, and what follows for a model.

    A score is the share k / n of n viewers who recognised the video. Splitting the viewers at
    random gives two scores of half the answers each; their correlation over videos is `half_*`,
    which datasets publish as human consistency. Spearman and Brown's 2 r / (1 + r) extrapolates it
    to all answers: `reliability_*`, the correlation with the scores of as many other viewers. A
    perfect model predicts the share of all people rather than of n, and its correlation with the
    measured scores is the square root of that: the ceiling, `plcc` and `srocc`.

    Viewers are assumed to answer independently. For Spearman's correlation the two formulas are
    approximations, good to about .01. Where halves agree no better than by chance all are 0.

    Attributes:
        n: videos with a score and at least two answers; the others are left out.
        left_out: videos with a score and fewer answers, or an unknown number.
        answers: the median number of answers.
        inexact: videos whose score is not k / n for a whole k; it is rounded to the nearest. Where
            these are more than a tenth, as of normalised scores, there is no ceiling, for the
            number of answers does not tell their noise.
        half_plcc, half_srocc: mean correlation of halves, in [-1, 1]; None where undefined.
        reliability_plcc, reliability_srocc: extrapolated to all answers, in [0, 1], or None.
        plcc, srocc: the ceiling, in [0, 1], or None.
        plcc_interval, srocc_interval: its 95 % percentile bootstrap over videos, or None.
        undefined: why there is no ceiling; None where there is one.
    """

    n: int
    left_out: int
    answers: float | None
    inexact: int
    half_plcc: float | None = None
    half_srocc: float | None = None
    reliability_plcc: float | None = None
    reliability_srocc: float | None = None
    plcc: float | None = None
    srocc: float | None = None
    plcc_interval: Interval | None = None
    srocc_interval: Interval | None = None
    undefined: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """Return how the ceiling was estimated, in one line."""
        words = f"halves of the viewers, {self.answers:g} answers a video" if self.answers else ""
        if self.undefined:
            words = f"unknown: {self.undefined}"
        else:
            words += (
                f": one half against the other SROCC {self.half_srocc:.3f}, stepped up to all "
                f"answers {self.reliability_srocc:.3f} (Spearman-Brown), its root what a perfect "
                "model reaches"
            )
        if self.left_out:
            words += f"; {counted(self.left_out, 'video')} without a number of answers left out"
        if self.inexact and not self.undefined:
            words += (
                f"; {counted(self.inexact, 'score')} of no whole number of answers, taken for the "
                "nearest"
            )
        return words


def known_ceiling(
    records: Iterable[VideoRecord], *, bootstrap: int = 1000, seed: int = 0
) -> Metrics | None:
    """Return the metrics of a perfect model: noise-free scores as predictions of noisy ones.

    Only simulations have them: None unless every scored record has a noise-free score.
    """
    scored = [(r.score, r.noise_free_score) for r in records if r.score is not None]
    known = [(score, noise_free) for score, noise_free in scored if noise_free is not None]
    if not known or len(known) < len(scored):
        return None
    truth, noise_free = zip(*known, strict=True)
    return evaluate(truth, noise_free, bootstrap=bootstrap, seed=seed)


def split_half_ceiling(
    records: Iterable[VideoRecord], *, bootstrap: int = 1000, seed: int = 0
) -> SplitHalf:
    """Estimate a perfect model's correlations from how many people's answers each score rests on.

    Of n answers, k of them "seen", the number of "seen" in a random half follows the hypergeometric
    distribution, so the answers themselves are split although only their sum is known. Drawing new
    answers from the shares instead would add the noise a second time.

    Args:
        records: the videos; those without a score are ignored.
        bootstrap: how often to resample the videos; 0 for no intervals.
        seed: for the splits and the resampling.
    """
    scored = [(r.score, r.n_annotations or 0) for r in records if r.score is not None]
    used = [(score, count) for score, count in scored if count >= 2]
    scores, counts = np.array([score for score, _ in used]), np.array([n for _, n in used], int)
    shares = scores * counts
    seen = np.rint(shares).astype(int)
    found = SplitHalf(
        n=len(used),
        left_out=len(scored) - len(used),
        answers=float(np.median(counts)) if used else None,
        inexact=int(np.sum(np.abs(shares - seen) > _WHOLE)),
    )
    if found.n < MIN_VIDEOS:
        few = f"{counted(found.n, 'video')} with two answers or more"
        return replace(found, undefined=f"{few}; a correlation needs {MIN_VIDEOS}")
    if found.inexact > _FEW_INEXACT * found.n:
        why = (
            f"{found.inexact} of {found.n} scores are not a share of their number of answers, as "
            "normalised ones are not; a manifest of the raw scores has a ceiling"
        )
        return replace(found, undefined=why)
    halves = list(_halves(seen, counts, np.random.default_rng(seed)))
    if any(not np.ptp(half) for pair in halves for half in pair):
        return replace(found, undefined=f"half the viewers score all {found.n} videos alike")
    return _completed(found, halves, bootstrap, seed)


def _halves(
    seen: NDArray[np.int_], counts: NDArray[np.int_], generator: np.random.Generator
) -> Iterator[Halves]:
    """Split every video's answers at random; yield the scores of both halves, each (videos,)."""
    for _ in range(RANDOM_SPLITS):
        # Of an odd number of answers, either half may get the larger part.
        size = (counts + generator.integers(2, size=len(counts))) // 2
        in_first = generator.hypergeometric(seen, counts - seen, size)
        yield in_first / size, (seen - in_first) / (counts - size)


def _completed(found: SplitHalf, halves: Sequence[Halves], bootstrap: int, seed: int) -> SplitHalf:
    once = np.ones((1, found.n))
    blocks = [once, *resamples(found.n, bootstrap, seed)]
    values: dict[str, Any] = {}
    measured = [[measure(*pair, block) for pair in halves] for block in blocks]
    for name in _CORRELATIONS:
        means = [np.mean([each[name] for each in block], axis=0) for block in measured]
        half, samples = float(means[0][0]), np.concatenate(means)[1:]
        bounds = interval(samples)
        values |= {
            f"half_{name}": half,
            f"reliability_{name}": _spearman_brown(half),
            name: _spearman_brown(half) ** 0.5,
            f"{name}_interval": bounds and tuple(_spearman_brown(each) ** 0.5 for each in bounds),
        }
    return replace(found, **values)


def _spearman_brown(half: float) -> float:
    """Return the reliability of all answers, from the correlation of their halves."""
    half = max(half, 0.0)
    return 2 * half / (1 + half)
