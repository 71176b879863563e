"""Only public addresses are reached, however they are written, unless the operator names the host."""

from __future__ import annotations

import pytest

from localplane_server.downloads.addresses import AddressPolicy, is_public, shown
from localplane_server.errors import SourceRefusedError

PRIVATE = [
    "0.0.0.0",  # noqa: S104 - refused, not listened on
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private(address: str) -> None:
    """An address of a private network, of this machine, or of no single machine is refused."""
    assert not is_public(address)
    with pytest.raises(SourceRefusedError, match="not on the public Internet"):
        AddressPolicy().reachable("name", 443, [address])


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """The rest is not."""
    assert is_public(address)
    assert [address] == AddressPolicy().reachable("name", 443, [address])


def test_some_are_public() -> None:
    """Of several addresses, those that are public are used."""
    found = ["10.0.0.1", "1.1.1.1", "::1"]

    assert ["1.1.1.1"] == AddressPolicy().reachable("name", 443, found)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/m",
        "https://[::1]/m",
        "https://[::ffff:127.0.0.1]:8443/m",
        "https://169.254.169.254/latest/meta-data",
        "http://example.org/m",
        "ftp://example.org/m",
        "gopher://example.org/m",
        "//example.org/m",
        "https:///m",
        "https://a..example/m",
        "https://%6c%6fcalhost/m",
        "https://8.8.8.8%00.example/m",
        "https://a,b/m",
        "https://127。0。0。1%/m",
        "https://" + "a" * 64 + ".example/m",
        "https://user:secret@example.org/m",
        "https://example.org:port/m",
        "https://[::1/m",
        "https://exa mple.org/m",
    ],
)
def test_refused_by_its_looks(url: str) -> None:
    """A URL that cannot be right is refused before anything is resolved, and keeps its secrets."""
    with pytest.raises(SourceRefusedError) as caught:
        AddressPolicy().check_url(url)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("named", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080/m"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/m"),
        ("::1", "https://[::1]/m"),
        ("[::1]:8080", "http://[::1]:8080/m"),
        ("Models.Corp.", "http://models.corp/m"),
    ],
)
def test_named(named: str, url: str) -> None:
    """A host that the operator names may have any address, and needs no TLS."""
    policy = AddressPolicy.of([named])
    parts = policy.check_url(url)

    host = parts.hostname or ""
    assert ["10.0.0.1"] == policy.reachable(host, parts.port or 443, ["10.0.0.1"])


@pytest.mark.parametrize("url", ["http://127.0.0.1:8081/m", "http://localhost:8080/m"])
def test_another_is_not_named(url: str) -> None:
    """Another port, or another name of the same, is not named."""
    with pytest.raises(SourceRefusedError):
        AddressPolicy.of(["127.0.0.1:8080"]).check_url(url)


def test_allow_http() -> None:
    """Without TLS when that is allowed, but not to private addresses."""
    policy = AddressPolicy.of(allow_http=True)
    policy.check_url("http://example.org/m")

    with pytest.raises(SourceRefusedError):
        policy.check_url("http://10.0.0.1/m")


def test_shown() -> None:
    """What a message repeats of a URL has no keys in it."""
    assert "https://host/m" == shown("https://user:pass@host/m?token=1#part")


@pytest.mark.parametrize(
    "url",
    [
        "https://bücher.example/m",
        "https://my_host.example./m",
        "https://[2606:4700::1111%25eth0]/m",
    ],
)
def test_unusual_hosts(url: str) -> None:
    """Names in other letters, with underscores or a dot at the end, and zones are nothing wrong."""
    assert url == AddressPolicy().check_url(url).geturl()
