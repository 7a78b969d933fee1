"""Pipeline files: settings hold what the file says."""

import tomllib
from pathlib import Path
from typing import Any

from fuzzed import SOUND, WRONG, Files
from memfeat import config
from memfeat.cli.options import read_settings


def configs(folder: Path) -> Files:
    classes = {
        "extract": config.ExtractConfig,
        "train": config.TrainConfig,
        "ablation": config.AblationConfig,
        "finetune": config.FinetuneConfig,
        "transfer": config.TransferConfig,
    }
    for shipped in ("train.toml", "extract.toml", "demo.toml", "table1.toml", "demo-table2.toml"):
        path = folder / shipped
        path.write_bytes((Path("pipelines") / shipped).read_bytes())

        def read(damaged: bytes, path: Path = path) -> str:
            try:
                written = tomllib.loads(damaged.decode())
            except (ValueError, RecursionError):
                written = None
            for table, settings in classes.items():
                needed = (
                    {"manifest": "m.csv", "cache": "c"} if table in ("extract", "train") else {}
                )
                if written is None or table in written:
                    read_back = read_settings(settings, table, path, needed)
                    told = {**written[table], **needed} if written else {}
                    if written is None or not _as_told(read_back.model_dump(mode="json"), told):
                        return WRONG
            return SOUND

        yield path, read


def _as_told(values: dict[str, Any], told: dict[str, Any]) -> bool:
    """Whether settings hold what a file says, where both are plain."""
    plain = (str, int, float, bool)
    return all(
        str(values[name]) == str(value) or float(values[name]) == float(value)
        for name, value in told.items()
        if isinstance(value, plain) and isinstance(values[name], plain)
    )
