import pytest
import torch

from storm_hf.errors import LatentError
from storm_hf.target_trajectory import choose_rank


@pytest.fixture(scope="module")
def world():
    """Slots (clips, steps, 64) whose first 20 components are layout, and whose state of four values is in the next 4."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randint(0, 4, (300, 3), generator=generator)
    layout = 5 * torch.randn(300, 3, 20, generator=generator)
    state = 2 * torch.nn.functional.one_hot(states, 4)
    noise = 0.01 * torch.randn(300, 3, 40, generator=generator)
    return torch.cat([layout, state, noise], dim=-1), states


def test_probe_finds_the_rank_that_holds_the_state_though_it_varies_little(world):
    trajectories, states = world
    labels = [[f"cup{state}" for state in clip] for clip in states.tolist()]
    report = choose_rank(trajectories, labels)
    assert report.rank == 24
    assert report.accuracy[report.ranks.index(16)] < 0.5
    assert report.accuracy[report.ranks.index(24)] > 0.99


def test_variance_decides_without_labels_and_misses_a_small_state(world):
    report = choose_rank(world[0], ranks=(8, 20, 32))
    assert report.rank == 20
    assert report.accuracy is None
    assert report.explained[1] >= 0.95 > report.explained[0]


def test_states_of_many_parts_are_probed_part_by_part(world):
    trajectories, states = world
    tiles = torch.stack([states % 2, states // 2], dim=-1).numpy()
    assert choose_rank(trajectories, tiles).rank == 24


def test_rank_that_holds_most_parts_but_not_all_is_not_enough():
    tiles = torch.randint(0, 2, (300, 3, 40), generator=torch.Generator().manual_seed(0))
    loud = torch.cat([10.0 * tiles[..., :39], 1.0 * tiles[..., 39:]], dim=-1)
    report = choose_rank(loud, tiles.numpy(), ranks=(39, 40))
    assert report.rank == 40
    assert report.accuracy[0] < 0.7


def test_part_that_no_rank_shows_does_not_choose(caplog):
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 2, (300, 3, 41), generator=generator)
    shown = 1.0 * tiles[..., :40]
    for ranks in ((8, 16, 40), (40, 16, 8)):
        assert choose_rank(shown, tiles.numpy(), ranks).rank == 40
    assert "1 of 41 parts" in caplog.text


def test_part_that_never_changes_is_no_obstacle(world, caplog):
    trajectories, states = world
    parts = torch.stack([states, torch.zeros_like(states)], dim=-1).numpy()
    assert choose_rank(trajectories, parts).rank == 24
    assert caplog.text == ""


def test_variance_decides_where_no_part_can_be_read(world):
    noise = torch.randint(0, 4, (300, 3), generator=torch.Generator().manual_seed(1)).numpy()
    report = choose_rank(world[0], noise, ranks=(8, 20, 32))
    assert report.rank == 20
    assert report.accuracy is None


def test_ranks_beyond_the_latent_are_left_out(world):
    assert choose_rank(world[0], ranks=(8, 16, 32, 128), hidden_size=16).ranks == (8, 16)


def test_table_marks_the_chosen_rank(world):
    lines = str(choose_rank(world[0], ranks=(8, 20))).splitlines()
    assert [line for line in lines if "chosen" in line] == [lines[2]]
    assert lines[2].split()[0] == "20"


def test_labels_of_another_number_of_slots_are_refused(world):
    with pytest.raises(LatentError, match="300 clips and 3 slots"):
        choose_rank(world[0], world[1][:, :2].numpy())


def test_ranks_that_all_exceed_the_slot_are_refused(world):
    with pytest.raises(LatentError, match="from 1 to 64"):
        choose_rank(world[0], ranks=(65, 128))
