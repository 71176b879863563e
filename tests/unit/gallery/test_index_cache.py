"""Copies of indexes on disk."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from localplane_server.downloads.progress import Validators
from localplane_server.gallery.index_cache import IndexCache, IndexCopy

URL = "https://host/index.yaml"
COPY = IndexCopy(
    content=b"- name: a\n",
    source="https://mirror/index.yaml",
    validators=Validators('"tag"', "Mon, 01 Jan 2024 00:00:00 GMT"),
    fetched_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


def test_round_trip(tmp_path: Path) -> None:
    """A copy comes back as it was, by the gallery's URL; the file is still YAML."""
    cache = IndexCache(tmp_path / "galleries")
    cache.write(URL, COPY)
    (file,) = (tmp_path / "galleries").iterdir()

    assert COPY == cache.read(URL)
    assert cache.read("https://other/") is None
    assert [{"name": "a"}] == yaml.safe_load(file.read_text())


def test_none(tmp_path: Path) -> None:
    """Where nothing was kept, there is nothing."""
    assert IndexCache(tmp_path / "nowhere").read(URL) is None


@pytest.mark.parametrize("cut", [0, 10, 60, 300])
def test_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int) -> None:
    """A copy that was cut or changed is none, and the log says so."""
    cache = IndexCache(tmp_path)
    cache.write(URL, COPY)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    file.write_bytes(data[:cut] if cut < 300 else data + b"- name: more\n")
    with caplog.at_level(logging.WARNING):
        assert cache.read(URL) is None

    assert "cannot be used" in caplog.text


def test_removal(tmp_path: Path) -> None:
    """A copy can be thrown away, also one that is not there."""
    cache = IndexCache(tmp_path)
    cache.write(URL, COPY)
    cache.remove(URL)
    cache.remove(URL)

    assert [] == list(tmp_path.iterdir())


def test_no_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder that takes nothing costs the copy and a line of the log, and nothing else."""
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        IndexCache(tmp_path / "file").write(URL, COPY)

    assert "cannot keep a copy" in caplog.text
