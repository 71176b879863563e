"""A service on a machine that reaches everything through a proxy, and that proxy by tunnels alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import file_server
from connect_proxy import certify, proxying
from served import served, wait_until

CONTENT = bytes(range(256)) * 4000


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="there is no openssl to make a certificate with"
)
def test_install(tmp_path: Path) -> None:
    """A model is planned and installed through it; no connection is made around it."""
    # A name that this machine knows without asking anybody; there is nothing at its port 443.
    certificate, tls = certify(tmp_path, "localhost")
    with file_server.serving(tls) as files, proxying() as proxy:
        proxy.routes["localhost:443"] = ("127.0.0.1", files.port)
        digest = files.put("/m.bin", CONTENT, etag='"m"').sha256
        request = {
            "name": "m",
            "config_file": {"backend": "nowhere", "parameters": {"model": "m.bin"}},
            "files": [{"filename": "m.bin", "uri": "https://localhost/m.bin", "sha256": digest}],
        }
        with served(
            *("--allow-private-hosts", "localhost", "--galleries", "[]"),
            folder=tmp_path / "data",
            https_proxy=proxy.url,
            no_proxy="none.example",
            SSL_CERT_FILE=str(certificate),
            PIP_CONFIG_FILE=os.devnull,
        ) as service:
            plan = service.post("/models/plan", **request).raise_for_status().json()
            job = service.post("/models/apply", **request).raise_for_status().json()["uuid"]
            wait_until(lambda: bool(service.get(f"/models/jobs/{job}").json()["processed"]))
            done = service.get(f"/models/jobs/{job}").json()

        assert (len(CONTENT), True) == (plan["fetch_bytes"], plan["fits"])
        assert ("completed", 100) == (done["state"], done["progress"]), done
        assert CONTENT == (tmp_path / "data" / "models" / "m.bin").read_bytes()
        assert {"localhost:443"} == set(proxy.targets())
