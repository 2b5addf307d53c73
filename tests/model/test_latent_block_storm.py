import pytest
import torch
from tests.tiny import LATENT, LATENT_END, LATENT_START, tiny_config

from storm_hf.errors import LatentError
from storm_hf.model import StormConfig
from storm_hf.model.latent_block_storm import RowAlignment, find_latent_block


S, L, E = LATENT_START, LATENT, LATENT_END


@pytest.fixture(scope="module")
def config():
    ids = {"latent_start_token_id": S, "latent_token_id": L, "latent_end_token_id": E}
    return StormConfig(vlm_config=tiny_config("qwen3_vl"), num_latents=2, max_num_latents=4, **ids)


def test_block_is_found_in_every_row(config):
    block = find_latent_block(torch.tensor([[0, 5, S, L, L, E, 6], [5, 5, S, L, L, E, 6]]), config)
    assert (block.first, block.num_latents, block.start, block.stop) == ((3, 3), 2, 3, 5)
    assert block.is_aligned


def test_rows_may_hold_their_blocks_in_different_columns(config):
    block = find_latent_block(torch.tensor([[5, S, L, E, 0], [5, 5, S, L, E]]), config)
    assert (block.first, block.start, block.stop) == ((2, 3), 3, 4)
    assert not block.is_aligned


def test_text_without_latent_tokens_has_no_block(config):
    assert find_latent_block(torch.tensor([[5, 6, 7]]), config) is None


def test_model_without_latent_tokens_has_no_block():
    config = StormConfig(vlm_config=tiny_config("qwen3_vl"))
    assert find_latent_block(torch.tensor([[5, S, L, E]]), config) is None


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        ([[S, L, E, 5, S, L, E]], "last assistant turn only"),  # two blocks
        ([[5, S, L, L, E], [5, 5, S, L, E]], "Render all rows with one `num_latents`"),  # ragged
        ([[5, S, L, E], [5, 6, 7, 8]], "Render all rows with one `num_latents`"),  # a row without a block
        ([[L, E, 5, 6]], "Put `<|latent_start|>` and the question before"),  # nothing before the first latent
        ([[5, L, L, E]], "chat template"),  # no start
        ([[5, S, L, L]], "chat template"),  # no end
        ([[5, S, L, L, 6]], "chat template"),
        ([[5, S, L, 6, L, E]], "chat template"),  # interrupted
        ([[5, S, L, E, 6, E]], "chat template"),  # a marker alone
        ([[5, S, L, E, 6, S]], "chat template"),
        ([[5, S, 6, 7]], "chat template"),
        ([[5, S, E, 7]], "chat template"),  # an empty block
        ([[5, E, L, S]], "chat template"),  # the wrong way round
        ([[5, S, L, L, L, L, L, E]], "raise `config.max_num_latents`"),  # longer than the bound
    ],
)
def test_anything_but_one_whole_block_per_row_is_refused(config, rows, advice):
    with pytest.raises(LatentError) as error:
        find_latent_block(torch.tensor(rows), config)
    assert advice in str(error.value)


@pytest.mark.parametrize(
    ("piece", "num_latents"),
    [([5, S, L], 1), ([L, L], 2), ([L, E, 5], 1), ([S, L, L, E], 2), ([5, S], 0), ([E, 6], 0)],
)
def test_piece_of_a_prompt_may_cut_the_block_at_its_edges(config, piece, num_latents):
    block = find_latent_block(torch.tensor([piece]), config, is_chunk=True)
    assert (0 if block is None else block.num_latents) == num_latents


@pytest.mark.parametrize("piece", [[5, L, E], [L, 5], [5, E], [S, 5], [L, L, S]])
def test_piece_that_no_cut_explains_is_refused(config, piece):
    with pytest.raises(LatentError):
        find_latent_block(torch.tensor([piece]), config, is_chunk=True)


def test_rows_move_to_shared_columns_and_back(config):
    input_ids = torch.tensor([[5, S, L, E, 6, 0], [0, 5, 5, S, L, E]])
    mask = (input_ids != 0).long()
    rows = RowAlignment(find_latent_block(input_ids, config), mask)
    moved = rows.move(input_ids, padding=9)
    assert moved.tolist() == [[9, 9, 5, S, L, E, 6, 0], [0, 5, 5, S, L, E, 9, 9]]
    assert rows.move(mask).tolist() == [[0, 0, 1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1, 0, 0]]
    assert torch.equal(rows.move_back(moved), input_ids)


def test_positions_of_several_axes_move_with_their_rows(config):
    input_ids = torch.tensor([[5, S, L, E, 6], [5, 5, S, L, E]])
    rows = RowAlignment(find_latent_block(input_ids, config), torch.ones_like(input_ids))
    positions = torch.arange(5).expand(3, 2, 5)
    moved = rows.move(positions)
    assert moved.shape == (3, 2, 6)
    assert moved[2].tolist() == [[0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 0]]


def test_attention_is_moved_back_in_queries_and_keys(config):
    input_ids = torch.tensor([[5, S, L, E, 6], [5, 5, S, L, E]])
    rows = RowAlignment(find_latent_block(input_ids, config), torch.ones_like(input_ids))
    attention = torch.arange(36.0).view(1, 1, 6, 6).expand(2, 3, 6, 6)
    back = rows.move_back(rows.move_back(attention, dim=2), dim=3)
    assert back.shape == (2, 3, 5, 5)
    assert torch.equal(back[0, 0], attention[0, 0, 1:, 1:])
    assert torch.equal(back[1, 0], attention[1, 0, :5, :5])
