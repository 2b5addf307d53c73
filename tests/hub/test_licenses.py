import pytest
from tests.hub.metadata import metadata_problems

from storm_hf.hub.licenses import HUB_LICENSES, LicenseRule, hub_license, hub_license_of_rows, other_license


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("CC0", "cc0-1.0"), ("CC0-1.0", "cc0-1.0"), ("CC BY 4.0", "cc-by-4.0"), ("cc_by_sa_4.0", "cc-by-sa-4.0")),
        *(
            ("MIT License", "mit"),
            ("The MIT Licence", "mit"),
            ("BSD", "bsd"),
            ("BSD 3-Clause License", "bsd-3-clause"),
        ),
        *(("Apache License, Version 2.0", "apache-2.0"), ("GPL v3", "gpl-3.0"), ("The Unlicense", "unlicense")),
        ("Creative Commons Attribution 4.0", "cc-by-4.0"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International", "cc-by-nc-sa-4.0"),
        *(("OpenRAIL++", "openrail++"), ("unknown", "unknown")),
    ],
)
def test_licence_is_named_as_the_hub_does(name, expected):
    assert hub_license(name) == {"license": expected}


@pytest.mark.parametrize(
    ("name", "license_name"),
    [
        *(
            ("CC-BY", "cc-by"),
            ("cc-by-nc", "cc-by-nc"),
            ("Apache", "apache"),
            ("YouTube", "youtube"),
            ("GPL-3.0-or-later",) * 2,
        ),
        *(
            ("public domain", "public-domain"),
            ("as the clip", "as-the-clip"),
            ("all rights reserved!", "all-rights-reserved"),
        ),
        *(
            ("", None),
            ("other", None),
            ("\u03a9", None),
            ("a" * 100, "a" * 64),
            ("x\n---\nlicense: mit", "x-license-mit"),
        ),
    ],
)
def test_licence_that_the_hub_does_not_list_is_other_with_its_name(name, license_name):
    named = hub_license(name)
    assert named == {"license": "other", **({"license_name": license_name.lower()} if license_name else {})}
    head = "".join(f"{key}: {value}\n" for key, value in named.items())
    assert metadata_problems(f"---\n{head}---\n", "dataset") == []
    assert other_license(name) == named


def test_every_licence_of_the_hub_is_itself():
    assert {name: hub_license(name)["license"] for name in HUB_LICENSES} == {name: name for name in HUB_LICENSES}
    assert not [name for name in HUB_LICENSES if metadata_problems(f"---\nlicense: {name}\n---\n", "model")]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"CC0", "CC0-1.0"}, {"license": "cc0-1.0"}),
        ({"CC0-1.0", "MIT"}, {"license": "other", "license_name": "each-row-has-its-own"}),
        ({"CC0-1.0", "unknown"}, {"license": "other", "license_name": "each-row-has-its-own"}),
        ({"YouTube"}, {"license": "other", "license_name": "youtube"}),
        ({"unknown"}, {}),
    ],
)
def test_licence_of_rows_is_the_one_of_all(names, expected):
    assert hub_license_of_rows(names) == expected
