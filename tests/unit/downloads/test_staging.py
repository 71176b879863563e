"""What a staged file keeps through the end of a process, and of the machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from localplane_server.downloads import staging
from localplane_server.downloads.ranges import Span
from localplane_server.downloads.staging import Identity, StagedPart, key_of

IDENTITY = Identity(100, '"a"', "")


@pytest.fixture
def part(tmp_path: Path) -> Iterator[StagedPart]:
    """A part that was begun."""
    part = StagedPart(tmp_path, "key")
    assert part.open()
    part.begin(IDENTITY)
    yield part
    part.close()


def reopened(part: StagedPart, folder: Path) -> StagedPart:
    part.close()
    again = StagedPart(folder, "key")
    assert again.open()
    again.close()
    return again


def journal(folder: Path) -> Path:
    return folder / "key.journal"


def test_recalls(part: StagedPart, tmp_path: Path) -> None:
    """What was written is known to the next process, wherever it is in the file."""
    part.write(50, [b"ab", b"cd"])
    part.write(0, [b"xyz"])
    again = reopened(part, tmp_path)

    assert IDENTITY == again.identity
    assert [Span(0, 3), Span(50, 54)] == list(again.ranges)
    assert b"xyz" == again.path.read_bytes()[:3]


def test_crumbs(part: StagedPart, tmp_path: Path) -> None:
    """More pieces than the system writes at once are written all the same."""
    pieces = [b"%d," % number for number in range(5000)]
    whole = b"".join(pieces)

    assert len(whole) == part.write(0, pieces)
    assert whole == reopened(part, tmp_path).path.read_bytes()


@pytest.mark.parametrize("torn", [b"+ 50 9", b"+ 50", b"+"])
def test_torn_line(part: StagedPart, tmp_path: Path, torn: bytes) -> None:
    """A note that was being written when the process was killed does not count."""
    part.write(0, [b"xyz"])
    with journal(tmp_path).open("ab") as file:
        file.write(torn)

    assert [Span(0, 3)] == list(reopened(part, tmp_path).ranges)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]\n", b'{"version": 99}\n', b"\xff\xff\n", b"+ 1 2\n"]
)
def test_no_journal(part: StagedPart, tmp_path: Path, content: bytes) -> None:
    """A journal that is none means that nothing is there."""
    part.write(0, [b"xyz"])
    journal(tmp_path).write_bytes(content)
    again = reopened(part, tmp_path)

    assert (0, Identity(), 0) == (again.ranges.size, again.identity, again.path.stat().st_size)


def test_file_that_is_too_short(part: StagedPart, tmp_path: Path) -> None:
    """A journal that tells of more than the file has is not believed."""
    part.write(0, [b"xyz"])
    os.truncate(part.path, 2)

    assert 0 == reopened(part, tmp_path).ranges.size


def test_after_a_stop_of_the_machine(part: StagedPart, tmp_path: Path) -> None:
    """Only what was on the disk for sure counts then."""
    part.write(0, [b"xyz"])
    part.synchronise()
    part.write(3, [b"uvw"])
    path = journal(tmp_path)
    head, _, rest = path.read_bytes().partition(b"\n")
    other = json.dumps({**json.loads(head), "boot": "0" * 36}).encode()
    assert len(other) == len(head)
    path.write_bytes(other + b"\n" + rest)

    assert [Span(0, 3)] == list(reopened(part, tmp_path).ranges)


def test_lock(part: StagedPart, tmp_path: Path) -> None:
    """Nobody else gets it meanwhile, and who waited for it does not get what it became."""
    waiting = StagedPart(tmp_path, "key")
    assert not waiting.open()
    part.write(0, [b"x"])
    part.finish()
    part.close()

    assert waiting.open()
    assert 0 == waiting.ranges.size
    assert b"x" == waiting.whole.read_bytes()
    waiting.close()


def test_throws_away_its_own(part: StagedPart, tmp_path: Path) -> None:
    """A name that has become another's is left alone."""
    part.write(0, [b"x"])
    part.finish()
    other = StagedPart(tmp_path, "key")
    assert other.open()
    part.throw_away()
    assert other.path.exists()
    other.throw_away()
    other.close()

    assert ["key.whole"] == [path.name for path in tmp_path.iterdir()]


def test_planted_link(tmp_path: Path) -> None:
    """A link in the place of a staged file is not followed."""
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / "key.part").symlink_to(target)

    with pytest.raises(OSError, match="symbolic link"):
        StagedPart(tmp_path, "key").open()
    assert "kept" == target.read_text()


def test_prune(part: StagedPart, tmp_path: Path) -> None:
    """What nobody has touched for long goes; what is in use, or none of ours, stays."""
    old = ["old.part", "old.journal", "done.whole", "some.journal", "other.txt"]
    for name in old:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    os.utime(part.path, (1, 1))
    os.utime(journal(tmp_path), (1, 1))
    (tmp_path / "new.part").touch()
    removed = staging.prune(tmp_path, older_than_seconds=3600)

    assert sorted(old[:-1]) == sorted(path.name for path in removed)
    assert {"key.part", "key.journal", "new.part", "other.txt"} == {
        path.name for path in tmp_path.iterdir()
    }


def test_discard(part: StagedPart, tmp_path: Path) -> None:
    """What is in use is not thrown away; once it is not, it is."""
    staging.discard(tmp_path, "key")
    assert part.path.exists()
    part.close()
    staging.discard(tmp_path, "key")

    assert [] == list(tmp_path.iterdir())
    staging.discard(tmp_path, "key")


@pytest.mark.parametrize("name", ["key.part", "key.whole"])
def test_begun_while_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever begins with a file that is just thrown away waits, and then begins anew."""
    (tmp_path / name).touch()
    late = StagedPart(tmp_path, "key")
    unlink = Path.unlink
    opened = []

    def begin_and_unlink(path: Path, *, missing_ok: bool = False) -> None:
        opened.append(late.open())
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", begin_and_unlink)
    staging.discard(tmp_path, "key")
    monkeypatch.undo()

    assert {False} == set(opened)
    assert [] == list(tmp_path.iterdir())
    assert late.open()
    late.close()


def test_keys() -> None:
    """A file has its own name for each digest that it is to have, however that is written."""
    assert key_of("a", "AB") == key_of("a", "ab")
    assert 3 == len({key_of("a", ""), key_of("a", "ab"), key_of("b", "ab")})


@pytest.mark.parametrize(
    ("mine", "theirs", "is_changed"),
    [
        (Identity(1, '"a"'), Identity(1, '"a"'), False),
        (Identity(1, '"a"'), Identity(1, '"b"'), True),
        (Identity(1, '"a"'), Identity(2, '"a"'), True),
        (Identity(1, '"a"', "x"), Identity(1, '"a"', "y"), False),
        (Identity(1, "", "x"), Identity(1, "", "y"), True),
        (Identity(1, "", "x"), Identity(None, "", ""), False),
    ],
)
def test_identity(mine: Identity, theirs: Identity, *, is_changed: bool) -> None:
    """A tag says more than a date, and what is not said says nothing."""
    assert is_changed == mine.is_changed(theirs)
