"""Manifests: which videos there are, in which split, with which score, and their checks."""

import hashlib
import json
import os
import statistics
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from memfeat.errors import ManifestError, counted, short_repr
from memfeat.storage import (
    AnyLocation,
    Location,
    Url,
    format_rows,
    is_url,
    location_of,
    parse_location,
    parse_number,
    read_rows,
    write_atomically,
)

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
JOINERS = "\u200c\u200d"
CAPTIONS = " | "  # between those of one video
MAX_ID_BYTES = 200  # a file named after an id stays below 255 bytes, suffix included


def _check_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8; save the file as UTF-8") from None
    if "\0" in value:
        raise ValueError("holds a NUL character; remove it")
    return value


def check_id(value: str) -> str:
    """Return an id, or raise ValueError with what is wrong with it."""
    if not value:
        raise ValueError("is empty; every video needs an id")
    if value in {".", ".."} or "/" in value or "\\" in value:
        raise ValueError("is not a plain name: ids hold no slashes; folders belong in `path`")
    # Nearly all ids are printable, which is quick to check and rules these categories out.
    if not value.isprintable() and any(
        unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value
    ):
        raise ValueError("holds a control character, a line break or a byte that is not UTF-8")
    if value != value.strip():
        raise ValueError("begins or ends with white space; remove it")
    if (size := len(value.encode())) > MAX_ID_BYTES:
        raise ValueError(f"is {size} bytes long; ids have at most {MAX_ID_BYTES}")
    return value


def _check_visible(value: str) -> str:
    """Refuse characters that nobody sees, but for the joiners that scripts and emoji need."""
    hidden = [each for each in value if unicodedata.category(each) == "Cf" and each not in JOINERS]
    if hidden:
        raise ValueError(f"holds the invisible character U+{ord(hidden[0]):04X}; remove it")
    return value


def folded_id(video_id: str) -> str:
    """Return an id without differences of case and Unicode form, which file systems may ignore."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", video_id).casefold())


def _absolute_path(value: Any, info: ValidationInfo) -> Any:
    """Join a relative path to the root that the reader passes as context."""
    if not isinstance(value, str):
        return value
    if not value or "\0" in value:
        raise ValueError("is not a path; name each video's file, relative to the manifest")
    if is_url(value):
        return parse_location(value)
    found = (info.context or {}).get("root", Path()) / value
    return Path(os.path.normpath(found)) if isinstance(found, Path) else found


def _parse_score(value: Any) -> float | None:
    if value is None or value == "":
        return None
    allowed = "a score is a number in [0, 1], or empty if withheld"
    try:
        number = parse_number(str(value))
    except ValueError:
        comma = isinstance(value, str) and value.count(",") == 1
        hint = "; write a decimal point, not a comma" if comma else ""
        raise ValueError(f"is not a number; {allowed}{hint}") from None
    if not 0 <= number <= 1:
        hint = "; looks like a 0-100 scale: divide by 100" if 1 < number <= 100 else ""
        raise ValueError(f"is not in [0, 1]; {allowed}{hint}")
    return number


def _join_captions(value: Any) -> Any:
    """Join the captions of a column that repeats, or of a JSON list."""
    if isinstance(value, list):
        return CAPTIONS.join(str(each).strip() for each in value if each not in (None, ""))
    return value


Text = Annotated[str, AfterValidator(_check_text)]
Score = Annotated[float | None, BeforeValidator(_parse_score)]


class VideoRecord(BaseModel):
    """One video of a manifest.

    Attributes:
        video_id: plain name, unique in its manifest: no slashes, no control or invisible
            characters, at most 200 bytes of UTF-8.
        path: the video file; absolute, or a URL, once read.
        score: memorability in [0, 1], the share of viewers who recognise the video when they see
            it again (paper, section 1); None where it is withheld.
        split: `train`, `dev` or `test`.
        dataset: where the scores come from, in words; every table and figure repeats it.
        n_annotations: how many people's answers the score is the share of.
        noise_free_score: the score before noise, in [0, 1]; only simulations have it.
        caption: a sentence about the video, or several with ` | ` between them.
        title: what it is called.
        description: what is said of it, such as beside it on the web.
        transcript: what is said in it.
        group: a name shared by videos cut from one source; a group should not span splits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    video_id: Annotated[str, AfterValidator(check_id), AfterValidator(_check_visible)]
    path: Annotated[Path | Url, BeforeValidator(_absolute_path)]
    score: Score
    split: Split
    dataset: Text = ""
    n_annotations: int | None = Field(None, ge=0, lt=10**9)
    noise_free_score: Score = None
    caption: Annotated[Text, BeforeValidator(_join_captions)] = ""
    title: Text = ""
    description: Text = ""
    transcript: Text = ""
    group: Text = ""


