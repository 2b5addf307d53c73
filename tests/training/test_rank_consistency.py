"""Processes that hold one model in pieces and would run different layers are told so, each of them, before they do."""

import pytest
import torch
from tests.tiny import LATENT, tiny_storm
from tests.training.processes import finish_together, leave, meet, start
from tests.training.tiny_training import TinyCollator, tiny_trainer
from torch import nn
from torch.distributed.fsdp import fully_shard

from storm_hf.errors import StageError
from storm_hf.training.rank_consistency import check_ranks_match, forward_signatures, is_sharded


CPU = torch.device("cpu")
WITH_VIDEO, WITHOUT = 0b010, 0


def batch(num_latents=3, **vision):
    return {"input_ids": torch.tensor([[7, *[LATENT] * num_latents, 8]] * 2), **vision}


def routes(*of_ranks):
    """Routes (P, M, 2)."""
    return torch.tensor(of_ranks)


def test_route_says_how_many_latents_and_what_is_seen():
    batches = [batch(3, pixel_values_videos=torch.ones(1)), batch(0), batch(2, pixel_values=torch.ones(1))]
    assert forward_signatures(batches, LATENT, 3, CPU).tolist() == [[3, 0b010], [0, 0], [2, 0b001]]


def test_route_of_cached_features_is_not_that_of_pixels():
    assert forward_signatures([batch(3, video_features=torch.ones(1))], LATENT, 1, CPU).tolist() == [[3, 0b100]]


def test_last_batch_of_an_epoch_may_have_fewer_parts():
    assert forward_signatures([batch(3)], LATENT, 2, CPU).tolist() == [[3, 0], [-1, -1]]


def test_model_without_latent_tokens_has_no_latents():
    assert forward_signatures([batch(3)], None, 1, CPU).tolist() == [[0, 0]]


def test_batches_of_every_backbone_are_seen(kind):
    made = TinyCollator(kind)([{"number": 0}, {"number": 1}])
    assert forward_signatures([made], LATENT, 1, CPU)[0, 0] == 3
    assert forward_signatures([made], LATENT, 1, CPU)[0, 1] > 0


def test_processes_that_agree_go_on():
    check_ranks_match(routes([[3, WITH_VIDEO], [3, WITHOUT]], [[3, WITH_VIDEO], [3, WITHOUT]]))


def test_other_number_of_latents_is_named_with_its_process():
    expected = "micro-batch 1 .* 3 latents with `pixel_values_videos` on ranks 0, 2; 5 latents .* on rank 1"
    same, other = [[3, WITH_VIDEO], [3, WITH_VIDEO]], [[3, WITH_VIDEO], [5, WITH_VIDEO]]
    with pytest.raises(StageError, match=expected):
        check_ranks_match(routes(same, other, same))


def test_missing_video_is_named_with_its_process():
    with pytest.raises(StageError, match="3 latents with no video on rank 1"):
        check_ranks_match(routes([[3, WITH_VIDEO]], [[3, WITHOUT]]))


def test_missing_batch_is_named_with_its_process():
    with pytest.raises(StageError, match="no batch on rank 1"):
        check_ranks_match(routes([[3, WITH_VIDEO]], [[-1, -1]]))


def test_message_about_many_processes_stays_short():
    many = [[[3, WITH_VIDEO]]] * 63
    with pytest.raises(StageError, match="on ranks 0, 1, 2, 3 and 59 more; 5 latents .* on rank 63"):
        check_ranks_match(routes(*many, [[5, WITH_VIDEO]]))


def test_whole_model_is_not_in_pieces():
    assert not is_sharded(nn.Linear(2, 2))


def test_model_that_zero3_has_cut_is_in_pieces():
    model = nn.Linear(2, 2)
    model.bias.ds_id = 0  # what DeepSpeed marks its pieces with
    assert is_sharded(model)


def disagree_as_rank(rank, folder, is_sharded):
    """Count an accumulated batch of another number of latents on each process, and write down what happened."""
    meet(rank, 2, folder / "meeting-point")
    model = tiny_storm("qwen2_5_vl", num_latents=3)
    trainer = tiny_trainer("answer", "qwen2_5_vl", folder, num_latents=3 + 2 * rank, model=model)
    if is_sharded:
        fully_shard(model)
    try:
        trainer._get_num_items_in_batch([trainer.data_collator([{"number": 0}])], CPU)
        outcome = "no error"
    except StageError as error:
        outcome = str(error)
    (folder / f"{rank}.txt").write_text(outcome)
    del model, trainer
    leave()


@pytest.mark.parametrize(
    ("is_sharded", "expected"), [(True, "5 latents with `pixel_values_videos` on rank 1"), (False, "no error")]
)
def test_only_sharded_processes_must_agree_and_each_is_told(is_sharded, expected, tmp_path):
    ranks = [start(disagree_as_rank, rank, tmp_path, is_sharded) for rank in (0, 1)]
    assert finish_together(ranks) == [0, 0]
    for rank in (0, 1):
        assert expected in (tmp_path / f"{rank}.txt").read_text()
