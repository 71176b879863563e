"""Who may call what: keys, their roles, and the access that each method asks for."""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

from grpc.aio import AioRpcError, Metadata

from localplane.v1 import options_pb2
from localplane_server.errors import (
    LocalplaneError,
    PermissionDeniedError,
    SettingsError,
    UnauthenticatedError,
)
from localplane_server.rpc.status import status_of


class Role(enum.IntEnum):
    """What a key may do. A higher role may do all that a lower one may."""

    USER = 1
    ADMIN = 2


ACCESS = {
    options_pb2.ACCESS_UNSPECIFIED: Role.ADMIN,
    options_pb2.ACCESS_PUBLIC: None,
    options_pb2.ACCESS_USER: Role.USER,
    options_pb2.ACCESS_ADMIN: Role.ADMIN,
}
"""The role that each access option asks for; None asks for no key."""


class Keys:
    """The keys that callers may present, with their roles. Without any key everything is open.

    Only digests are kept; a presented key is compared with all of them in constant time.
    """

    def __init__(self, keys: Mapping[str, Role]) -> None:
        self._roles = [(_digest(key), role) for key, role in keys.items()]

    @property
    def is_open(self) -> bool:
        """Whether callers need no key."""
        return not self._roles

    def check(self, authorization: str | None, role: Role | None) -> None:
        """Return if the caller may do what asks for the role.

        Args:
            authorization: Value of the header `authorization`: `Bearer KEY`, or the bare key as LocalAI's clients
                may send it. None when there is none.
            role: The role asked for. None asks for nothing.

        Raises:
            UnauthenticatedError: If there is no key or an unknown one.
            PermissionDeniedError: If the key's role does not suffice.
        """
        if role is None or self.is_open:
            return
        if not authorization:
            raise UnauthenticatedError("An authentication key is required")
        held = self.role(authorization)
        if held is None:
            raise UnauthenticatedError("The authentication key is not valid")
        if held < role:
            raise PermissionDeniedError("cannot do this with a key of the role user", role="user")

    def role(self, authorization: str | None) -> Role | None:
        """Return the role of a caller; None where a key is needed and none, or an unknown one, is presented.

        Args:
            authorization: As for `check`.
        """
        if self.is_open:
            return Role.ADMIN
        scheme, _, rest = (authorization or "").partition(" ")
        presented = _digest(rest.strip() if scheme.lower() == "bearer" else authorization or "")
        held = None
        for digest, its_role in self._roles:
            if hmac.compare_digest(digest, presented):
                held = its_role
        return held


class KeyAuthenticator:
    """Checks keys for the gateway, before it reads a request; the call itself checks them again."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def check(self, credentials: str | None, access: str) -> None:
        """Return if the key may do what asks for the access.

        Args:
            credentials: The key that was presented, or None.
            access: `user` or `admin`.

        Raises:
            grpc.aio.AioRpcError: If it may not; as the call itself would answer.
        """
        try:
            self._keys.check(credentials, Role.ADMIN if access == "admin" else Role.USER)
        except LocalplaneError as error:
            status = status_of(error)
            trailing = Metadata(*status.trailing_metadata)
            raise AioRpcError(status.code, Metadata(), trailing, status.details) from error


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(keys: Iterable[str], file: Path | None) -> Keys:
    """Read the keys of the settings and of the key file.

    Raises:
        SettingsError: If the file cannot be read, can be read by other users, has no key, or a line that is none.
    """
    roles = dict.fromkeys(keys, Role.ADMIN)
    if file is not None:
        try:
            lines = file.read_text().splitlines()
            mode = file.stat().st_mode
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read the keys in {file}: {error}") from error
        if mode & 0o077:
            raise SettingsError(f"cannot use the keys in {file}: others may read it; chmod 600 it")
        found = dict(_key(line, file) for line in lines if line.strip() and line[0] != "#")
        if not found:
            raise SettingsError(f"cannot use {file}: it holds no key")
        roles.update(found)
    return Keys(roles)


def _key(line: str, file: Path) -> tuple[str, Role]:
    key, _, role = line.strip().partition(" ")
    role = role.strip()
    if role not in ("", "user", "admin"):
        # Never the line itself: it holds a key.
        raise SettingsError(f"cannot read the keys in {file}: a role is neither user nor admin")
    return key, Role.USER if role == "user" else Role.ADMIN
