"""Settings of finetuning I3D, of which the paper gives nothing but the results."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from memfeat.config.settings import LocalPath, Settings
from memfeat.config.train import Monitor
from memfeat.storage import Location


class FinetuneConfig(Settings):
    """I3D trained end to end: which videos, from which weights, and how. All defaults are ours."""

    manifest: Location = Field(description="videos, splits and scores")
    root: Location | None = Field(
        None, description="folder that the manifest's paths start from [the manifest's own]"
    )
    run: LocalPath = Field(Path("runs/finetune"), description="folder the result goes to")
    weights: str = Field(description="to start from: an I3D checkpoint file, or `random`")
    image_size: int = Field(
        224, ge=32, le=1024, description="pixels a side; less than 224 for trials (ours)"
    )
    batch_size: int = Field(8, ge=1, le=1024, description="videos per step, a clip of each (ours)")
    learning_rate: float = Field(1e-4, gt=0, description="Adam's rate in the first epoch (ours)")
    learning_rate_decay: float = Field(
        0.95, gt=0, le=1, description="factor every so many epochs (ours)"
    )
    decay_every_epochs: int = Field(5, ge=1, description="epochs between two decays (ours)")
    weight_decay: float = Field(0.0, ge=0, description="Adam's (ours)")
    dropout: float = Field(0.5, ge=0, lt=1, description="before the last layer (I3D's own)")
    max_epochs: int = Field(100, ge=1, description="epochs at most (ours)")
    patience_epochs: int = Field(
        5, ge=1, description="stop after so many without improvement (ours)"
    )
    monitor: Monitor = Field("l1", description="what improvement means, on the dev split (ours)")
    freeze_batch_norm: bool | None = Field(
        None, description="keep batch norms' statistics [yes, unless from random weights] (ours)"
    )
    gradient_checkpointing: bool | None = Field(
        None, description="less memory for more time, same gradients [on a GPU] (ours)"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: float32 on a CPU, bfloat16 autocast on a GPU (ours)"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of new weights, clips, order and dropout")
    bootstrap: int = Field(1000, ge=0, description="resamples per interval; 0 for none (ours)")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1")
    decoders: int = Field(2, ge=1, description="videos decoded at once")
    limit: int | None = Field(None, ge=1, description="only the first so many videos")
    max_frames: int | None = Field(None, ge=1, description="only each video's first so many frames")
