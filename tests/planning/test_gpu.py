import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.planning.gpu import GIB, MEMORY_GIB, Gpu, find_gpu, verdict
from storm_hf.training.device import PEAK_FLOPS_PER_SECOND


GPU = Gpu("a GPU", 24, 1e12)


def test_every_gpu_of_known_speed_has_a_known_memory():
    assert MEMORY_GIB.keys() == PEAK_FLOPS_PER_SECOND.keys()


def test_gpu_is_found_by_a_part_of_its_name():
    assert find_gpu("4090") == Gpu("NVIDIA GeForce RTX 4090", 24, 165.2e12)
    with pytest.raises(ConfigurationError, match="abacus"):
        find_gpu("abacus")


@pytest.mark.parametrize(
    ("gibibytes", "gpu", "says"),
    [
        (10.4, GPU, "10.4 of 24 GiB: fits"),
        (23.5, GPU, "23.5 of 24 GiB: does not fit, as driver and allocator keep about 1 GiB"),
        (30, GPU, "30.0 of 24 GiB: does not fit"),
        (10.4, None, "10.4 GiB per process: fits GPUs from 12 GiB up"),
        (11.5, None, "11.5 GiB per process: fits GPUs from 16 GiB up"),
        (500, None, "500.0 GiB per process: fits no single GPU"),
    ],
)
def test_verdict_says_whether_it_fits(gibibytes, gpu, says):
    assert verdict(int(gibibytes * GIB), gpu) == says
