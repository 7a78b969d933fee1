"""Several regressors as one, held against each by itself."""

import pytest
import torch
from made_up import SMALL
from torch.optim import Adam

from memfeat.devices import CPU
from memfeat.models import AGGREGATORS, HEADS, Stack, build_regressor, can_stack, stacking_pays
from memfeat.models.gru import BACKENDS, using_backend
from memfeat.models.native import kernel

DIM, MODELS, BATCH, TIME = 6, 3, 4, 9
STACKABLE = [(a, h) for a in AGGREGATORS for h in HEADS if can_stack([a], h)]
every_kind = pytest.mark.parametrize(("aggregator", "head"), STACKABLE)


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "native" and not kernel():
        pytest.skip("needs a C++ compiler")
    with using_backend(request.param):
        yield request.param


def regressors(aggregator, head, dropout=0.0, models=MODELS):
    torch.manual_seed(0)
    options = dict(SMALL["aggregators"].get(aggregator, {}))
    if "layers" in options:
        options["dropout"] = dropout
    heads = SMALL["heads"].get(head, {})
    return [build_regressor(DIM, aggregator, head, options, heads) for _ in range(models)]


def batch(models=MODELS, seed=1):
    torch.manual_seed(seed)
    lengths = torch.randint(1, TIME + 1, (models, BATCH))
    lengths[0, 0] = TIME
    return torch.randn(models, BATCH, TIME, DIM), lengths, torch.rand(models, BATCH)


def generators(models=MODELS):
    return [torch.Generator().manual_seed(10 + i) for i in range(models)]


def loss(scores, truth):
    return (scores - truth).abs().mean(-1).sum()


@every_kind
def test_scores_and_gradients_are_those_of_each_alone(backend, aggregator, head):
    frames, lengths, truth = batch()
    alone, together = (regressors(aggregator, head) for _ in range(2))
    stack = Stack(together)
    scores = stack.scores([(frames, lengths)], generators())
    stack.backward(loss(scores, truth))
    for i, own in enumerate(alone):
        expected = own((frames[i], lengths[i])).scores
        torch.testing.assert_close(scores[i], expected, atol=1e-6, rtol=0)
        loss(expected, truth[i]).backward()
        for (name, one), other in zip(
            own.named_parameters(), together[i].parameters(), strict=True
        ):
            torch.testing.assert_close(other.grad, one.grad, atol=1e-6, rtol=1e-4, msg=name)


@every_kind
def test_models_score_one_batch_together_as_each_alone(aggregator, head):
    frames, lengths, _ = batch(models=1)
    several = regressors(aggregator, head)
    expected = torch.stack([own.eval()((frames[0], lengths[0])).scores for own in several])
    with torch.inference_mode():
        scores = Stack(several).scores([(frames, lengths)])
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("aggregator", ["bigru", "bigru-pool"])
def test_a_models_dropout_hangs_on_its_own_generator_and_batch_alone(backend, aggregator):
    frames, lengths, _ = batch()
    scores = Stack(regressors(aggregator, "mlp", 0.5)).scores([(frames, lengths)], generators())
    again = Stack(regressors(aggregator, "mlp", 0.5)).scores([(frames, lengths)], generators())
    assert torch.equal(scores, again)
    for i, own in enumerate(regressors(aggregator, "mlp", 0.5)):
        time = int(lengths[i].max())
        one = slice(i, i + 1)
        found = Stack([own]).scores([(frames[one, :, :time], lengths[one])], generators()[one])
        torch.testing.assert_close(found[0], scores[i], atol=1e-6, rtol=0)
        dry = own.eval()((frames[i], lengths[i])).scores
        assert not torch.allclose(found[0], dry, atol=1e-4)


def test_a_stack_follows_its_models_and_they_follow_it():
    frames, lengths, truth = batch()
    several = regressors("bigru", "mlp")
    stack = Stack(several)
    optimizers = [Adam(own.parameters(), lr=0.1 * (i + 1)) for i, own in enumerate(several)]
    before = stack.scores([(frames, lengths)]).detach()
    stack.backward(loss(stack.scores([(frames, lengths)], generators()), truth))
    for optimizer in optimizers[1:]:
        optimizer.step()
    scores = stack.scores([(frames, lengths)])
    assert torch.equal(scores[0], before[0])
    assert not torch.allclose(scores[1:], before[1:], atol=1e-3)
    several[2].load_state_dict(several[0].state_dict())
    scores = stack.scores([(frames[:1], lengths[:1])])
    torch.testing.assert_close(scores[2], scores[0])


def test_models_go_on_in_a_smaller_stack():
    frames, lengths, truth = batch()
    several = regressors("bigru", "mlp")
    Stack(several)
    kept = Stack(several[::2])
    optimizers = [Adam(own.parameters(), lr=0.1) for own in several[::2]]
    before = kept.scores([(frames[::2], lengths[::2])]).detach()
    kept.backward(loss(kept.scores([(frames[::2], lengths[::2])], generators(2)), truth[::2]))
    for optimizer in optimizers:
        optimizer.step()
    after = kept.scores([(frames[::2], lengths[::2])])
    assert not torch.allclose(before, after, atol=1e-3)
    for i, own in enumerate(several[::2]):
        expected = own((frames[2 * i], lengths[2 * i])).scores
        torch.testing.assert_close(after[i], expected, atol=1e-6, rtol=0)


def test_a_model_that_diverges_leaves_the_others_alone(backend):
    frames, lengths, truth = batch()
    together = regressors("bigru", "mlp")
    with torch.no_grad():
        together[1].aggregators[0].gru.weight_hh_l0[0, 0] = torch.nan
    stack = Stack(together)
    scores = stack.scores([(frames, lengths)], generators())
    stack.backward(loss(scores, truth))
    assert scores[1].isnan().all()
    for i in (0, 2):
        assert scores[i].isfinite().all()
        assert all(p.grad.isfinite().all() for p in together[i].parameters())


def test_one_model_of_any_kind_is_a_stack():
    frames, lengths, truth = batch(models=1)
    (own,) = regressors("transformer", "mlp", models=1)
    stack = Stack([own])
    for _ in range(2):
        stack.backward(loss(stack.scores([(frames, lengths)], generators(1)), truth))
    first = [p.grad.clone() for p in own.parameters()]
    own.zero_grad()
    loss(own((frames[0], lengths[0])).scores, truth[0]).backward()
    for one, other in zip(first, own.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_stacking_pays_where_launches_count():
    gpu = torch.device("cuda")
    assert all(stacking_pays([a], h, gpu) for a, h in STACKABLE)
    assert not stacking_pays(["transformer"], "mlp", gpu)
    with using_backend("plain"):
        assert stacking_pays(["bigru"], "mlp", CPU)
        assert not stacking_pays(["avg"], "mlp", CPU)
    if kernel():
        assert not stacking_pays(["bigru"], "mlp", CPU)
