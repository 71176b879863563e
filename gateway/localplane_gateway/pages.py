"""Headers of answers that a browser shows as a page."""

from __future__ import annotations

PAGE_HEADERS = [
    (
        b"content-security-policy",
        b"; ".join(
            [
                b"default-src 'self'",
                b"style-src 'self' 'unsafe-inline'",
                b"img-src 'self' data:",
                b"font-src 'self' data:",
                b"base-uri 'none'",
                b"form-action 'self'",
                b"frame-ancestors 'none'",
            ]
        ),
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
"""Nothing from elsewhere, and nobody else's frame around it."""
