"""Replay of roll-outs: exact on six backbones, and two estimators of one gradient."""

import copy

import pytest
import torch
from tests.tiny import EOS, PAD, tiny_inputs, tiny_storm
from trl.trainer.utils import add_fused_lm_head

from storm_hf.inputs.prompts import join_prompts
from storm_hf.reinforce.noise import GaussianLatents, LatentRecord, LatentSubspace, NoisyRollout
from storm_hf.reinforce.replay import Replay


HIDDEN_SIZE, NUM_LATENTS, NUM_TOKENS = 32, 4, 3
ESTIMATORS = ("pathwise", "score")


@pytest.fixture(scope="module")
def policy():
    basis = torch.linalg.qr(torch.randn(HIDDEN_SIZE, 6, generator=torch.Generator().manual_seed(0))).Q.T
    return GaussianLatents(LatentSubspace(HIDDEN_SIZE, basis), 0.3)


@pytest.fixture(scope="module")
def policy_model(kind):
    """A model that replays; its weights are never changed."""
    model = copy.deepcopy(tiny_storm(kind, NUM_LATENTS))
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    return model


@pytest.fixture(scope="module")
def prompts(kind):
    return [tiny_inputs(kind, (length,), NUM_LATENTS, seed=length) for length in (5, 3)]


