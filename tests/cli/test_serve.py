import inspect

import pytest
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.cli.serve import serve_model
from storm_hf.serving.limits import RequestLimiter
from storm_hf.serving.media import MediaPolicy
from storm_hf.serving.run import ServerSettings


DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(serve_model).parameters.items()}
SETTINGS = ServerSettings(model="model")


@pytest.mark.parametrize(
    "name", ["host", "port", "dtype", "max_new_tokens", "max_video_seconds", "max_in_flight", "body_seconds"]
)
def test_default_of_an_option_is_that_of_the_settings(name):
    assert DEFAULTS[name] == getattr(SETTINGS, name)


def test_default_size_of_a_file_is_that_of_the_settings():
    assert DEFAULTS["max_file_mib"] * 2**20 == SETTINGS.max_file_bytes


@pytest.mark.parametrize("option", ["--max-file-mib", "--prefix-cache-mib"])
@pytest.mark.parametrize("size", ["inf", "nan", "-1"])
def test_size_that_is_no_number_of_bytes_is_refused_by_its_option(option, size):
    result = CliRunner().invoke(app, ["serve", "--model", "absent", option, size])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


@pytest.mark.parametrize("command", ["serve", "app"])
@pytest.mark.parametrize("port", ["65536", "-1"])
def test_port_that_does_not_exist_is_refused_by_its_option(command, port):
    result = CliRunner().invoke(app, [command, "--model", "absent", "--port", port])
    assert result.exit_code == 2
    assert "Invalid value for '--port'" in result.output


def test_defaults_of_the_limits_are_those_of_the_settings():
    limiter, media = RequestLimiter(), MediaPolicy()
    assert (limiter.max_in_flight, limiter.body_seconds) == (SETTINGS.max_in_flight, SETTINGS.body_seconds)
    assert (limiter.max_request_bytes, limiter.max_buffered_bytes) == (2 * media.max_bytes, 16 * media.max_bytes)
    assert (media.max_bytes, media.max_video_seconds) == (SETTINGS.max_file_bytes, SETTINGS.max_video_seconds)