COLUMNS = tuple(VideoRecord.model_fields)
TEXT_COLUMNS = ("caption", "title", "description", "transcript")
REQUIRED = tuple(name for name, field in VideoRecord.model_fields.items() if field.is_required())
OPTIONAL = tuple(name for name in COLUMNS if name not in REQUIRED)


@dataclass(frozen=True)
class SplitSummary:
    """One split in numbers; `mean_score` is None where no score is known."""

    split: Split
    videos: int
    with_score: int
    withheld: int
    missing_files: int
    mean_score: float | None


@dataclass(frozen=True)
class ManifestSummary:
    """The output of `memfeat manifest check`: a row per split, the sources, and warnings."""

    splits: tuple[SplitSummary, ...]
    datasets: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """A manifest that passed every check; its records are in the order of the file."""

    path: Location
    records: tuple[VideoRecord, ...]

    def of_split(self, split: Split) -> tuple[VideoRecord, ...]:
        """Return the records of one split, in order."""
        return tuple(record for record in self.records if record.split == split)

    @cached_property
    def by_id(self) -> dict[str, VideoRecord]:
        """Every record under its id, in order."""
        return {record.video_id: record for record in self.records}

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """The distinct sources of the scores, in order of appearance."""
        return tuple(dict.fromkeys(record.dataset for record in self.records if record.dataset))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ids, splits and scores, in order; independent of where the videos are."""
        content = [[record.video_id, record.split, record.score] for record in self.records]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def summary(self) -> ManifestSummary:
        """Count each split, check that its files exist, and collect warnings."""
        warnings = list(_warnings_across(self.records))
        splits = []
        for split in SPLITS:
            records = self.of_split(split)
            scores = [record.score for record in records if record.score is not None]
            local = [record.path for record in records if isinstance(record.path, Path)]
            missing = [path for path in local if not path.exists()]
            row = SplitSummary(
                split=split,
                videos=len(records),
                with_score=len(scores),
                withheld=len(records) - len(scores),
                missing_files=len(missing),
                mean_score=statistics.fmean(scores) if scores else None,
            )
            splits.append(row)
            warnings += _warnings_within(row, scores, missing)
            if remote := len(records) - len(local):
                warnings.append(f"{split}: {counted(remote, 'remote video')} not looked for")
        return ManifestSummary(tuple(splits), self.datasets, tuple(warnings))


def read_manifest(path: AnyLocation, root: AnyLocation | None = None) -> Manifest:
    """Read and check a manifest: CSV, or `.tsv` or `.jsonl` by its suffix; UTF-8, BOM or not.

    Examples:
        >>> import memfeat
        >>> manifest = memfeat.read_manifest("mine.csv")
        >>> len(manifest.records), len(manifest.of_split("dev"))
        (14, 4)

    Args:
        path: the file, or its URL. Its columns are all of `REQUIRED` and any of `OPTIONAL`; an
            empty cell is an unknown value.
        root: folder that relative video paths start from; by default the manifest's own.

    Raises:
        ManifestError: the first problem in one line, and how many more there are.
    """
    path = location_of(path)
    records, problems = _read(path, root if root is None else location_of(root))
    if problems:
        more = len(problems) - 1
        hint = f" ({more} more: `memfeat manifest check` lists them)" if more else ""
        raise ManifestError(problems[0] + hint)
    return Manifest(path, records)


def find_problems(path: Location, root: Location | None = None) -> tuple[str, ...]:
    """Return every problem of a manifest file, one line each, in the order of the file."""
    return _read(path, root)[1]


def write_manifest(path: Path, records: Sequence[VideoRecord]) -> None:
    """Write records as CSV, `.tsv` or `.jsonl`, atomically; an identical file is not touched.

    Video paths become relative to the manifest's folder, with forward slashes; URLs are kept.
    Optional columns that no record fills are left out. The same records give the same bytes.

    Raises:
        ManifestError: no records, or records that may not be in one manifest.
        OSError: the file cannot be written.
    """
    if not records:
        raise ManifestError(f"{path} not written: there are no records; give at least one")
    for _, problem in _clashes(list(enumerate(records, 2))):
        raise ManifestError(f"{path} not written: {problem}")
    folder, resolve = path.parent.resolve(), cache(Path.resolve)
    rows = []
    for record in records:
        row = {name: getattr(record, name) for name in COLUMNS}
        row["path"] = str(record.path)
        if isinstance(record.path, Path):
            video = resolve(record.path.parent) / record.path.name
            row["path"] = Path(os.path.relpath(video, folder)).as_posix()
        rows.append(row)
    filled = [name for name in OPTIONAL if any(row[name] not in ("", None) for row in rows)]
    content = format_rows(path, [*REQUIRED, *filled], rows)
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)


def _read(path: Location, root: Location | None) -> tuple[tuple[VideoRecord, ...], tuple[str, ...]]:
    """Return the valid records, and all problems in the order of their lines."""
    folder = root or path.parent
    context = {"root": folder.resolve() if isinstance(folder, Path) else folder}
    records: list[tuple[int, VideoRecord]] = []
    problems: list[tuple[int, str]] = []
    line = 0
    try:
        for line, row in read_rows(path, REQUIRED, OPTIONAL, repeatable=("caption",)):
            known = {n: v for n, v in row.items() if n in REQUIRED or v not in ("", None)}
            try:
                records.append((line, VideoRecord.model_validate(known, context=context)))
            except ValidationError as error:
                problems += [
                    (line, f"{path}, line {line}, column {field}: {reason}")
                    for field, reason in explain(error)
                ]
        if not line:
            raise ManifestError(f"{path} holds no videos; write a header and a line for each")
    except ManifestError as error:
        problems.append((line + 1, str(error)))
    problems += [(line, f"{path}, {problem}") for line, problem in _clashes(records)]
    problems.sort(key=lambda problem: problem[0])
    return tuple(record for _, record in records), tuple(problem for _, problem in problems)


def explain(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Turn pydantic's errors about a record into (field, the value and what is wrong with it)."""
    for problem in error.errors(include_url=False):
        reason = problem["msg"]
        if problem["type"] == "value_error":
            reason = reason.removeprefix("Value error, ")
        elif problem["type"] == "literal_error":
            reason = f"is not a split; write one of: {', '.join(SPLITS)}"
        else:
            reason = f"is not allowed: {reason[0].lower()}{reason[1:]}"
        yield str(problem["loc"][0]), f"{short_repr(problem['input'])} {reason}"


