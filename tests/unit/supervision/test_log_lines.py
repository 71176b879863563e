"""Output as lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from localplane_server.supervision.log_lines import LONGEST_LINE_BYTES, LineSplitter, Piece


def split(*chunks: bytes) -> list[Piece]:
    splitter = LineSplitter()
    pieces = [piece for chunk in chunks for piece in splitter.feed(chunk)]
    return pieces + splitter.end()


def lines(*texts: bytes) -> list[Piece]:
    return [(text, False) for text in texts]


class TestLines:
    def test_chunks_do_not_matter(self) -> None:
        """A line is whole wherever it was cut on its way, with any of the usual ends."""
        assert lines(b"one", b"", b"two", b"three") == split(b"on", b"e\n\nt", b"wo\r", b"\nthree")

    def test_nothing(self) -> None:
        """No output is no line."""
        assert [] == split(b"")

    @given(st.lists(st.binary(max_size=30)), st.lists(st.integers(0, 900)))
    def test_no_byte_is_lost(self, parts: list[bytes], cuts: list[int]) -> None:
        """Whatever the bytes are and wherever they are cut, the same lines come out."""
        text = b"\n".join(part.replace(b"\r", b"") for part in parts)
        at = sorted({min(cut, len(text)) for cut in cuts})
        chunks = [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]

        whole = text.split(b"\n")
        expected = whole[:-1] if not whole[-1] else whole
        assert lines(*expected) == split(*chunks)


class TestLongLines:
    def test_pieces(self) -> None:
        """A line that is too long comes in pieces, which together are the line."""
        pieces = split(b"x" * (2 * LONGEST_LINE_BYTES), b"y\nz\n")

        assert [True, True, False, False] == [goes_on for _, goes_on in pieces]
        assert b"x" * (2 * LONGEST_LINE_BYTES) + b"y" == b"".join(text for text, _ in pieces[:3])
        assert max(len(text) for text, _ in pieces) <= LONGEST_LINE_BYTES

    def test_characters_stay_whole(self) -> None:
        """No piece ends within a character."""
        text = "x" + "🎈" * LONGEST_LINE_BYTES
        pieces = split(text.encode() + b"\n")

        assert text == "".join(piece.decode() for piece, _ in pieces)

    def test_memory_is_bounded(self) -> None:
        """A line that never ends is not piled up."""
        splitter = LineSplitter()
        for _ in range(100):
            splitter.feed(b"x" * 65536)

        assert len(splitter._rest) <= LONGEST_LINE_BYTES


class TestProgress:
    def test_last_state_counts(self) -> None:
        """Of a line that is begun anew again and again, the last state is the line."""
        assert lines(b"100%", b"done") == split(b"\r 10%", b"\r 20%", b"\r100%\ndone\n")

    def test_end_of_state(self) -> None:
        """The return may stand behind what is shown."""
        assert lines(b"100%") == split(b" 10%\r", b"100%\r", b"\n")

    def test_a_look_meanwhile(self) -> None:
        """Whoever looks sees the state; states are lines of their own, and none comes twice."""
        splitter = LineSplitter()
        seen = splitter.feed(b"\r 10%\r 20%")
        seen += splitter.flush()
        seen += splitter.flush()
        seen += splitter.feed(b"\r 30%\r100%")
        seen += splitter.flush()
        seen += splitter.feed(b"\nnext\n")

        assert lines(b" 20%", b"100%", b"next") == seen

    def test_memory_is_bounded(self) -> None:
        """A bar that moves for days holds one state."""
        splitter = LineSplitter()
        for number in range(10_000):
            assert [] == splitter.feed(b"\r%d %%" % number)

        assert len(splitter._rest) < 10


class TestFlush:
    def test_unfinished_line(self) -> None:
        """The beginning of a line can be had; its end follows, be it empty."""
        splitter = LineSplitter()
        splitter.feed(b"Loading ... ")
        assert [(b"Loading ... ", True)] == splitter.flush()
        assert lines(b"") == splitter.feed(b"\n")

        splitter.feed(b"one ")
        assert [(b"one ", True)] == splitter.flush()
        assert lines(b"two") == splitter.feed(b"two\n")

    def test_cut_character(self) -> None:
        """Of a character that has not come whole, nothing is handed out."""
        splitter = LineSplitter()
        splitter.feed("a🎈".encode()[:-1])
        assert [(b"a", True)] == splitter.flush()

        assert lines("🎈".encode()) == splitter.feed("🎈".encode()[-1:] + b"\n")

    def test_bar_after_a_beginning(self) -> None:
        """What was handed out and is then begun anew does not look as if it went on."""
        splitter = LineSplitter()
        splitter.feed(b"10%")
        seen = splitter.flush() + splitter.feed(b"\r20%\n")
        assert [(b"10%", True), (b"", False), (b"20%", False)] == seen

        splitter.feed(b"10%")
        seen = splitter.flush() + splitter.feed(b"\r20%") + splitter.flush()
        assert [(b"10%", True), (b"", False), (b"20%", False)] == seen


class TestSecrets:
    def test_are_left_out(self) -> None:
        """A secret is not handed out, even when it was cut on its way."""
        splitter = LineSplitter((b"hush-hush",))

        assert lines(b"token=***") == splitter.feed(b"token=hush-") + splitter.feed(b"hush\n")
