import numpy as np
import pytest
import torch
from torch import nn

from memfeat.errors import ConfigError
from memfeat.models import (
    AGGREGATORS,
    HEADS,
    build_regressor,
    parameter_count,
    resolve_model_options,
)
from memfeat.models.gru import BiGru

DIM = 10
SMALL_GRU = {"hidden": 5, "layers": 3}
SMALL = {
    "linear-avg": {"width": 7},
    "bigru-pool": SMALL_GRU,
    "bigru": SMALL_GRU,
    "spatial": SMALL_GRU,
    "transformer": {"width": 8, "feedforward": 16},
    "mlp": {"hidden": [9, 6]},
}
PAIRS = [*((aggregator, "linear") for aggregator in AGGREGATORS), *(("avg", h) for h in HEADS)]
LENGTHS = torch.tensor([4, 7, 1, 6])

every_pair = pytest.mark.parametrize(("aggregator", "head"), PAIRS)


def small(aggregator, head, dim=DIM, seed=0):
    torch.manual_seed(seed)
    options = SMALL.get(aggregator, {}), SMALL.get(head, {})
    return build_regressor(dim, aggregator, head, *options).eval()


def batch(lengths=LENGTHS, time=None, seed=1, filler=0.0):
    """Random frames, `filler` where padded; the same frames however far they are padded."""
    generator = torch.Generator().manual_seed(seed)
    videos = [torch.randn(int(n), DIM, generator=generator) for n in lengths]
    frames = torch.full((len(lengths), time or int(max(lengths)), DIM), filler)
    for row, video in zip(frames, videos, strict=True):
        row[: len(video)] = video
    return frames, lengths


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def states_of_nn_gru(gru: BiGru, video: torch.Tensor) -> np.ndarray:
    """The states that torch's own nn.GRU with the same weights has for one unpadded video."""
    oracle = nn.GRU(
        gru.input_size, gru.hidden_size, gru.num_layers, batch_first=True, bidirectional=True
    )
    oracle.load_state_dict(gru.state_dict())
    with torch.inference_mode():
        return oracle(video.unsqueeze(0))[0][0].double().numpy()


def test_the_parts_of_the_papers_model_have_their_numbers_of_parameters():
    regressor = build_regressor(1024, "bigru", "mlp")
    assert parameter_count(regressor) == 1_381_762
    assert parameter_count(regressor.aggregators[0].gru) == 791_040
    assert parameter_count(regressor.aggregators[0].weight) == 129
    assert parameter_count(regressor.head) == 590_593


def test_the_whole_papers_model_computes_equation_1_over_nn_grus_states():
    torch.manual_seed(3)
    dim, lengths = 24, [5, 9, 2]
    regressor = build_regressor(dim, "bigru", "mlp").eval()
    # Scores near 0.5 would hide mistakes: larger weights spread them over (0, 1).
    nn.init.normal_(regressor.aggregators[0].weight.weight, std=3.0)
    for layer in regressor.head.layers[::2]:
        nn.init.normal_(layer.weight, std=0.2)
    videos = [torch.randn(n, dim) for n in lengths]
    weight = {name: value.double().numpy() for name, value in regressor.state_dict().items()}
    expected = []
    for video in videos:
        states = states_of_nn_gru(regressor.aggregators[0].gru, video)
        w = states @ weight["aggregators.0.weight.weight"][0] + weight["aggregators.0.weight.bias"]
        e_v = sum(w_t * e_t for w_t, e_t in zip(w, video.double().numpy(), strict=True))
        x = e_v / len(video)
        x = np.maximum(weight["head.layers.0.weight"] @ x + weight["head.layers.0.bias"], 0)
        x = np.maximum(weight["head.layers.2.weight"] @ x + weight["head.layers.2.bias"], 0)
        x = weight["head.layers.4.weight"] @ x + weight["head.layers.4.bias"]
        expected.append((sigmoid(x[0]), w))
    padded = nn.utils.rnn.pad_sequence(videos, batch_first=True)
    with torch.inference_mode():
        scores, (weights,) = regressor((padded, torch.tensor(lengths)))
    assert np.ptp([score for score, _ in expected]) > 0.05
    for i, (score, w) in enumerate(expected):
        assert scores[i].item() == pytest.approx(score, abs=1e-6)
        np.testing.assert_allclose(weights[i, : len(w)].numpy(), w, atol=1e-5)
        assert not weights[i, len(w) :].any()


