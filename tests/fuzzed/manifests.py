"""Manifests: what is read is what the standard library reads, and obeys the rules."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from fuzzed import REFUSED, SOUND, WRONG, Files, check_line, check_result
from memfeat.cli import main
from memfeat.manifest import VideoRecord, read_manifest, write_manifest

RECORDS = [
    {
        "video_id": f"v {i}",
        "path": f"clips/v{i}.mp4",
        "score": i / 20,
        "split": ("train", "dev", "test")[i % 3],
        "dataset": "made up",
        "n_annotations": 7 * i,
        "caption": f"a cat, number {i}; é",
    }
    for i in range(12)
]


def manifests(folder: Path) -> Files:
    runner = CliRunner()
    for suffix in (".csv", ".tsv", ".jsonl"):
        path = folder / f"m{suffix}"
        made = [VideoRecord(**{**row, "path": folder / str(row["path"])}) for row in RECORDS]
        write_manifest(path, made)

        def read(damaged: bytes, path: Path = path) -> str:
            result = runner.invoke(main, ["manifest", "check", str(path)])
            check_result(result)
            if result.exit_code:
                for line in result.stdout.splitlines():
                    check_line(line)
                return REFUSED
            found = [_as_text(record) for record in read_manifest(path).records]
            return SOUND if found == _manifest_rows(damaged, path) and _obey(found) else WRONG

        yield path, read


def _as_text(record: Any) -> tuple[Any, ...]:
    return record.video_id, record.path.name, record.score, record.split


def _manifest_rows(damaged: bytes, path: Path) -> list[tuple[Any, ...]]:
    """The rows as the standard library reads them."""
    text = damaged.decode("utf-8-sig", "surrogateescape")
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    return [
        (
            row["video_id"],
            Path(row["path"]).name,
            None if row["score"] in ("", None) else float(row["score"]),
            row["split"],
        )
        for row in rows
    ]


def _obey(rows: list[tuple[Any, ...]]) -> bool:
    ids = [row[0] for row in rows]
    return len(set(ids)) == len(ids) and all(
        "/" not in video_id
        and (score is None or 0 <= score <= 1)
        and split in ("train", "dev", "test")
        for video_id, _, score, split in rows
    )