def _clashes(records: Sequence[tuple[int, VideoRecord]]) -> Iterator[tuple[int, str]]:
    """Find records that may not be in one manifest: equal ids, and a file in two splits."""
    ids: dict[str, tuple[int, str]] = {}
    splits: dict[str, tuple[int, str]] = {}
    for line, record in records:
        name = record.video_id
        first, twin = ids.setdefault(folded_id(name), (line, name))
        if first != line:
            why = f"{short_repr(name)} repeats line {first}"
            if name != twin:
                why = f"{name!a} differs from {twin!a} on line {first} only in case or Unicode form"
            yield line, f"line {line}, column video_id: {why}; ids are unique"
        first, split = splits.setdefault(str(record.path), (line, record.split))
        if split != record.split:
            why = f"is in split {record.split}, and on line {first} in {split}; a video has one"
            yield line, f"line {line}, column path: {short_repr(str(record.path))} {why}"


def _warnings_within(
    row: SplitSummary, scores: Sequence[float], missing: Sequence[Path]
) -> Iterator[str]:
    if not row.videos:
        yield f"{row.split}: no videos"
    elif row.with_score < 3:
        yield f"{row.split}: {counted(row.with_score, 'video')} with a score; a correlation needs 3"
    elif len(set(scores)) == 1:
        yield f"{row.split}: every score is {scores[0]}; correlations are undefined"
    if row.split == "train" and row.withheld:
        yield f"train: {counted(row.withheld, 'video')} without a score, left out of training"
    if missing:
        yield (
            f"{row.split}: {counted(len(missing), 'missing file')}, the first "
            f"{short_repr(str(missing[0]))}"
        )


def _warnings_across(records: Sequence[VideoRecord]) -> Iterator[str]:
    files: dict[str, list[str]] = {}
    for record in records:
        files.setdefault(str(record.path), []).append(record.video_id)
    shared = [ids for ids in files.values() if len(ids) > 1]
    if shared:
        first = " and ".join(map(short_repr, shared[0][:2]))
        yield f"{counted(len(shared), 'file is', 'files are')} several videos each, {first} first"
    yield from leaks("group", ((record.group, record) for record in records if record.group))


def leaks(what: str, named: Iterable[tuple[str, VideoRecord]]) -> Iterator[str]:
    """Warn in one line of names, such as of groups, whose videos are in more than one split."""
    videos: dict[str, dict[Split, str]] = {}
    for name, record in named:
        videos.setdefault(name, {}).setdefault(record.split, record.video_id)
    across = [splits for splits in videos.values() if len(splits) > 1]
    if across:
        where = " and ".join(
            f"{short_repr(video)} in {split}" for split, video in across[0].items()
        )
        yield (
            f"{counted(len(across), what)} in more than one split, {where} first: "
            "what is learnt of one video gives the others away"
        )
