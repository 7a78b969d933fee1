"""What scoring videos would do, told without doing it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memfeat.config import PredictConfig
from memfeat.encoders import weights_at_hand
from memfeat.prediction.encoders import encoders_of
from memfeat.prediction.inputs import Input
from memfeat.prediction.parquet import scored_before
from memfeat.prediction.predictor import Predictor
from memfeat.prediction.raters import RatingPredictor


def plan_prediction(
    predictor: Predictor | RatingPredictor,
    videos: Sequence[Input],
    output: Path | None,
    config: PredictConfig,
) -> dict[str, Any]:
    """Tell what scoring videos would do. Nothing is written, and no encoder is loaded.

    Raises:
        RunError: a checkpoint is missing that a run's encoder came from.
        ConfigError, ManifestError: the table of scores that is there cannot be read.
    """
    done = scored_before(output, retry_failed=config.retry_failed) if output else set()
    pending = [video for video in videos if video.name not in done]
    plan: dict[str, Any] = {
        "videos": len(videos),
        "already_done": len(videos) - len(pending),
        "pending": [video.name for video in pending],
        "no_file": [v.name for v in pending if isinstance(v.path, Path) and not v.path.exists()],
        "device": predictor.device,
        "output": None if output is None else str(output),
    }
    if isinstance(predictor, Predictor) and not config.cache:
        plan["weights"] = "; ".join(
            f"{spec.encoder}: {weights_at_hand(spec.encoder, str(file or spec.weights))}"
            for spec, (_, file) in encoders_of(predictor.runs, config.weights).items()
        )
    return plan