@pytest.mark.parametrize("filler", [0.0, 1e3])
@every_pair
def test_padding_a_batch_further_changes_no_score(aggregator, head, filler):
    regressor = small(aggregator, head)
    with torch.inference_mode():
        tight, _ = regressor(batch())
        wide, (weights,) = regressor(batch(time=19, filler=filler))
    torch.testing.assert_close(wide, tight, atol=1e-6, rtol=0)
    if weights is not None:
        assert weights.shape == (4, 19)
        assert not weights[torch.arange(19) >= LENGTHS.unsqueeze(1)].any()


@every_pair
def test_a_score_is_one_number_in_0_1_and_its_gradient_reaches_every_parameter(aggregator, head):
    regressor = small(aggregator, head).train()
    scores, _ = regressor(batch())
    assert scores.shape == (4,)
    assert ((scores > 0) & (scores < 1)).all()
    scores.sum().backward()
    for name, parameter in regressor.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@every_pair
def test_a_score_depends_on_no_other_video_of_the_batch(aggregator, head):
    regressor = small(aggregator, head)
    frames, lengths = batch()
    order = torch.tensor([2, 0, 3, 1])
    with torch.inference_mode():
        scores, _ = regressor((frames, lengths))
        reordered, _ = regressor((frames[order], lengths[order]))
        alone = [
            regressor((frames[i : i + 1, :n], lengths[i : i + 1]))[0] for i, n in enumerate(lengths)
        ]
    torch.testing.assert_close(reordered, scores[order], atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.cat(alone), scores, atol=1e-6, rtol=0)


@every_pair
def test_different_frames_get_different_scores(aggregator, head):
    with torch.inference_mode():
        scores, _ = small(aggregator, head)(batch(torch.tensor([5] * 6)))
    assert len(scores.unique()) == 6


@pytest.mark.parametrize("head", list(HEADS))
def test_scores_fall_on_both_sides_of_one_half(head):
    """A ReLU before the sigmoid would forbid the lower side."""
    torch.manual_seed(0)
    module = HEADS.get(head)(DIM, HEADS.get(head).Options())
    with torch.inference_mode():
        scores = module(20 * torch.randn(200, DIM))
    assert (scores < 0.4).any()
    assert (scores > 0.6).any()


def test_dropout_acts_after_the_last_gru_layer():
    torch.manual_seed(0)
    gru = BiGru(DIM, hidden=50, layers=1, dropout=0.2)
    frames, lengths = torch.randn(8, 40, DIM), torch.full((8,), 40)
    with torch.no_grad():
        dropped, whole = gru.train()(frames, lengths), gru.eval()(frames, lengths)
    zero = dropped == 0
    assert zero.float().mean().item() == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(dropped[~zero], whole[~zero] / 0.8)


def test_dropout_acts_between_gru_layers_too():
    torch.manual_seed(0)
    gru = BiGru(DIM, hidden=5, layers=2, dropout=0.5)
    frames, lengths = batch()
    with torch.no_grad():
        dropped, whole = gru.train()(frames, lengths), gru.eval()(frames, lengths)
    kept = dropped != 0
    assert ((dropped[kept] - whole[kept] / 0.5).abs() > 1e-3).any()


def test_attention_weights_are_neither_normalised_nor_squashed():
    regressor = small("bigru", "linear")
    layer = regressor.aggregators[0].weight
    with torch.no_grad():
        before = regressor.aggregators[0](*batch())
        layer.weight *= -30
        layer.bias *= -30
        after = regressor.aggregators[0](*batch())
    torch.testing.assert_close(after.weights, -30 * before.weights)
    torch.testing.assert_close(after.vector, -30 * before.vector)


