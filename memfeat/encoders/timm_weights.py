"""The weights of timm's models: where they come from, and what timm records about them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memfeat.encoders import hub
from memfeat.encoders.checkpoints import means_file, weights_path
from memfeat.encoders.family import RANDOM, UNSTATED, UNTRAINED
from memfeat.errors import EncoderError

PREFIX = "timm/"  # many of timm's names are open_clip's too, or nearly
DEFAULT = "default"
FILES = ("model.safetensors", "pytorch_model.bin")  # in the order that timm tries them
STATE_DICTS = ("state_dict_ema", "model_ema", "state_dict", "model")  # likewise
CLASSES = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
}
TEXT = (
    "openai laion2b laion400m laiona datacomp1b datacompxl dfn2b dfn5b dfndr2b metaclip metaclip2 "
    "mclip mclip2 webli cc12m yfcc15m"
)
# Recipes, makers, sizes and durations of training to classify, which say nothing of other data.
RECIPES = (
    "ft augreg augreg2 orig ra ra2 ra3 ra4 a1 a1h a2 a2h a3 ah am ram ad ap aa bt b1k b2k c c1 c2 "
    "c3 ch d d1 d1h d2 agc rmsp lamb adv dist distilled deit rsb tv tv2 tf gluon goog fb ms msft "
    "sw miil pycls rvgg nav nv mx bd naver apple paddle snap sail cvnets sbb sbb2 usi lion "
    "nadamuon racm e150 e200 e250 e300 e450 e500 e600 e1200 e2400 e3000 e3600 300e 450e "
    "r160 r208 r224 r240 r256 r288 r320 r384 r448 r512 288 320 384 475 512"
)


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


def tags(name: str) -> tuple[str, ...]:
    """Return the weights that timm knows for a model, its default ones first."""
    return tuple(records(name))


def records(name: str) -> dict[str, Any]:
    """Return what timm records of each of a model's published weights, by tag, its own first."""
    known = library().models.get_arch_pretrained_cfgs(name.removeprefix(PREFIX))
    return {record.tag: record for record in known.values() if record.has_weights}


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
        path = weights_path(weights)
        record = _described(path, default)
        return Weights(f"file:{path.name}", UNSTATED, record, path)
    raise hub.unknown_weights(name, weights, "timm", known)


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


def trained_on(tag: str) -> str:
    """Say in words what weights were trained on, as far as their tag says it.

    Classification is claimed only where every part of the tag is known: the others stand for
    training without labels, on labels of another kind, or by distilling them.

    Examples:
        >>> trained_on("augreg_in21k_ft_in1k")
        'ImageNet-21k, then ImageNet-1k classification'
        >>> trained_on("laion2b_ft_in1k")
        'image-text pairs, then ImageNet-1k classification'
        >>> trained_on("mae")
        'see the tag mae in timm'
    """
    marks, text = tag.split("_"), set(TEXT.split())
    stages = ["image-text pairs"] if text.intersection(marks) else []
    classes = [CLASSES[mark] for mark in marks if mark in CLASSES]
    if classes and text.union(CLASSES, RECIPES.split()).issuperset(marks):
        return ", then ".join([*stages, *classes]) + " classification"
    understood = stages and not classes and "ft" not in marks
    return stages[0] if understood else f"see the tag {tag} in timm"
