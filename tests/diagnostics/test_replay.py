"""The shared prompt changes nothing: every reply is what the whole prompt, computed anew, would have got."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.diagnostics.thinker import latents_of, tokens_of
from tests.tiny import EOS, IMAGE, KINDS, PAD, VIDEO, VOCAB_SIZE, tiny_inputs, tiny_storm, with_clip_mask

from storm_hf.diagnostics.replay import SharedPrompts, answer_again, answers_under
from storm_hf.errors import ConfigurationError
from storm_hf.interventions.kind import CONTENT_FREE, InterventionKind
from storm_hf.interventions.token_replacement import choose_donors, step_replacements, token_replacements


class NumberTokenizer:
    """Says token ids as numbers."""

    eos_token_id, pad_token_id = EOS, PAD

    def batch_decode(self, rows, skip_special_tokens=True):
        return [" ".join(map(str, row)) for row in rows.tolist()]

    def __call__(self, text, add_special_tokens=False):
        return {"input_ids": [int(number) for number in text.split()]}


class TinyPrompts:
    """Encodes two open questions for a tiny backbone of any kind."""

    question_style = "words"
    processor = SimpleNamespace(tokenizer=NumberTokenizer())

    def __init__(self, kind, num_latents=4):
        self.inputs = with_clip_mask(tiny_inputs(kind, num_latents=num_latents))

    def __call__(self, rows):
        return dict(self.inputs)


OPEN = [{"question": "what?"}, {"question": "why?"}]


@pytest.fixture(
    params=[*((kind, "full") for kind in KINDS), ("qwen2_5_vl", "step"), ("smolvlm", "step")], ids="-".join
)
def tiny(request):
    kind, attention = request.param
    model = tiny_storm(kind, latent_attention=attention)
    model.generation_config.suppress_tokens = [IMAGE, VIDEO]  # no backbone says its placeholders, but a random one may
    prompts = TinyPrompts(kind)
    with torch.inference_mode():
        shared = SharedPrompts(model, prompts, OPEN, max_new_tokens=5)
    return model, prompts, shared


def generate(model, prompts, **arguments):
    output = model.generate(
        **prompts.inputs,
        max_new_tokens=5,
        do_sample=False,
        output_latents=True,
        eos_token_id=EOS,
        pad_token_id=PAD,
        **arguments,
    )
    return output.sequences[:, prompts.inputs["input_ids"].shape[1] :], output.latents


def shift(step, latent):
    return latent + 0.5 * step


@pytest.mark.parametrize("replace", [None, shift], ids=["own", "replaced"])
def test_reply_is_that_of_the_whole_prompt(tiny, replace):
    model, prompts, shared = tiny
    with torch.inference_mode():
        replies = shared.reply(InterventionKind.own, replace)
    expected, latents = generate(model, prompts, latent_intervention=replace)
    texts = NumberTokenizer().batch_decode(expected)
    assert [reply.answer.text for reply in replies] == texts
    np.testing.assert_allclose(latents_of([reply.answer for reply in replies]), latents.numpy(), atol=1e-4)
    assert all((reply.divergence > 1e-4) == (replace is not None) for reply in replies)


def test_no_latents_are_those_of_generation_without_any(tiny):
    model, prompts, shared = tiny
    with torch.inference_mode():
        replies = shared.reply(InterventionKind.no_latents, None)
    expected, _ = generate(model, prompts, num_latents=0)
    assert [reply.answer.text for reply in replies] == NumberTokenizer().batch_decode(expected)
    assert all(np.isfinite(reply.divergence) for reply in replies)


def test_answer_without_the_clip_is_that_of_generation_with_the_bottleneck(tiny):
    model, prompts, shared = tiny
    with torch.inference_mode():
        replies = shared.reply(InterventionKind.latents_only, None)
    expected, latents = generate(model, prompts, latent_bottleneck=True)
    assert [reply.answer.text for reply in replies] == NumberTokenizer().batch_decode(expected)
    np.testing.assert_allclose(latents_of([reply.answer for reply in replies]), latents.numpy(), atol=1e-4)
    assert all(reply.divergence > 1e-4 for reply in replies)


def test_markers_alone_are_two_tokens_of_the_backbone(tiny):
    """The same ids without placeholders, run through the backbone, which knows nothing of latents."""
    model, prompts, shared = tiny
    ids = prompts.inputs["input_ids"]
    keep = [column for column in range(ids.shape[1]) if not shared.start <= column < shared.start + 4]
    inputs = {name: value[:, keep] if value.shape == ids.shape else value for name, value in prompts.inputs.items()}
    with torch.inference_mode():
        first = model.backbone(**inputs).logits[:, -1]
        output = shared._generate(InterventionKind.markers_only, None)
        shared.reply(InterventionKind.markers_only, None)
    torch.testing.assert_close(output.logits[0], first.float(), atol=2e-3, rtol=1e-3)


def test_what_is_fed_counts_in_the_divergence_without_the_clip_too(tiny):
    _, _, shared = tiny
    with torch.inference_mode():
        own, fed = (shared.reply(InterventionKind.latents_only, replace) for replace in (None, shift))
    assert [reply.divergence for reply in own] != [reply.divergence for reply in fed]


@pytest.mark.parametrize("kind", [InterventionKind(name) for name in ("own", "no_latents", "latents_only")])
def test_own_answer_spelled_out_begins_with_what_generation_said(tiny, kind):
    """As far as the same words are said under the intervention."""
    _, _, shared = tiny
    with torch.inference_mode():
        spelled = shared._spell_own(kind, None)
        output = shared._generate(kind, None)
        said = [torch.log_softmax(step.float(), dim=-1) for step in output.logits]
    longest = max(len(answer.token_ids) for answer in shared.own)
    assert spelled.shape == (2, longest, VOCAB_SIZE)
    for row, (answer, other) in enumerate(zip(shared.own, shared._read(output, kind), strict=True)):
        alike = [own == word for own, word in zip(answer.token_ids, other.token_ids, strict=False)]
        for token in range(min([*alike, False].index(False) + 1, len(answer.token_ids), len(said))):
            torch.testing.assert_close(spelled[row, token], said[token][row], atol=2e-3, rtol=1e-3)


def test_prompts_without_latents_are_refused():
    with pytest.raises(ConfigurationError, match="num_latents=0"), torch.inference_mode():
        SharedPrompts(tiny_storm("qwen2_5_vl"), TinyPrompts("qwen2_5_vl", 0), OPEN, max_new_tokens=2)


@pytest.fixture(scope="module")
def replies(thinker):
    """All replacements, in one batch and in several."""
    latents = latents_of(thinker.answer())
    donors = choose_donors(thinker.rows)
    replaced = token_replacements(latents, donors) | step_replacements(latents, donors)
    whole = answer_again(thinker.model, thinker.prompts(), thinker.rows, replaced)
    batches = answer_again(thinker.model, thinker.prompts(), thinker.rows, replaced, batch_size=2)
    return replaced, whole, batches


def test_each_row_is_fed_its_own_whatever_the_batch(replies):
    _, whole, batches = replies
    for name, expected in whole.items():
        assert tokens_of([reply.answer for reply in batches[name]]) == tokens_of([reply.answer for reply in expected])
        got = [reply.divergence for reply in batches[name]]
        assert got == pytest.approx([reply.divergence for reply in expected], abs=2e-3)


def test_interventions_answer_as_through_the_usual_loop(thinker, replies):
    replaced, whole, _ = replies
    for name, intervention in replaced.items():
        if intervention.kind != InterventionKind.markers_only:
            expected = thinker.answer(intervene=intervention)
            assert tokens_of([reply.answer for reply in whole[name]]) == tokens_of(expected)


def test_only_what_the_model_does_by_itself_does_not_diverge(replies):
    _, whole, _ = replies
    assert [reply.divergence for reply in whole["own"]] == pytest.approx([0.0] * 5, abs=1e-6)
    for name in (*CONTENT_FREE, "donor", "latents_only", "from_0"):
        assert max(reply.divergence for reply in whole[name]) > 1e-4


def test_divergence_is_over_options_where_their_first_words_differ(thinker):
    with torch.inference_mode():
        shared = SharedPrompts(thinker.model, thinker.prompts(), thinker.rows, max_new_tokens=2)
        twins = [{**row, "options": ["red ball", "red cup"]} for row in thinker.rows]
        alike = SharedPrompts(thinker.model, thinker.prompts(), twins, max_new_tokens=2)
    assert [len(part[0]) for part in shared.own_distributions] == [4] * 5
    assert {part.shape[-1] for part in alike.own_distributions} == {thinker.model.config.get_text_config().vocab_size}


def test_answers_alone_are_those_of_the_replies_and_read_each_prompt_once(thinker, replies):
    replaced, whole, _ = replies
    reads = []

    def count(module, arguments, given):
        reads.append(bool((given["position_ids"] == 0).any()))  # the beginning of a prompt

    hook = thinker.model.get_decoder().register_forward_pre_hook(count, with_kwargs=True)
    once = {name: one for name, one in replaced.items() if name not in ("no_latents", "latents_only")}
    try:
        answers = answers_under(thinker.model, thinker.prompts(), thinker.rows, once)
    finally:
        hook.remove()
    assert sum(reads) == 1
    assert {name: tokens_of(found) for name, found in answers.items()} == {
        name: tokens_of([reply.answer for reply in whole[name]]) for name in once
    }
