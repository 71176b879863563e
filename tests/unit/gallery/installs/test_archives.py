"""Archives of strangers."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from localplane_server.errors import ArchiveRefusedError
from localplane_server.gallery.installs import archives
from localplane_server.gallery.installs.archives import Unpacked, is_archive, unpack

PLENTY = 1 << 40
FILES = {"voice.onnx": b"weights" * 1000, "./voice.onnx.json": b"{}", "sub/notes": b""}
PLACES = {"voices/voice.onnx", "voices/voice.onnx.json", "voices/sub/notes"}

Member = tuple[tarfile.TarInfo, bytes]


def member(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> Member:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def tar(members: Iterable[Member], *, pax: bool = False) -> bytes:
    output = io.BytesIO()
    form = tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=output, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return output.getvalue()


def zipped(members: dict[str, bytes], kind: int = 0) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = kind << 16
            archive.writestr(info, content)
    return output.getvalue()


PLAIN = tar(member(name, content) for name, content in FILES.items())
PACKED: dict[str, bytes] = {
    "x.tar": PLAIN,
    "x.tar.gz": gzip.compress(PLAIN),
    "x.TGZ": gzip.compress(PLAIN),
    "x.tar.bz2": bz2.compress(PLAIN),
    "x.tar.xz": lzma.compress(PLAIN),
    "x.tar.lzma": lzma.compress(PLAIN, format=lzma.FORMAT_ALONE),
    "x.zip": zipped(FILES),
}


class Unpacker:
    """Unpacks bytes, and sees that nothing comes to be outside of the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.into = root / "deep" / "below" / "into"

    def __call__(
        self, content: bytes, name: str = "voices/x.tar", free: int = PLENTY
    ) -> list[Unpacked]:
        self.into.mkdir(parents=True)
        archive = self.root / "archive"
        archive.write_bytes(content)
        try:
            return unpack(archive, name, self.into, free_bytes=free, advance=lambda _size: None)
        finally:
            outside = [
                path
                for path in self.root.rglob("*")
                if not path.is_dir() and path != archive and self.into not in path.parents
            ]
            assert [] == outside
            assert not any(path.is_symlink() for path in self.root.rglob("*"))

    def refused(
        self, content: bytes, finding: str, name: str = "voices/x.tar", free: int = PLENTY
    ) -> None:
        with pytest.raises(ArchiveRefusedError, match=finding) as caught:
            self(content, name, free)
        assert name == caught.value.metadata["file"]


@pytest.fixture
def unpacker(tmp_path: Path) -> Unpacker:
    return Unpacker(tmp_path)


class TestFormats:
    @pytest.mark.parametrize("name", PACKED)
    def test_content(self, unpacker: Unpacker, name: str) -> None:
        """Every format is unpacked beside the archive, with what is in it."""
        found = unpacker(PACKED[name], f"voices/{name}")

        assert PLACES == {one.name for one in found}
        assert set(FILES.values()) == {one.path.read_bytes() for one in found}
        assert sum(map(len, FILES.values())) == sum(one.size_bytes for one in found)

    def test_in_no_folder(self, unpacker: Unpacker) -> None:
        """What is in an archive in the models folder itself belongs there."""
        assert ["x"] == [one.name for one in unpacker(tar([member("x")]), "a.tar")]

    @pytest.mark.parametrize("name", ["x.gguf", "x.bin", "x.gz", "x.pt", "tar", "x.zip.gguf"])
    def test_others(self, name: str) -> None:
        """Other files are none."""
        assert not is_archive(name)

    def test_pax(self, unpacker: Unpacker) -> None:
        """Names that only the newer headers can hold are read."""
        name = "ü" * 100 + "/x"

        assert [f"voices/{name}"] == [one.name for one in unpacker(tar([member(name)], pax=True))]

    def test_hidden(self, unpacker: Unpacker) -> None:
        """What macOS and others leave in archives is left out, and so is what would count as our own record."""
        names = ("._x", ".DS_Store", "__MACOSX/._x", "._gallery_x.yaml", ".localplane/x", "x")

        assert ["voices/x"] == [one.name for one in unpacker(tar(map(member, names)))]


