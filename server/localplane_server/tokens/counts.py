"""Counts of tokens and of the predictions that they were for."""

from __future__ import annotations

from dataclasses import dataclass

from localplane_server import events


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """Counts that only grow."""

    prompt_tokens: int = 0
    """Tokens of prompts and of embedded texts."""
    completion_tokens: int = 0
    """Tokens generated."""
    completions: int = 0
    """Texts completed."""
    chats: int = 0
    """Chats answered."""
    embeddings: int = 0
    """Calls that embedded texts."""
    errors: int = 0
    """Of all these, those that ended in an error."""
    aborts: int = 0
    """Of all these, those whose caller went away."""
    estimated: int = 0
    """Of all these, those whose tokens were estimated."""

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            completions=self.completions + other.completions,
            chats=self.chats + other.chats,
            embeddings=self.embeddings + other.embeddings,
            errors=self.errors + other.errors,
            aborts=self.aborts + other.aborts,
            estimated=self.estimated + other.estimated,
        )


NOTHING = TokenCounts()
"""No tokens, no predictions."""


def counts_of(event: events.PredictionFinished) -> TokenCounts:
    """Return what one prediction adds."""
    return TokenCounts(
        prompt_tokens=event.prompt_tokens,
        completion_tokens=event.completion_tokens,
        completions=int(event.operation == "completion"),
        chats=int(event.operation == "chat"),
        embeddings=int(event.operation == "embedding"),
        errors=int(event.outcome == "error"),
        aborts=int(event.outcome == "aborted"),
        estimated=int(event.estimated),
    )
