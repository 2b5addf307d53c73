import pytest

from storm_hf.hub.licenses import LicenseRule


@pytest.mark.parametrize("name", ["CC0-1.0", "CC BY 4.0", "cc-by-sa-3.0", "Apache-2.0", "MIT", "BSD-3-Clause"])
def test_free_licence_permits_whatever_its_version(name):
    assert LicenseRule().permits(name)


@pytest.mark.parametrize("name", ["unknown", "", "other", "proprietary", "CC-BY-ND-4.0", "cc-by-nc-nd-4.0", "MIT-ish"])
def test_what_is_not_known_to_permit_is_withheld(name):
    assert not LicenseRule().permits(name)


def test_all_licences_have_to_permit():
    assert not LicenseRule().permits("MIT", "unknown")


def test_denied_wins_over_allowed():
    rule = LicenseRule(allowed=frozenset({"mine"}), denied=frozenset({"mine", "mit"}))
    assert not rule.permits("mine")
    assert not rule.permits("MIT")
    assert LicenseRule(allowed=frozenset({"Mine 2.0"})).permits("mine")
