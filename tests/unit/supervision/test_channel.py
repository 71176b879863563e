"""Messages between the server, its keeper and its wardens."""

from __future__ import annotations

import os

import pytest

from localplane_server.supervision import channel


def test_message_with_descriptors() -> None:
    """A message arrives whole, with descriptors of the same files, which close on exec."""
    ours, theirs = channel.pair()
    with ours, theirs:
        reading, writing = os.pipe()
        channel.send(ours, {"text": "snow\udcff", "number": 1.5}, [reading, writing])
        received = channel.receive(theirs)

        assert received is not None
        assert {"text": "snow\udcff", "number": 1.5} == received.message
        os.write(received.descriptors[1], b"through")
        assert b"through" == os.read(reading, 10)
        assert [False, False] == [os.get_inheritable(number) for number in received.descriptors]
        for number in (reading, writing, *received.descriptors):
            os.close(number)


def test_messages_stay_apart() -> None:
    """Two messages are two, also when they are read late."""
    ours, theirs = channel.pair()
    with ours, theirs:
        channel.send(ours, {"number": 1})
        channel.send(ours, {"number": 2})

        received = [channel.receive(theirs), channel.receive(theirs)]

        assert [{"number": 1}, {"number": 2}] == [one.message for one in received if one]


@pytest.mark.parametrize("is_unread", [False, True])
def test_other_end_is_gone(*, is_unread: bool) -> None:
    """The end of the other side is an end, whether or not it had read everything."""
    ours, theirs = channel.pair()
    with ours:
        if is_unread:
            channel.send(ours, {})
        theirs.close()

        assert channel.receive(ours) is None
        with pytest.raises(ConnectionError):
            channel.send(ours, {})


def test_nothing_to_read() -> None:
    """An end that does not block says that there is nothing."""
    ours, theirs = channel.pair()
    with ours, theirs:
        ours.settimeout(0)

        with pytest.raises(BlockingIOError):
            channel.receive(ours)
