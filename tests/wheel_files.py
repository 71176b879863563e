"""Wheels of the Python package index, made for tests."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping


def build_wheel(package: str, version: str, members: Mapping[str, bytes]) -> bytes:
    """Return a wheel that pip accepts, with some files in it."""
    information = f"{package.replace('-', '_')}-{version}.dist-info"
    everything = {
        **members,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        "Requires-Dist: a-package-that-is-nowhere\n".encode(),
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*everything, f"{information}/RECORD"])
    return build_zip({**everything, f"{information}/RECORD": record.encode()})


def build_zip(members: Mapping[str, bytes]) -> bytes:
    """Return a zip with some files in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            # Dated by itself, not by the clock: the same content is the same wheel.
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return content.getvalue()
