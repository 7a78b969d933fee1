"""The models of one run, applied to batches of encoded videos."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from memfeat.cache import CacheSpec
from memfeat.models import AGGREGATORS, Padded
from memfeat.runs import Run


class Scores(NamedTuple):
    """Scores of clips.

    Attributes:
        by_run: for each run float64 (seeds, clips).
        weights: float64 (time,), of the first clip's first stream, the mean over seeds; None if
            there are none.
    """

    by_run: list[NDArray[np.float64]]
    weights: NDArray[np.float64] | None

    @property
    def run_means(self) -> NDArray[np.float64]:
        """Each run's scores, (runs, clips)."""
        return np.stack([scores.mean(0) for scores in self.by_run])

    @property
    def mean(self) -> NDArray[np.float64]:
        """The scores, (clips,)."""
        mean: NDArray[np.float64] = self.run_means.mean(0)
        return mean

    @property
    def spread(self) -> float | None:
        """The first clip's standard deviation over runs, or over the only run's seeds."""
        several = (self.by_run[0] if len(self.by_run) == 1 else self.run_means)[:, 0]
        return float(several.std(ddof=1)) if len(several) > 1 else None


class RunModels:
    """The models of one run, on a device.

    Attributes:
        streams: which of the specs each of the run's streams is of.
        familiar: what its training videos are like, if that is known.
    """

    def __init__(self, run: Run, specs: Sequence[CacheSpec], device: str) -> None:
        self.streams = [specs.index(spec) for spec in run.specs]
        self.familiar = run.familiar()
        self._columns = [
            spec.width if AGGREGATORS.get(name).of_tokens else spec.dim
            for name, spec in zip(run.config.aggregator, run.specs, strict=True)
        ]
        self._regressors = [model.to(device) for model in run.regressors()]

    def digest(self) -> bytes:
        """Return a hash of all weights."""
        digest = hashlib.sha256()
        for regressor in self._regressors:
            for name, value in regressor.state_dict().items():
                digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.digest()

    @torch.inference_mode()
    def score(
        self, clips: Sequence[Sequence[Tensor]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return scores (seeds, clips), and the first clip's weights (time,) of the first spec.

        The weights are the mean over seeds.
        """
        streams = []
        for stream, columns in zip(self.streams, self._columns, strict=True):
            frames = [clip[stream][:, :columns] for clip in clips]
            lengths = torch.tensor([len(each) for each in frames])
            streams.append(Padded(pad_sequence(frames, batch_first=True), lengths))
        predictions = [regressor(*streams) for regressor in self._regressors]
        scores = np.stack([_numpy(prediction.scores) for prediction in predictions])
        first = self.streams.index(0) if 0 in self.streams else 0
        found = [weights for p in predictions if (weights := p.weights[first]) is not None]
        if not found:
            return scores, None
        return scores, np.stack([_numpy(weights[0]) for weights in found]).mean(0)


def _numpy(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
