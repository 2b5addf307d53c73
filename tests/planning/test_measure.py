import torch

from storm_hf.planning.measure import LiveBytes


def test_only_living_tensors_count_and_views_count_once():
    known = torch.ones(10)
    with LiveBytes([known]) as memory:
        doubled = known * 2
        view = doubled[:5].view(5, 1)
        assert memory.now == 40
        del doubled
        assert memory.now == 40, "the view still needs it"
        del view
        assert (memory.now, memory.peak) == (0, 40)


def test_what_backward_needs_counts_until_it_is_done():
    weight = torch.ones(100, requires_grad=True)
    with LiveBytes([weight]) as memory:
        loss = weight.exp().sum()
        assert memory.now == 404, "the exponential and the loss"
        loss.backward()
        del loss
        assert memory.now == 400, "the gradient"
