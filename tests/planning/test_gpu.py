import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.planning.gpu import BYTES_PER_SECOND, GIB, MEMORY_GIB, Gpu, find_gpu, verdict
from storm_hf.training.device import PEAK_FLOPS_PER_SECOND


GPU = Gpu("a GPU", 24, 1e12, 1e12)


def test_every_gpu_of_known_speed_has_a_known_memory_and_bandwidth():
    assert MEMORY_GIB.keys() == PEAK_FLOPS_PER_SECOND.keys() == BYTES_PER_SECOND.keys()


def test_gpu_is_found_by_a_part_of_its_name():
    assert find_gpu("4090") == Gpu("NVIDIA GeForce RTX 4090", 24, 165.2e12, 1008e9)
    with pytest.raises(ConfigurationError, match="abacus"):
        find_gpu("abacus")


@pytest.mark.parametrize("full_name", MEMORY_GIB)
def test_gpu_is_found_by_its_whole_name(full_name):
    assert find_gpu(full_name).name == full_name
    assert find_gpu(full_name.removeprefix("NVIDIA ").lower()).name == full_name


def test_a10_is_no_a100_and_no_name_is_no_gpu():
    assert (find_gpu("a10").name, find_gpu("a100").memory_gib) == ("NVIDIA A10", 40)
    with pytest.raises(ConfigurationError, match="got ' '"):
        find_gpu(" ")


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
