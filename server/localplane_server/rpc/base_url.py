"""The address of REST, for the links in answers."""

from __future__ import annotations

import re

LONGEST_URL = 2048
"""Characters of a URL that is repeated to whoever sent it."""

_URL = re.compile(
    r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%/-]*)?"
)


def base_url(public_url: str | None, sent: str) -> str:
    """Return the address of REST with a slash at its end, or an empty text where it is not known.

    Args:
        public_url: The one that the operator set, which wins.
        sent: What came with the call. Anybody can send anything, so it is taken where it is a URL.
    """
    url = public_url or sent
    if not public_url and not (len(url) <= LONGEST_URL and _URL.fullmatch(url)):
        return ""
    return url.rstrip("/") + "/"
