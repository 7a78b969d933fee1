"""Where a timm model's weights come from, and what timm records about them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memfeat.encoders import hub
from memfeat.encoders.checkpoints import SUFFIXES, means_file
from memfeat.encoders.family import RANDOM, UNTRAINED
from memfeat.encoders.timm_tags import trained_on
from memfeat.errors import EncoderError, UnknownNameError

PREFIX = "timm/"  # many of timm's names are open_clip's too, or nearly
DEFAULT = "default"
FILES = ("model.safetensors", "pytorch_model.bin")  # in the order that timm tries them
QUICK_GELU_NOTE = "natively QuickGELU"


@dataclass(frozen=True)
class Weights:
    """Weights, and what timm records about them.

    Attributes:
        label: tag, `file:NAME` or `random`.
        trained_on: in words.
        record: timm's `PretrainedCfg`, such as image size, mean and std; of the model's default
            weights where these have none of their own.
        path: of a checkpoint file given by the user.
    """

    label: str
    trained_on: str
    record: Any
    path: Path | None = None


def library() -> Any:
    """Import timm on first use: it takes seconds, and other encoders need none of it."""
    import timm  # noqa: PLC0415

    return timm


def locate(name: str, tag: str) -> Path | None:
    """Return the file of a tag's weights in the hub's cache if it is there. Touches no network."""
    known = records(name)
    record = known.get(next(iter(known), "") if tag == DEFAULT else tag)
    return hub.cached(record.hf_hub_id, FILES) if record and record.hf_hub_id else None


def records(name: str) -> dict[str, Any]:
    """Return what timm records of each of a model's published weights, by tag, its own first."""
    known = library().models.get_arch_pretrained_cfgs(name.removeprefix(PREFIX))
    return {record.tag: record for record in known.values() if record.has_weights}


def made_for_quick_gelu(name: str) -> set[str]:
    """Return the tags whose weights were trained with QuickGELU, as timm notes."""
    return {tag for tag, record in records(name).items() if QUICK_GELU_NOTE in str(record.notes)}


def find(name: str, weights: str) -> Weights:
    """Find out about weights given by tag, by path, or as `random`; nothing is loaded yet.

    Raises:
        UnknownNameError: neither a tag of this model nor a file nor `random`.
        EncoderError: the description beside a file cannot be read.
    """
    known = records(name)
    default = library().get_pretrained_cfg(name.removeprefix(PREFIX))
    if weights == RANDOM:
        return Weights(RANDOM, UNTRAINED, default)
    tag = next(iter(known), DEFAULT) if weights == DEFAULT else weights
    if tag in known:
        return Weights(tag, trained_on(tag), known[tag])
    if means_file(weights):
        path = Path(weights).expanduser()
        record = _described(path, default)
        return Weights(f"file:{path.name}", "not stated: a checkpoint file", record, path)
    raise UnknownNameError(
        f"{name} has no weights {weights!r}; timm knows for it: {', '.join(known) or 'none'}. "
        f"Give one of these, the path of a checkpoint ({', '.join(SUFFIXES)}), or {RANDOM} for "
        "features without learned content"
    )


def _described(path: Path, default: Any) -> Any:
    """Take image size, mean and std from the description that timm publishes beside a file."""
    card = path.with_name("config.json")
    if not card.is_file():
        return default
    try:
        content = json.loads(card.read_text(encoding="utf-8")).get("pretrained_cfg", {})
        fields = ("input_size", "mean", "std")
        return replace(default, **{key: tuple(content[key]) for key in fields if key in content})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise EncoderError(
            f"{card} is not timm's description of a model ({error!r}); mend or remove it"
        ) from error


def file_of(name: str, found: Weights) -> Path:
    """Return the file of a tag's weights, downloaded into the hub's cache if it is not there.

    Raises:
        EncoderError: it cannot be had.
    """
    there = locate(name, found.label)
    if there:
        return there
    repository = found.record.hf_hub_id
    if not repository:
        raise EncoderError(
            f"{name}'s weights {found.label!r} are not on the hub; download {found.record.url} and "
            "give its path as --weights"
        )
    wanted = f"{FILES[0]} of {repository}"
    return hub.fetch(name, found.label, wanted, lambda: hub.download(repository, FILES))
