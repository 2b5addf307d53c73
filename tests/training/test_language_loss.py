"""The divergence on plain rows: exact with the whole vocabulary, a lower bound with less, and blind to padding."""

import pytest
import torch
from tests.tiny import tiny_storm

from storm_hf.training.language_loss import language_kl, log_probs_with_rest, stack_language, supervised_logits


VOCAB_SIZE = 50


def random_logits(seed, num_tokens=20):
    return 3 * torch.randn(num_tokens, VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))


def record(logits, top_k):
    ids = logits.topk(top_k).indices
    return ids, log_probs_with_rest(logits, ids)


def exact_kl(before, now):
    log_probs = before.log_softmax(dim=-1)
    return (log_probs.exp() * (log_probs - now.log_softmax(dim=-1))).sum(dim=-1)


def test_whole_vocabulary_gives_the_exact_divergence():
    before, now = random_logits(0), random_logits(1)
    torch.testing.assert_close(language_kl(now, *record(before, VOCAB_SIZE)), exact_kl(before, now))


def test_fewer_tokens_give_a_lower_bound_that_grows_with_them():
    before, now = random_logits(0), random_logits(1)
    found = [language_kl(now, *record(before, top_k)) for top_k in (1, 4, 16, 49, VOCAB_SIZE)]
    for smaller, larger in zip(found, found[1:], strict=False):
        assert (smaller <= larger + 1e-5).all()
    assert (found[0] >= 0).all()
    torch.testing.assert_close(found[3], exact_kl(before, now))  # the rest is one token


@pytest.mark.parametrize("top_k", [1, 8, VOCAB_SIZE])
def test_unchanged_model_has_no_divergence_and_no_gradient(top_k):
    logits = random_logits(0).requires_grad_()
    loss = language_kl(logits, *record(logits.detach(), top_k))
    loss.sum().backward()
    assert loss.abs().max() < 1e-5
    assert logits.grad.abs().max() < 1e-6


def test_gradient_is_that_of_the_exact_divergence():
    before, now = random_logits(0), random_logits(1).requires_grad_()
    (found,) = torch.autograd.grad(language_kl(now, *record(before, VOCAB_SIZE)).sum(), now)
    torch.testing.assert_close(found, now.softmax(-1).detach() - before.softmax(-1), atol=1e-5, rtol=0)


def test_tokens_added_to_a_vocabulary_after_it_was_recorded_are_part_of_the_rest():
    before = random_logits(0)
    now = torch.cat([before, torch.full((20, 3), -2.0)], dim=-1)
    found = language_kl(now, *record(before, VOCAB_SIZE))
    assert found.isfinite().all()
    assert (found > 0).all()


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(5, 90, (length,), generator=generator) for length in (9, 4, 6)]
    return [{"input_ids": ids, "labels": ids.masked_fill(torch.arange(len(ids)) < 2, -100)} for ids in tokens]


def test_rows_of_a_batch_predict_what_each_predicts_alone(kind, rows):
    model = tiny_storm(kind)
    alone = [supervised_logits(model, stack_language([row], model.device)) for row in rows]
    for side in ("right", "left") if kind != "qwen3_5" else ("right",):
        logits, labels = supervised_logits(model, stack_language(rows, model.device, side))
        torch.testing.assert_close(logits, torch.cat([logits for logits, _ in alone]), atol=1e-4, rtol=1e-4)
        assert torch.equal(labels, torch.cat([labels for _, labels in alone]))