def roll_out(model, prompts, policy, seed=0):
    """Sampled answers of fixed length, their log-probabilities, and the record of the latents."""
    torch.manual_seed(seed)
    inputs, rollout = join_prompts(prompts, PAD), NoisyRollout(policy)
    output = model.generate(
        **inputs,
        max_new_tokens=NUM_TOKENS,
        min_new_tokens=NUM_TOKENS,
        do_sample=True,
        output_logits=True,
        return_dict_in_generate=True,
        latent_intervention=rollout,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    answers = output.sequences[:, -NUM_TOKENS:]
    logits = torch.stack(output.logits, dim=1).log_softmax(dim=-1)
    return output.sequences, logits.gather(-1, answers[..., None])[..., 0], rollout.record


def replay(model, policy, estimator, sequences, record, prompts):
    mask = (sequences != PAD).long()
    num_after = NUM_LATENTS + 1 + sequences.shape[1] - prompt_length(prompts)
    return Replay(policy, estimator)(model, sequences, mask, record, prompts, num_after)


def prompt_length(prompts):
    return max(prompt["input_ids"].shape[1] for prompt in prompts)


@pytest.mark.parametrize("has_gradient", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_replayed_log_probabilities_are_those_of_the_rollout(policy_model, prompts, policy, estimator, has_gradient):
    sequences, expected, record = roll_out(policy_model, prompts, policy)
    with torch.set_grad_enabled(has_gradient):
        replayed = replay(policy_model, policy, estimator, sequences, record, prompts)
    assert (replayed.log_probs[:, -NUM_TOKENS:] - expected).abs().max() < 2e-6 * expected.abs().max()
    assert (replayed.means + record.noise - record.fed).abs().max() < 1e-6
    assert replayed.log_probs[:, NUM_LATENTS].eq(0).all()  # the end of the block is never drawn
    density = policy.log_density(record.fed, replayed.means, record.std)
    expected_density = density if estimator == "score" else torch.zeros_like(density)
    assert torch.equal(replayed.log_probs[:, :NUM_LATENTS], expected_density)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rows_are_replayed_alone_as_in_a_batch(policy_model, prompts, policy, estimator):
    sequences, _, record = roll_out(policy_model, prompts, policy)
    together = replay(policy_model, policy, estimator, sequences, record, prompts)
    for row in range(2):
        rows = slice(row, row + 1)
        alone = Replay(policy, estimator)(
            policy_model,
            sequences[rows],
            (sequences[rows] != PAD).long(),
            record[rows],
            prompts[rows],
            NUM_LATENTS + 1 + NUM_TOKENS,
        )
        torch.testing.assert_close(alone.log_probs, together.log_probs[rows], rtol=1e-5, atol=1e-5)


def gradient(model, value):
    parts = torch.autograd.grad(value, [*model.parameters()], allow_unused=True, retain_graph=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


def test_density_of_latents_without_noise_has_no_gradient(policy_model, prompts, policy):
    """A group of deterministic roll-outs trains nothing by its density, as published ones would have to."""
    model = policy_model.train()
    silent = GaussianLatents(policy.subspace, 0.0)
    norms = {}
    for name, drawn_by in (("with", policy), ("without", silent)):
        sequences, _, record = roll_out(model.eval(), prompts, drawn_by)
        record = LatentRecord(record.fed, record.noise, torch.full_like(record.std, 0.3), record.is_given)
        replayed = replay(model, policy, "score", sequences, record, prompts)
        norms[name] = gradient(model, replayed.log_probs[:, :NUM_LATENTS].sum()).norm()
    assert norms["without"] < 1e-4 * norms["with"]


def test_latents_of_a_donor_have_neither_density_nor_gradient(policy_model, prompts, policy):
    sequences, _, record = roll_out(policy_model, prompts, policy)
    given = LatentRecord(record.fed, record.noise, record.std, torch.tensor([True, False]))
    score = replay(policy_model, policy, "score", sequences, given, prompts)
    assert score.log_probs[0, :NUM_LATENTS].eq(0).all()
    assert score.log_probs[1, :NUM_LATENTS].ne(0).all()
    pathwise = replay(policy_model, policy, "pathwise", sequences, given, prompts)
    torch.testing.assert_close(
        pathwise.log_probs[:, -NUM_TOKENS:], score.log_probs[:, -NUM_TOKENS:], rtol=1e-5, atol=1e-5
    )
    projector = [*policy_model.model.latent_projector.parameters()]
    (of_donor,) = torch.autograd.grad(pathwise.log_probs[0].sum(), projector[:1], retain_graph=True)
    (of_own,) = torch.autograd.grad(pathwise.log_probs[1].sum(), projector[:1])
    assert of_donor.abs().max() == 0
    assert of_own.abs().max() > 0


def test_pathwise_gradient_is_that_of_finite_differences(policy):
    model = tiny_storm("qwen2_5_vl", NUM_LATENTS)
    prompts = [tiny_inputs("qwen2_5_vl", (length,), NUM_LATENTS, seed=length) for length in (5, 3)]
    sequences, _, record = roll_out(model, prompts, policy)
    model = model.double()
    double = LatentRecord(record.fed.double(), record.noise.double(), record.std.double(), record.is_given)
    prompts = [
        {name: value.double() if value.is_floating_point() else value for name, value in prompt.items()}
        for prompt in prompts
    ]
    inputs = {
        name: value
        for name, value in join_prompts(prompts, PAD).items()
        if name not in ("input_ids", "attention_mask")
    }
    inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, NUM_TOKENS))
    advantages = torch.tensor([1.0, -0.5]).double()

    def objective():
        """Plain forward pass and softmax, without anything of the trainer but the record."""
        logits = model(
            input_ids=sequences,
            attention_mask=(sequences != PAD).long(),
            latent_intervention=double.replay,
            **inputs,
        ).logits[:, -NUM_TOKENS - 1 : -1]
        log_probs = logits.log_softmax(dim=-1).gather(-1, sequences[:, -NUM_TOKENS:, None])[..., 0]
        return (advantages[:, None] * log_probs).sum()

    weights = [model.model.latent_projector.layers[0].weight, model.get_decoder().layers[0].self_attn.q_proj.weight]
    directions = [torch.randn(weight.shape, generator=torch.Generator().manual_seed(7)).double() for weight in weights]
    step, values = 1e-3, []  # rotary positions and the fused head are float32 whatever the weights are
    with torch.no_grad():
        for sign in (1, -1):
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(direction, alpha=sign * step)
            values.append(objective())
            for weight, direction in zip(weights, directions, strict=True):
                weight.sub_(direction, alpha=sign * step)
    measured = float(values[0] - values[1]) / (2 * step)

    add_fused_lm_head(model)
    replayed = replay(model, policy, "pathwise", sequences, double, prompts)
    value = (advantages[:, None] * replayed.log_probs[:, -NUM_TOKENS:]).sum()
    parts = torch.autograd.grad(value, weights)
    found = sum(float((part * direction).sum()) for part, direction in zip(parts, directions, strict=True))
    assert found == pytest.approx(measured, rel=1e-3)


def probability_gradients(policy, num_draws, num_rows=32, token=17):
    """Gradients of the mean probability of a token, draw by draw, for both estimators, along that of the first draw."""
    model = tiny_storm("qwen2_5_vl", num_latents=2)
    add_fused_lm_head(model)
    prompt = tiny_inputs("qwen2_5_vl", (3,), num_latents=2)
    sequences = torch.cat([prompt["input_ids"], torch.tensor([[token]])], dim=1).expand(num_rows, -1)

    def gradient_of(estimator, record):
        replayed = Replay(policy, estimator)(
            model, sequences, torch.ones_like(sequences), record, [prompt] * num_rows, completion_length=4
        )
        probability = replayed.log_probs[:, 3].exp()
        others = (probability.sum() - probability) / (num_rows - 1)  # a baseline, which leaves the mean as it is
        weights = (probability - others).detach()
        value = (probability + weights * replayed.log_probs[:, :2].sum(dim=1)).mean()
        return torch.autograd.grad(value, [model.model.latent_projector.layers[0].bias])[0]

    torch.manual_seed(0)
    direction, found = None, []
    for _ in range(num_draws + 1):
        rollout = NoisyRollout(policy)
        with torch.no_grad():
            model(**join_prompts([prompt] * num_rows, PAD), latent_intervention=rollout, use_cache=False)
        pathwise, score = (gradient_of(estimator, rollout.record) for estimator in ESTIMATORS)
        if direction is None:
            direction = pathwise / pathwise.norm()
        else:
            found.append(torch.stack([pathwise, score]) @ direction)
    return torch.stack(found, dim=1)


def test_both_estimators_have_one_mean():
    pathwise, score = probability_gradients(GaussianLatents(LatentSubspace(HIDDEN_SIZE), 0.3), num_draws=8)
    error = (pathwise - score).std() / len(score) ** 0.5
    assert (pathwise.mean() - score.mean()).abs() < 3 * error
    assert pathwise.mean().abs() > 4 * error, "too few draws to tell the mean from zero"
    assert score.std() > pathwise.std()


def test_score_in_a_subspace_has_another_mean(policy):
    """A density in a subspace says nothing of a mean that moves out of it: so the trainer's score has noise in all directions."""
    pathwise, score = probability_gradients(policy, num_draws=4)
    error = (pathwise - score).std() / len(score) ** 0.5
    assert (pathwise.mean() - score.mean()).abs() > 6 * error
