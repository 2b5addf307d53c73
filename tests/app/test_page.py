"""Look of the page, without Gradio."""

from unittest.mock import MagicMock

from storm_hf.app import page


def test_words_that_gradio_has_in_no_language_are_given_to_it(monkeypatch):
    gradio = MagicMock()
    monkeypatch.setattr(page, "require", lambda name: gradio)
    assert page.look()["i18n"] is gradio.I18n.return_value
    gradio.I18n.assert_called_once_with(en={"common.complete": "Done"})
