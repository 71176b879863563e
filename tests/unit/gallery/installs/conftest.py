"""What tests of installations and deletions work with."""

from __future__ import annotations

from pathlib import Path

import pytest

from workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """All that installs and deletes models, in a folder of its own."""
    return Workshop(tmp_path)
