"""Which models can be installed, and which are."""

from __future__ import annotations

from pathlib import Path

import pytest

from localplane_server.gallery.available import Wanted, available, installed_keys
from localplane_server.gallery.galleries import Offer
from localplane_server.gallery.index import parse_index
from localplane_server.models.catalog import ModelCatalog

OFFER = Offer(
    indexes=(
        parse_index(
            b"- {name: Zeta, description: A small Talker, tags: [LLM, gguf]}\n"
            b"- {name: org/alpha, overrides: {backend: Whisper}, tags: [stt]}\n",
            gallery="one",
        ),
        parse_index(b"- {name: beta, tags: [llm]}\n", gallery="two"),
    ),
    revision="r",
)


def found(wanted: Wanted, installed: frozenset[str] = frozenset()) -> list[str]:
    models = list(available(OFFER, installed, wanted))
    assert sorted(model.order for model in models) == [model.order for model in models]
    return [model.entry.name for model in models]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(), ["org/alpha", "Zeta", "beta"]),
        (Wanted(term="TALKER"), ["Zeta"]),
        (Wanted(term="  llm small "), ["Zeta"]),
        (Wanted(term="llm alpha"), []),
        (Wanted(term="llm"), ["Zeta", "beta"]),
        (Wanted(tag="llm"), ["Zeta", "beta"]),
        (Wanted(tag="ll"), []),
        (Wanted(backend="whisper"), ["org/alpha"]),
        (Wanted(installed=True), ["beta"]),
        (Wanted(installed=False), ["org/alpha", "Zeta"]),
        (Wanted(installed=False, tag="llm", term="small"), ["Zeta"]),
    ],
)
def test_wanted(wanted: Wanted, names: list[str]) -> None:
    """All that is asked for must be true; models come by gallery and name."""
    assert names == found(wanted, frozenset({"beta"}))


def test_installed(tmp_path: Path) -> None:
    """A configuration has its name, or its file is called so; others are nobody's business."""
    catalog = ModelCatalog(tmp_path)
    assert frozenset() == installed_keys(OFFER, catalog.configured())
    (tmp_path / "org__alpha.yaml").write_text("name: something-else\n")
    (tmp_path / "x.yaml").write_text("name: BETA\n")
    (tmp_path / "y.yaml").write_text("name: gamma\n")
    (tmp_path / "Zeta.gguf").touch()

    catalog.reload()
    assert frozenset({"org__alpha", "beta"}) == installed_keys(OFFER, catalog.configured())
