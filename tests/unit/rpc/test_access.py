"""Keys and what they open."""

from __future__ import annotations

from pathlib import Path

import pytest

from localplane_server.errors import PermissionDeniedError, SettingsError, UnauthenticatedError
from localplane_server.rpc.access import Keys, Role, read_keys

KEYS = Keys({"boss": Role.ADMIN, "guest": Role.USER})


class TestCheck:
    def test_open_without_keys(self) -> None:
        """Without any key, everything is open."""
        Keys({}).check(None, Role.ADMIN)

    @pytest.mark.parametrize("given", ["Bearer boss", "bearer boss", "Bearer  boss ", "boss"])
    def test_key_in_every_form(self, given: str) -> None:
        """With the scheme in any case, and bare."""
        KEYS.check(given, Role.ADMIN)

    def test_public_needs_none(self) -> None:
        """What is public asks for nothing, and a wrong key does no harm."""
        KEYS.check(None, None)
        KEYS.check("Bearer wrong", None)

    @pytest.mark.parametrize(
        "given", [None, "", "Bearer ", "Bearer wrong", "Basic boss", "Bearer bos"]
    )
    def test_refused(self, given: str | None) -> None:
        """No key, an empty one, a wrong one, another scheme, a part of a key."""
        with pytest.raises(UnauthenticatedError):
            KEYS.check(given, Role.USER)

    def test_role(self) -> None:
        """A user's key opens what users may do, and no more."""
        KEYS.check("Bearer guest", Role.USER)

        with pytest.raises(PermissionDeniedError):
            KEYS.check("Bearer guest", Role.ADMIN)


class TestReadKeys:
    def write(self, folder: Path, text: str, mode: int = 0o600) -> Path:
        file = folder / "keys"
        file.write_text(text)
        file.chmod(mode)
        return file

    def test_file_and_settings(self, tmp_path: Path) -> None:
        """Comments and blank lines are skipped; a key without a role is an administrator's."""
        keys = read_keys(["env"], self.write(tmp_path, "# ours\n\na\nb user\nc admin\n"))

        for key in ("env", "a", "c"):
            keys.check(key, Role.ADMIN)
        with pytest.raises(PermissionDeniedError):
            keys.check("b", Role.ADMIN)

    @pytest.mark.parametrize("text", ["", "# nothing\n", "key root\n"])
    def test_bad_file(self, tmp_path: Path, text: str) -> None:
        """A file without a key, or with a role that there is not, never means: open to all."""
        with pytest.raises(SettingsError) as caught:
            read_keys([], self.write(tmp_path, text))

        assert "key root" not in str(caught.value)

    def test_file_that_others_may_read(self, tmp_path: Path) -> None:
        """Keys that others may read are no keys."""
        with pytest.raises(SettingsError, match="chmod 600"):
            read_keys([], self.write(tmp_path, "a", 0o644))

    def test_missing_file(self, tmp_path: Path) -> None:
        """A file that was asked for must be there."""
        with pytest.raises(SettingsError, match="cannot read"):
            read_keys([], tmp_path / "none")
