"""Every text tower of open_clip, with its pooled feature before or after the projection."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memfeat.devices import seeded
from memfeat.encoders import openclip_weights
from memfeat.encoders.openclip import load_weights, quick_gelu_of
from memfeat.encoders.openclip_weights import library, text_tensors
from memfeat.encoders.texts import TEXT_ENCODERS, TextFamily, TextTower
from memfeat.errors import EncoderError
from memfeat.registry import unknown_name

PREFIX = "text/"
PROJECTED = "+projection"
NO_IMAGES = {"image_size": 1, "patch_size": 1, "width": 64, "head_width": 64, "layers": 1}
AROUND = 2  # tokens that begin and end a text


@TEXT_ENCODERS.register("open_clip")
class OpenClipText(TextFamily):
    """The text tower of any model that `open_clip.list_models()` names, as `text/NAME`.

    `text/NAME+projection` is the feature after the projection into the space of images.
    """

    default_weights = "openai"
    prefix = PREFIX
    example = "text/ViT-L-14-336"

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return open_clip's model names, each with the prefix, and again with the projection."""
        models = [PREFIX + model for model in library().list_models()]
        return tuple(name + after for name in models for after in ("", PROJECTED))

    @staticmethod
    def locate(name: str, tag: str) -> Path | None:
        """Return the file of the weights; see `TextFamily.locate`."""
        return openclip_weights.locate(_model(name), tag)

    @staticmethod
    def build(name: str, weights: str, activation: str, seed: int) -> TextTower:
        """Build the text tower up to what it pools, or up to the projection.

        For CLIP's that is the end-of-text token after the last layer norm: 768 wide for
        ViT-L-14-336.
        """
        if name not in OpenClipText.names():
            raise unknown_name("text encoder", name, OpenClipText.names())
        model = _model(name)
        source = openclip_weights.source(model, weights, text_tensors)
        text = library().get_model_config(model)["text_cfg"]
        own = "hf_model_name" not in text  # others' have an activation of their own
        quick_gelu = quick_gelu_of(model, activation, source) if own else None
        count_tokens, tokenise, most_tokens = _tokeniser(name, model)
        tower = _tower(name, model, bool(quick_gelu), seed)
        known = load_weights(name, tower, source, activation, quick_gelu)
        if not name.endswith(PROJECTED):
            _cut_off(tower, own)
        with torch.inference_mode():
            dim = tower(**tokenise(["a"])).shape[1]
        return TextTower(
            **known,
            dim=dim,
            most_tokens=most_tokens,
            count_tokens=count_tokens,
            tokenise=tokenise,
            module=tower,
        )


def _model(name: str) -> str:
    return name.removeprefix(PREFIX).removesuffix(PROJECTED)


def _tower(name: str, model: str, quick_gelu: bool, seed: int) -> Any:
    """Build the text tower alone, with random weights: open_clip's own class, but no images."""
    config = library().get_model_config(model)
    text = {**config["text_cfg"], "hf_model_pretrained": False, "output_tokens": False}
    try:
        with seeded(seed):
            whole = library().CustomTextCLIP(
                config["embed_dim"], vision_cfg=NO_IMAGES, text_cfg=text, quick_gelu=quick_gelu
            )
    except (ImportError, OSError, RuntimeError) as error:  # where transformers or a file is missing
        raise _unavailable(name, "its architecture is of transformers", error) from error
    return whole.text.eval().requires_grad_(False)


def _cut_off(tower: Any, own: bool) -> None:
    """Take a tower's projection away, in place."""
    if own:
        tower.text_projection = None
    else:
        tower.proj = nn.Identity()


def _tokeniser(
    name: str, model: str
) -> tuple[Callable[[str], int], Callable[[Sequence[str]], Mapping[str, Tensor]], int]:
    """Return what counts a text's tokens, what makes a tower's arguments, and the most tokens."""
    try:
        tokenizer = library().get_tokenizer(model)
    except Exception as error:  # whatever transformers and the hub's client raise
        raise _unavailable(name, "its tokens are made by transformers", error) from error
    simple = isinstance(tokenizer, library().SimpleTokenizer)

    def count(text: str) -> int:
        if simple:
            return len(tokenizer.encode(text))
        return len(tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"])

    def tokenise(texts: Sequence[str]) -> dict[str, Tensor]:
        ids = tokenizer(list(texts))
        return {"x" if "hf_model_name" in text_config else "text": ids}

    text_config = library().get_model_config(model)["text_cfg"]
    return count, tokenise, tokenizer.context_length - AROUND


def _unavailable(name: str, what: str, error: Exception) -> EncoderError:
    reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return EncoderError(
        f"{name} cannot be built: {what}, which said: {reason}. pip install 'memfeat[text]', and "
        "let it reach the hub once; or choose an encoder such as text/ViT-L-14-336"
    )
