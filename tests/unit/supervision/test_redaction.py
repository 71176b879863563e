"""What nobody else may read."""

from __future__ import annotations

from localplane_server.supervision.redaction import redacted, secrets_in

ENVIRONMENT = {
    "HF_TOKEN": "hf_0123456789",
    "AWS_SECRET_ACCESS_KEY": "abcdefgh12345678",
    "db_password": "correct horse",
    "TOKENIZERS_PARALLELISM": "false",
    "EMPTY_KEY": "",
    "PATH": "/usr/bin:/usr/local/bin",
}


def test_which_values_are_secret() -> None:
    """The name of a variable says it; what is too short could be any word."""
    assert {"hf_0123456789", "abcdefgh12345678", "correct horse"} == set(secrets_in(ENVIRONMENT))


def test_text() -> None:
    """Each secret is replaced wherever it stands; the rest stays."""
    text = "401: hf_0123456789 is no key (/usr/bin:/usr/local/bin); correct horses"

    assert "401: *** is no key (/usr/bin:/usr/local/bin); ***s" == redacted(
        text, secrets_in(ENVIRONMENT)
    )


def test_one_within_another() -> None:
    """A secret that contains another one leaves no part of itself."""
    environment = {"A_KEY": "12345678", "B_KEY": "12345678abcdefgh"}

    assert "***" == redacted("12345678abcdefgh", secrets_in(environment))