class TestRefused:
    @pytest.mark.parametrize(
        "one",
        [
            member("x", kind=tarfile.SYMTYPE, link="/etc/passwd"),
            member("x", kind=tarfile.SYMTYPE, link="y"),
            member("x", kind=tarfile.LNKTYPE, link="/etc/passwd"),
            member("x", kind=tarfile.CHRTYPE),
            member("x", kind=tarfile.BLKTYPE),
            member("x", kind=tarfile.FIFOTYPE),
        ],
    )
    def test_no_files(self, unpacker: Unpacker, one: Member) -> None:
        """Links and devices are refused, wherever they lead, and with them what is beside them."""
        unpacker.refused(tar([member("good"), one]), "link or a device")

    @pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "..", "a\\x", "..\\x"])
    @pytest.mark.parametrize(
        "make", [lambda name: tar([member(name)]), lambda name: zipped({name: b"x"})]
    )
    def test_names(
        self, unpacker: Unpacker, name: str, make: Callable[[str], bytes], tmp_path: Path
    ) -> None:
        """A name that leads elsewhere is refused."""
        content = make(name)
        unpacker.refused(
            content, "leads elsewhere", "voices/x.zip" if content[:2] == b"PK" else "voices/x.tar"
        )

    def test_through_link(self, unpacker: Unpacker, tmp_path: Path) -> None:
        """A link to a folder and a file below it: the link is refused already."""
        members = [member("sub", kind=tarfile.SYMTYPE, link=str(tmp_path)), member("sub/x")]

        unpacker.refused(tar(members), "link or a device")

    def test_zipped_link(self, unpacker: Unpacker) -> None:
        """A link in a zip file is refused."""
        unpacker.refused(zipped({"x": b"/etc/passwd"}, kind=0o120777), "link", "voices/x.zip")

    def test_nul(self, unpacker: Unpacker) -> None:
        """A name that is cut off at a NUL is not taken for what stands before it."""
        content = zipped({"goodZevil": b"x"}).replace(b"goodZevil", b"good\0evil")

        unpacker.refused(content, "leads elsewhere", "voices/x.zip")

    def test_configuration(self, unpacker: Unpacker) -> None:
        """An archive in the models folder brings no configuration of another model."""
        unpacker.refused(tar([member("other.yaml")]), "configuration", "x.tar")

    def test_replaces_itself(self, unpacker: Unpacker) -> None:
        """An archive does not replace itself."""
        unpacker.refused(tar([member("x.tar")]), "twice")

    def test_twice(self, unpacker: Unpacker) -> None:
        """A file that is there twice is refused, however its name is written."""
        unpacker.refused(tar([member("a/x"), member("./a//x")]), "twice")

    def test_file_and_folder(self, unpacker: Unpacker) -> None:
        """A file that is a folder, too, is refused."""
        unpacker.refused(tar([member("a"), member("a/x")]), "a file and a folder")

    @pytest.mark.parametrize("name", PACKED)
    def test_cut_off(self, unpacker: Unpacker, name: str) -> None:
        """An archive that ends too early is refused."""
        content = PACKED[name]
        unpacker.refused(content[: len(content) // 2], "damaged|cannot be read", f"voices/{name}")

    @pytest.mark.parametrize("name", PACKED)
    def test_nonsense(self, unpacker: Unpacker, name: str) -> None:
        """What is no archive at all is refused."""
        unpacker.refused(
            b"<html>not found</html>" * 1000, "damaged|cannot be read", f"voices/{name}"
        )

    def test_encrypted(self, unpacker: Unpacker) -> None:
        """A zip file that asks for a password is refused."""
        content = bytearray(zipped({"x": b"x"}))
        content[6] |= 1
        content[content.index(b"PK\x01\x02") + 8] |= 1

        unpacker.refused(bytes(content), "cannot be read", "voices/x.zip")

    def test_no_name(self, unpacker: Unpacker) -> None:
        """A file without a name in a zip file is refused."""
        content = zipped({"x": b"x"})
        at = content.index(b"PK\x01\x02")
        entry = bytearray(content[at : content.index(b"PK\x05\x06")].replace(b"x", b""))
        entry[28:30] = bytes(2)
        end = content[content.index(b"PK\x05\x06") :]
        end = end[:12] + len(entry).to_bytes(4, "little") + end[16:]

        unpacker.refused(content[:at] + bytes(entry) + end, "damaged", "voices/x.zip")

    def test_damaged_data(self, unpacker: Unpacker) -> None:
        """A zip file is told to be damaged however it is packed, and no matter where it leads."""
        output = io.BytesIO()
        with zipfile.ZipFile(output, "w", zipfile.ZIP_BZIP2) as archive:
            archive.writestr("x", b"weights" * 1000)
        content = bytearray(output.getvalue())
        content[35:60] = bytes(25)

        unpacker.refused(bytes(content), "damaged: Invalid data stream", "voices/x.zip")

    def test_leads_before_its_beginning(self, unpacker: Unpacker) -> None:
        """A zip file of which the first part is missing is told to be damaged."""
        unpacker.refused(PACKED["x.zip"][60:], "damaged", "voices/x.zip")


class TestBombs:
    @pytest.fixture(autouse=True)
    def small_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Bombs of a few megabytes do."""
        monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 100_000)
        monkeypatch.setattr(archives, "MOST_MEMBERS", 50)

    @pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.xz", "x.tar.bz2"])
    def test_tar(self, unpacker: Unpacker, name: str) -> None:
        """A file of zeros that packs to nothing is refused, long before all of it is written."""
        plain = tar([member("x", bytes(20_000_000))])
        packed = {
            "x.tar.gz": gzip.compress(plain),
            "x.tar.xz": lzma.compress(plain),
            "x.tar.bz2": bz2.compress(plain),
        }

        unpacker.refused(packed[name], "times its own size", f"voices/{name}")

        assert sum(path.stat().st_size for path in unpacker.into.rglob("*")) < 10_000_000

    def test_zip(self, unpacker: Unpacker) -> None:
        """The same in a zip file, also if it claims to be small."""
        unpacker.refused(zipped({"x": bytes(20_000_000)}), "times its own size", "voices/x.zip")

    def test_skipped(self, unpacker: Unpacker) -> None:
        """What is left out counts, too: it has to be unpacked to be left out."""
        unpacker.refused(
            gzip.compress(tar([member(".x", bytes(20_000_000))])), "its own size", "voices/x.tgz"
        )

    def test_header(self, unpacker: Unpacker) -> None:
        """A header that would have to be held in memory is refused."""
        info, content = member("x")
        info.pax_headers = {"comment": "x" * 5_000_000}

        unpacker.refused(tar([(info, content)], pax=True), "header in it is too large|its own size")

    def test_many(self, unpacker: Unpacker) -> None:
        """More files than any model has are refused."""
        unpacker.refused(tar(member(f"f{n}") for n in range(51)), "more than 50 files")

    def test_sparse(self, unpacker: Unpacker) -> None:
        """A file with holes is refused: it takes space that the archive need not have."""
        info, _ = member("x")
        info.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.name": "x",
            "GNU.sparse.size": str(1 << 40),
            "GNU.sparse.map": "0,1",
        }

        unpacker.refused(tar([(info, b"x")], pax=True), "link or a device")

    def test_disk(self, unpacker: Unpacker) -> None:
        """What does not fit on the disk is refused."""
        unpacker.refused(tar([member("x", bytes(50_000))]), "does not fit", free=10_000)


def test_given_up(tmp_path: Path) -> None:
    """Work that nobody wants any more ends at its next step."""

    def advance(_size: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "into").mkdir()
    (tmp_path / "x.tar").write_bytes(PLAIN)

    with pytest.raises(KeyboardInterrupt):
        unpack(tmp_path / "x.tar", "x.tar", tmp_path / "into", free_bytes=PLENTY, advance=advance)
