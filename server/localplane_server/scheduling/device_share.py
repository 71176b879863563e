"""What one model takes of devices, which nobody can know before it was loaded there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

Amounts = Mapping[str, float]
"""Memory of devices, in bytes. One that is not there counts as nothing."""


@dataclass(slots=True, eq=False)
class DeviceShare:
    """What a model was seen to take of devices, and what follows for its next load."""

    needed: Amounts = field(default_factory=dict)
    """What it is thought to take: the most that it was seen to take when it was last loaded."""
    is_next_alone: bool = False
    """Whether its next load is given the devices for itself: the last one failed for want of memory beside others."""
    _has_failed_alone: bool = False
    """Whether that did not help, so that nobody has to go for it in vain again."""
    _alone: Amounts | None = None
    """What it was given so, until it is seen what it takes. None: it was not."""
    _seen: Amounts | None = None
    """What its backend was seen to take. None: it was not seen yet."""
    _most: Amounts = field(default_factory=dict)
    """The most of that since its load began."""
    _is_seen_loaded: bool = False
    """Whether it was seen while the model was loaded."""

    def taken(self, *, is_growing: bool) -> Amounts:
        """Return what the backend takes. What loads is not yet as large as it is going to be."""
        taken = self.needed if self._seen is None else self._seen
        if self._alone is not None and not self._is_seen_loaded:
            taken = larger(taken, self._alone)
        return larger(taken, self.needed) if is_growing else taken

    def see(
        self,
        devices: Mapping[str, float | None],
        told: Collection[str] | None,
        budgets: Amounts,
        *,
        is_loaded: bool,
    ) -> None:
        """Take note of what the backend was seen to take.

        Args:
            devices: What. None for one of them: it was not seen this time.
            told: Devices of which it was seen, whether it takes any or not. None: all.
            budgets: The devices that count.
            is_loaded: Whether the model is loaded.
        """
        seen = {
            device: bytes_
            for device, bytes_ in devices.items()
            if bytes_ is not None and device in budgets
        }
        before = self.needed if self._seen is None else self._seen
        # What is not told may be as it was.
        kept = {
            device: bytes_
            for device, bytes_ in before.items()
            if devices.get(device, 0) is None or (told is not None and device not in told)
        }
        self._seen = {**kept, **seen}
        self._most = larger(seen, self._most)
        self._is_seen_loaded |= is_loaded and not kept

    def begin(self, alone: Amounts) -> None:
        """Take note that its load begins.

        Args:
            alone: What it has if it is to be alone.
        """
        if self.is_next_alone:
            self._alone = alone
            self.is_next_alone = False

    def loaded(self, budgets: Amounts) -> None:
        """Take note that it is loaded: what was seen of that is less than what it has come to."""
        self._seen = None
        self._has_failed_alone = False
        self._remember(budgets)

    def failed(self, *, is_for_memory: bool) -> None:
        """Take note that its load failed.

        Args:
            is_for_memory: Whether that was for want of memory, and others had some that may be had.
        """
        if self._alone is not None:
            self._has_failed_alone = True
        elif not self._has_failed_alone:
            self.is_next_alone = is_for_memory

    def left(self, budgets: Amounts) -> None:
        """Take note that its backend is gone."""
        self._remember(budgets)
        self._seen, self._most = None, {}
        self._is_seen_loaded = False
        self._alone = None

    def bound(self, budgets: Amounts) -> None:
        """Think of no more than may be taken: whoever took more has the device alone."""
        self.needed = _bounded(self.needed, budgets)

    def may_try_again(self) -> None:
        """Forget what came of having the devices alone: the model's files are others now."""
        self.is_next_alone = self._has_failed_alone = False

    def forget(self) -> None:
        """Forget what follows for the next load: the model is another one now, or set up in another way."""
        self.may_try_again()
        self.needed = {}

    def _remember(self, budgets: Amounts) -> None:
        # What was seen of a load alone may be less than what the model needs.
        seen = _bounded(self._most, budgets)
        self.needed = seen if self._is_seen_loaded else larger(seen, self.needed)


def larger(one: Amounts, other: Amounts) -> Amounts:
    """Return what is larger of each device."""
    if one is other or not other:
        return one
    return {device: max(one.get(device, 0), other.get(device, 0)) for device in {**one, **other}}


def _bounded(amounts: Amounts, budgets: Amounts) -> Amounts:
    return {device: min(bytes_, budgets[device]) for device, bytes_ in amounts.items()}
