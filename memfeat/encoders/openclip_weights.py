"""The weights of open_clip's models: where they come from, and how they were trained."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from memfeat.encoders import hub
from memfeat.encoders.checkpoints import means_file, read_checkpoint, weights_path
from memfeat.encoders.family import RANDOM, UNSTATED, UNTRAINED
from memfeat.errors import EncoderError

OPENAI_MARKS = {"input_resolution", "context_length", "vocab_size"}  # in its state dicts alone
TOWER = "visual."  # what the names of the image tower's tensors begin with
TEXT_TOWER = "text."  # and those of the text tower, where they are kept apart from the rest
NO_TOWER = {"logit_scale", "logit_bias", *OPENAI_MARKS}

Channels = tuple[float, float, float]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    """Weights, and what is known about them.

    Attributes:
        label: tag, `file:NAME` or `random`.
        trained_on: in words.
        mean, std: per channel, for pixels in [0, 1].
        quick_gelu: whether they were trained with QuickGELU; None if nothing says so.
        evidence: what says so, in words.
        origin: where they come from, in words.
        load: returns one tower's tensors by name; None for random weights.
    """

    label: str
    trained_on: str
    mean: Channels
    std: Channels
    quick_gelu: bool | None = None
    evidence: str = ""
    origin: str = ""
    load: Callable[[], dict[str, Tensor]] | None = None


def library() -> Any:
    """Import open_clip on first use: it takes seconds, and other encoders need none of it."""
    import open_clip  # noqa: PLC0415

    return open_clip


def plain(name: str) -> str:
    """Return a model's name without `-quickgelu`: the same architecture but for the activation."""
    return name.removesuffix("-quickgelu")


def tags(name: str) -> tuple[str, ...]:
    """Return the weights that open_clip knows for a model, plain or `-quickgelu`."""
    return tuple(library().list_pretrained_tags_by_model(plain(name)))


def locate(name: str, tag: str) -> Path | None:
    """Return the weights' file in the hub's cache if it is there. Touches no network."""
    return hub.cached(*_hub_files(_tag_config(name, tag)))


def image_tensors(tensors: Mapping[str, Tensor]) -> Tensors:
    """Keep the image tower's tensors; a file without any by that name may hold nothing else."""
    image = {
        name.removeprefix(TOWER): value for name, value in tensors.items() if name.startswith(TOWER)
    }
    return image or dict(tensors)


def text_tensors(tensors: Mapping[str, Tensor]) -> Tensors:
    """Keep the text tower's tensors: those called so, or else all but the image tower's."""
    text = {
        name.removeprefix(TEXT_TOWER): value
        for name, value in tensors.items()
        if name.startswith(TEXT_TOWER) and not name.endswith(".position_ids")  # as of old
    }
    rest = {n: v for n, v in tensors.items() if not n.startswith(TOWER) and n not in NO_TOWER}
    return text or rest


def source(
    name: str, weights: str, tower: Callable[[Mapping[str, Tensor]], Tensors] = image_tensors
) -> Source:
    """Find out about weights given by tag, by path, or as `random`.

    A tag's file is taken from the hub's cache, or downloaded there, once its tensors are loaded;
    `tower` picks some of them.

    Raises:
        UnknownNameError: neither a tag of this model nor a file nor `random`.
        EncoderError: the file cannot be read; when loading also: it cannot be had.
    """
    if weights == RANDOM:
        return Source(RANDOM, UNTRAINED, *_normalisation(name))
    if _tag_config(name, weights):
        return _from_tag(name, weights, tower)
    if means_file(weights):
        return _from_file(name, weights_path(weights), tower)
    raise hub.unknown_weights(name, weights, "open_clip", tags(name))