def linear_image(module, video):
    weight, bias = (p.detach().double().numpy() for p in module.linear.parameters())
    return video.double().numpy() @ weight.T + bias


@pytest.mark.parametrize(
    ("aggregator", "of_frames"),
    [
        ("avg", lambda module, video: video.double().numpy()),
        ("linear-avg", linear_image),
        ("bigru-pool", lambda module, video: states_of_nn_gru(module.gru, video)),
    ],
)
def test_what_pools_gives_the_mean_of_what_it_makes_of_each_real_frame(aggregator, of_frames):
    frames, lengths = batch(filler=9.0)
    module = small(aggregator, "linear").aggregators[0]
    vector, weights = module(frames, lengths)
    expected = [of_frames(module, f[:n]).mean(0) for f, n in zip(frames, lengths, strict=True)]
    np.testing.assert_allclose(vector.detach(), expected, atol=1e-6)
    assert weights is None


def test_an_untrained_transformer_sees_more_than_its_frames_positions():
    aggregator = build_regressor(1280, "transformer", "mlp").aggregators[0].eval()
    frames = nn.functional.normalize(torch.randn(20, 12, 1280), dim=-1)
    vectors = aggregator(frames, torch.full((20,), 12)).vector
    assert vectors.std(0).norm() > 0.2 * vectors.mean(0).norm()  # 0.01 by torch's own weights


@pytest.mark.parametrize("aggregator", ["bigru-pool", "bigru", "transformer"])
def test_the_order_of_frames_matters_to_what_models_time(aggregator):
    frames, lengths = batch(torch.tensor([6]))
    with torch.inference_mode():
        forward, _ = small(aggregator, "linear")((frames, lengths))
        backward, _ = small(aggregator, "linear")((frames.flip(1), lengths))
    assert (forward - backward).abs().item() > 1e-5


@pytest.mark.parametrize(
    ("aggregator", "options", "message"),
    [
        ("bigru", {"hiden": 3}, "aggregator 'bigru': unknown setting 'hiden'.*hidden"),
        ("bigru", {"layers": 0}, "layers = 0 is not allowed: .*greater than or equal to 1"),
        ("bigru", {"dropout": 1.0}, "dropout = 1.0 is not allowed: .*less than 1"),
        ("transformer", {"width": 10}, "4 heads do not divide a width of 10"),
        ("avg", {"width": 3}, "aggregator 'avg': unknown setting 'width'"),
    ],
)
def test_an_option_that_is_not_allowed_is_named(aggregator, options, message):
    with pytest.raises(ConfigError, match=message):
        build_regressor(8, aggregator, "linear", options)


def test_the_papers_numbers_are_the_defaults():
    assert resolve_model_options(AGGREGATORS, "bigru", {}).model_dump() == {
        "hidden": 64,
        "layers": 6,
        "dropout": 0.2,
    }
    assert resolve_model_options(AGGREGATORS, "linear-avg", {}).model_dump() == {"width": 512}
    transformer = resolve_model_options(AGGREGATORS, "transformer", {}).model_dump()
    assert (transformer["layers"], transformer["heads"], transformer["width"]) == (2, 4, 256)
    assert HEADS.get("mlp").Options().model_dump() == {"hidden": (512, 128), "dropout": 0.0}


def test_options_reach_the_modules():
    regressor = build_regressor(
        8, "bigru-pool", "mlp", {"hidden": 3, "layers": 2, "dropout": 0.4}, {"hidden": [5]}
    )
    gru = regressor.aggregators[0].gru
    assert (gru.hidden_size, gru.num_layers, gru.dropout) == (3, 2, 0.4)
    assert [tuple(p.shape) for p in regressor.head.parameters()] == [(5, 6), (5,), (1, 5), (1,)]
