"""Writing and reading the logs of backends."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from localplane_server.supervision import logs
from localplane_server.supervision.logs import RotatedLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.log"


class TestRotatedLog:
    def test_keeps_the_newest(self, path: Path) -> None:
        """A full file moves aside, the oldest one goes, and no file is larger than it may be."""
        log = RotatedLog(str(path), max_bytes=10, files=3)
        for number in range(5):
            log.write(b"line %d..\n" % number)
        log.close()

        contents = [Path(f"{path}{end}").read_text() for end in ("", ".1", ".2")]
        assert ["line 4..\n", "line 3..\n", "line 2..\n"] == contents
        assert 3 == len(list(path.parent.iterdir()))

    def test_goes_on_where_an_earlier_one_ended(self, path: Path) -> None:
        """A log that exists is continued, and its size counts."""
        path.write_bytes(b"12345678\n")
        log = RotatedLog(str(path), max_bytes=10)
        log.write(b"9\n")
        log.close()

        assert b"9\n" == path.read_bytes()
        assert b"12345678\n" == Path(f"{path}.1").read_bytes()

    def test_is_private(self, path: Path) -> None:
        """Prompts may be in it, so nobody else can read it."""
        RotatedLog(str(path)).close()

        assert 0o600 == path.stat().st_mode & 0o777

    def test_survives_a_full_disk(self, path: Path) -> None:
        """What cannot be written is lost without an error, and the log says how much that was."""
        log = RotatedLog(str(path))
        log.write(b"before\n")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
        try:
            log.write(b"12345\n")
            log.write(b"67\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        log.write(b"after\n")
        log.close()

        expected = ["before", "=== localplane lost 9 bytes of output here", "after"]
        assert expected == path.read_text().splitlines()


class TestTail:
    def test_last_lines(self, path: Path) -> None:
        """The last lines come, oldest first, with or without an end of line."""
        path.write_text("a\nb\r\nc\nd")

        assert ["b", "c", "d"] == logs.tail(path, lines=3)
        assert [] == logs.tail(path, lines=0)

    def test_missing_log(self, path: Path) -> None:
        """A log that does not exist is empty."""
        assert [] == logs.tail(path)

    def test_reads_on_in_the_older_file(self, path: Path) -> None:
        """A line that was cut by a rotation is whole again."""
        Path(f"{path}.1").write_text("first\nsec")
        path.write_text("ond\nthird\n")

        assert ["first", "second", "third"] == logs.tail(path)

    def test_undecodable_bytes(self, path: Path) -> None:
        """Bytes that are not text are replaced."""
        path.write_bytes(b"caf\xe9\n")

        assert ["caf\ufffd"] == logs.tail(path)

    def test_is_bounded(self, path: Path) -> None:
        """Neither a long log nor a long line makes a long answer, and no line starts in its middle."""
        path.write_text("x" * 1_000_000 + "\n" + "y" * 10_000 + "\nend\n")

        assert ["y" * 4096, "end"] == logs.tail(path)

    def test_only_one_spawn(self, path: Path) -> None:
        """What an earlier process said is not mistaken for this one's last words."""
        log = RotatedLog(str(path))
        log.begin("aaaa")
        log.write(b"from before\n")
        log.begin("bbbb")
        log.close()

        assert [] == logs.tail(path, spawn_id="bbbb")

    def test_spawn_that_began_in_an_older_file(self, path: Path) -> None:
        """The start of a spawn is found across a rotation; one that is out of reach hides nothing."""
        log = RotatedLog(str(path), max_bytes=60)
        log.write(b"old\n")
        log.begin("aaaa")
        log.write(b"one\n")
        log.write(b"two, which goes to the next file..\n")
        log.close()

        expected = ["one", "two, which goes to the next file.."]
        assert Path(f"{path}.1").exists()
        assert expected == logs.tail(path, spawn_id="aaaa")
        assert expected == logs.tail(path, lines=2, spawn_id="unknown")