def _from_tag(name: str, tag: str, tower: Callable[[Mapping[str, Tensor]], Tensors]) -> Source:
    config = _tag_config(name, tag)
    tag = tag.lower().replace("-", "_")  # as open_clip reads it
    # The table is silent where the model's plain configuration has QuickGELU already.
    silent = (library().get_model_config(plain(name)) or {}).get("quick_gelu", False)
    openai = "CLIP, OpenAI's image-text pairs"
    return Source(
        label=tag,
        trained_on=openai if tag == "openai" else f"image-text pairs ({tag})",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        quick_gelu=bool(config.get("quick_gelu", silent)),
        evidence=f"open_clip's record of the weights {tag!r}",
        origin=f"the file of the weights {tag!r}",
        load=lambda: tower(_read(locate(name, tag) or _download(name, tag))),
    )


def _from_file(name: str, path: Path, tower: Callable[[Mapping[str, Tensor]], Tensors]) -> Source:
    """Read a checkpoint, and look for evidence of how it was trained, the surest first."""
    tensors = _read(path)
    trained_on, quick_gelu, evidence = UNSTATED, None, ""
    mean, std = _normalisation(name)
    config = path.with_name("open_clip_config.json")
    if tensors.keys() >= OPENAI_MARKS:
        trained_on = f"{UNSTATED} in OpenAI's CLIP format"
        mean, std = library().OPENAI_DATASET_MEAN, library().OPENAI_DATASET_STD
        quick_gelu, evidence = True, f"the format of {path.name}, OpenAI's own,"
    elif config.is_file():
        model, preprocessing = _model_card(config)
        mean = tuple(preprocessing.get("mean", mean))
        std = tuple(preprocessing.get("std", std))
        quick_gelu, evidence = bool(model.get("quick_gelu", False)), f"{config.name} beside it"
    return Source(
        label=f"file:{path.name}",
        trained_on=trained_on,
        mean=mean,
        std=std,
        quick_gelu=quick_gelu,
        evidence=evidence,
        origin=str(path),
        load=lambda: tower(tensors),
    )


def _model_card(config: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the file that open_clip puts beside a checkpoint when it publishes one."""
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        return dict(content["model_cfg"]), dict(content.get("preprocess_cfg", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"{config} is not open_clip's description of a model ({error!r}); mend or remove it"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint; of several state dicts the one that open_clip loads.

    Raises:
        EncoderError: as `read_checkpoint`; or it holds several image towers.
    """
    tensors = read_checkpoint(path, ("state_dict",))
    other = next((name for name in tensors if f".{TOWER}" in name), None)
    if other and any(name.startswith(TOWER) for name in tensors):
        raise EncoderError(
            f"{path} holds several models, one with {other!r}; save the right one's state dict to "
            "a file of its own"
        )
    return tensors


def _normalisation(name: str) -> tuple[Channels, Channels]:
    """Return the mean and std that all known weights of a model share, or else CLIP's."""
    configs = [_tag_config(name, tag) for tag in tags(name)]
    known = {(tuple(config["mean"]), tuple(config["std"])) for config in configs}
    clip = (library().OPENAI_DATASET_MEAN, library().OPENAI_DATASET_STD)
    mean, std = known.pop() if len(known) == 1 else clip
    return mean, std


def _tag_config(name: str, tag: str) -> dict[str, Any]:
    return dict(library().get_pretrained_cfg(plain(name), tag))


def _hub_files(config: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the hub's repository and its file names in the order that open_clip tries them."""
    repository, _, file = config.get("hf_hub", "").rpartition("/")
    if not repository:
        return "", ()
    if file:
        return repository, (str(Path(file).with_suffix(".safetensors")), file)
    names = library().constants
    return repository, (names.HF_SAFE_WEIGHTS_NAME, names.HF_WEIGHTS_NAME)


def _download(name: str, tag: str) -> Path:
    config = _tag_config(name, tag)
    repository, files = _hub_files(config)
    wanted = f"{files[0]} of {repository}" if files else config.get("url", tag)
    return hub.fetch(name, tag, wanted, lambda: library().download_pretrained(config))
