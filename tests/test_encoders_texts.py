"""open_clip's text towers against open_clip's own `encode_text` and pooled state."""

import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional
from towers import tiny_models

from memfeat.encoders import create_text_encoder, is_text_encoder, text_encoder_names
from memfeat.errors import ConfigError, EncoderError, UnknownNameError

TINY, QUICK = "ViT-tiny-words", "ViT-tiny-words-quickgelu"
VARIANTS = {"coca": {"embed_cls": True}, "open": {"no_causal_mask": True, "proj_bias": True}}
MARKS = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
TEXTS = ["a dog runs along a beach", "Zwei Schlüssel, an astronaut & 3 coins", "word " * 200]
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None


def build(name: str, **changes: Any) -> Any:
    """Build a whole model as open_clip's users do, with weights that float16 holds exactly."""
    torch.manual_seed(3)
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = open_clip.create_model(name, **changes).eval()
    logging.disable(logging.NOTSET)
    for tensor in model.state_dict().values():
        tensor.mul_(3).copy_(tensor.half())  # wider, so that activations make a difference
    return model


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    text = {"context_length": 77, "vocab_size": 49408}
    names = {f"{TINY}-{variant}": text | changes for variant, changes in VARIANTS.items()}
    folder = tmp_path_factory.mktemp("models")
    with tiny_models(folder, {name: {} for name in (TINY, QUICK, *names)}, {TINY: text} | names):
        yield


@pytest.fixture(scope="module")
def openai(models, tmp_path_factory) -> tuple[Any, str]:
    """A model with QuickGELU, and its weights as OpenAI publishes them, in half precision."""
    model = build(TINY, force_quick_gelu=True)
    tensors = {name: value.half() for name, value in model.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "openai.pt"
    torch.save(tensors | {name: torch.tensor(value) for name, value in MARKS.items()}, path)
    return model, str(path)


@torch.no_grad()
def projected(model: Any, texts: list[str], name: str = TINY) -> Tensor:
    return functional.normalize(model.encode_text(open_clip.get_tokenizer(name)(texts)), dim=1)


@torch.no_grad()
def pooled(model: Any, texts: list[str]) -> Tensor:
    """Return unit vectors of the end-of-text token as it leaves the last layer norm."""
    ids = open_clip.get_tokenizer(TINY)(texts)
    caught: list[Tensor] = []
    handle = model.ln_final.register_forward_hook(lambda *call: caught.append(call[2]))
    whole = model.encode_text(ids)
    handle.remove()
    token = caught[0][torch.arange(len(ids)), ids.argmax(1)]
    torch.testing.assert_close(token @ model.text_projection, whole)
    return functional.normalize(token, dim=1)


def assert_same(vectors: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(vectors, expected, atol=1e-6, rtol=0)


def test_both_features_are_open_clips_own_with_openais_weights_and_activation(openai):
    model, path = openai
    before = create_text_encoder(f"text/{TINY}", path)
    after = create_text_encoder(f"text/{TINY}+projection", path)
    assert (before.activation, before.weights) == ("quickgelu", "file:openai.pt")
    assert (before.dim, after.dim) == (32, 24)
    assert_same(before.encode(TEXTS), pooled(model, TEXTS))
    assert_same(after.encode(TEXTS), projected(model, TEXTS))
    assert before.weights_sha256 == after.weights_sha256
    gelu = build(TINY)
    gelu.load_state_dict(model.state_dict())
    assert float((before.encode(TEXTS) - pooled(gelu, TEXTS)).norm(dim=1).min()) > 1e-3
    with pytest.raises(EncoderError, match="says quickgelu, but --activation gelu"):
        create_text_encoder(f"text/{TINY}", path, activation="gelu")


@pytest.mark.parametrize("variant", VARIANTS)
def test_towers_that_are_kept_apart_are_read_by_their_own_names(variant, tmp_path):
    name = f"{TINY}-{variant}"
    model = build(name, force_custom_text=True)
    assert any(key.startswith("text.") for key in model.state_dict())
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    with pytest.raises(EncoderError, match=r"does not tell which activation .* --activation"):
        create_text_encoder(f"text/{name}", str(path))
    encoder = create_text_encoder(f"text/{name}+projection", str(path), activation="gelu")
    assert_same(encoder.encode(TEXTS), projected(model, TEXTS, name))
    assert create_text_encoder(f"text/{name}", str(path), activation="gelu").dim == 32


def test_the_same_texts_give_the_same_bits_and_what_is_too_long_is_cut_off(openai):
    encoder = create_text_encoder(f"text/{TINY}", openai[1])
    vectors = encoder.encode(TEXTS)
    assert (vectors.dtype, vectors.shape) == (torch.float32, (3, 32))
    assert torch.equal(encoder.encode(TEXTS), vectors)
    assert_same(encoder.encode(TEXTS, batch_size=2), vectors)
    assert encoder.most_tokens == 75
    assert encoder.count_tokens(TEXTS[2]) == 200
    assert torch.equal(encoder.encode(["word " * 75])[0], encoder.encode(["word " * 99])[0])


def test_random_weights_say_so_and_follow_the_seed():
    spec = create_text_encoder(f"text/{TINY}", "random").spec(batch_size=4, source="caption")
    assert spec.is_random
    assert spec.is_text
    assert "RANDOM WEIGHTS" in spec.describe()
    assert spec.sampling == "text: caption"
    again = create_text_encoder(f"text/{TINY}", "random", seed=1)
    assert again.weights_sha256 != spec.weights_sha256
    with pytest.raises(ConfigError, match="control character"):
        again.spec(batch_size=4, source="a\n")


def test_names_and_weights_that_there_are_not_are_refused(tmp_path):
    assert "text/ViT-L-14-336+projection" in text_encoder_names()
    assert [is_text_encoder(name) for name in ("text/x", "sentence/x", "ViT-B-32")] == [1, 1, 0]
    with pytest.raises(UnknownNameError, match=r"'text/ViT-B-33'.*Did you mean 'text/ViT-B-32'"):
        create_text_encoder("text/ViT-B-33")
    with pytest.raises(UnknownNameError, match=r"'ViT-B-32'\..*'text/ViT-B-32'"):
        create_text_encoder("ViT-B-32")
    with pytest.raises(UnknownNameError, match="has no weights 'imagenet'"):
        create_text_encoder("text/ViT-B-32", "imagenet")
    image = {f"visual.{name}": torch.ones(1) for name in ("proj", "class_embedding")}
    safetensors.torch.save_file(image, tmp_path / "image.safetensors")
    with pytest.raises(EncoderError, match="positional_embedding"):
        create_text_encoder(f"text/{TINY}", str(tmp_path / "image.safetensors"), activation="gelu")


@pytest.mark.skipif(HAS_TRANSFORMERS, reason="transformers is installed")
@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP2", "roberta-ViT-B-32"])
def test_a_tower_or_tokens_of_transformers_say_what_to_install(name):
    with pytest.raises(EncoderError, match=r"transformers.*memfeat\[text\]"):
        create_text_encoder(f"text/{name}", "random")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no modules\.json that can be read"),
        ("[]", "needs sentence-transformers|cannot be loaded"),
        (json.dumps([{"type": "os.system"}]), "'os.system', which is code of others"),
    ],
)
def test_a_folder_that_is_no_model_of_sentences_is_refused(content, message, tmp_path: Path):
    if content is not None:
        (tmp_path / "modules.json").write_text(content)
    with pytest.raises(EncoderError, match=message):
        create_text_encoder("sentence/mine", str(tmp_path))
