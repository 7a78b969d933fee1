"""The settings of every command, with their defaults.

The defaults are the paper's recipe (Agarla et al. 2022, section 3); where the paper is silent the
field's description says "ours". A pipeline file is TOML with a table for each command, such as
`[extract]` and `[train]`; a command reads its own table, and its flags override it.
"""

from memfeat.config.extract import (
    EVERY_REASON,
    MAX_PIXELS,
    TEXT_PREFIXES,
    UNTAGGED_HD,
    CacheCompareConfig,
    ConvertConfig,
    ExtractConfig,
    ImportConfig,
    OnPartial,
    PlanConfig,
    Resize,
    Tokens,
    count_tokens,
    token_grid,
)
from memfeat.config.grids import (
    AblationConfig,
    AblationRow,
    CacheRecipe,
    Ensemble,
    PaperFigures,
    TransferConfig,
    TransferDataset,
    TransferFigures,
)
from memfeat.config.predict import (
    READY,
    CompareConfig,
    PredictConfig,
    ScoringConfig,
    ServeConfig,
    is_ready,
)
from memfeat.config.settings import (
    Missing,
    Printed,
    Seeds,
    Settings,
    build,
    given,
    parse_seeds,
    read_pipeline,
    read_settings,
)
from memfeat.config.train import (
    FinetuneConfig,
    Loss,
    Monitor,
    TrainConfig,
    aggregator_names,
    cache_names,
)
from memfeat.manifest import Split

__all__ = [
    "EVERY_REASON",
    "MAX_PIXELS",
    "READY",
    "TEXT_PREFIXES",
    "UNTAGGED_HD",
    "AblationConfig",
    "AblationRow",
    "CacheCompareConfig",
    "CacheRecipe",
    "CompareConfig",
    "ConvertConfig",
    "Ensemble",
    "ExtractConfig",
    "FinetuneConfig",
    "ImportConfig",
    "Loss",
    "Missing",
    "Monitor",
    "OnPartial",
    "PaperFigures",
    "PlanConfig",
    "PredictConfig",
    "Printed",
    "Resize",
    "ScoringConfig",
    "Seeds",
    "ServeConfig",
    "Settings",
    "Split",
    "Tokens",
    "TrainConfig",
    "TransferConfig",
    "TransferDataset",
    "TransferFigures",
    "aggregator_names",
    "build",
    "cache_names",
    "count_tokens",
    "given",
    "is_ready",
    "parse_seeds",
    "read_pipeline",
    "read_settings",
    "token_grid",
]
