"""Indexes that strangers write."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml

from gallery_indexes import ENTRIES, large_index, synthetic_index
from localplane_server.gallery.entry import GalleryEntry, GalleryFile
from localplane_server.gallery.index import (
    MOST_INDEX_BYTES,
    MOST_PROBLEMS,
    Index,
    UnreadableIndexError,
    parse_index,
)

GOOD = "- {name: good, url: 'https://host/x'}\n"


def parsed(text: str | bytes, *, is_builtin: bool = False) -> Index:
    data = text.encode() if isinstance(text, str) else text
    return parse_index(data, gallery="g", url="https://host/index.yaml", is_builtin=is_builtin)


def only(text: str) -> GalleryEntry:
    index = parsed(text)
    assert () == index.problems
    (entry,) = index.entries
    return entry


def problem(text: str) -> str:
    """The one problem of an entry that stands before a good one, which survives."""
    index = parsed(text + GOOD)
    assert ["good"] == [entry.name for entry in index.entries]
    (one,) = index.problems
    assert 1 == index.problem_count
    return one.message


class TestEntries:
    def test_all_of_an_entry(self) -> None:
        """Every key has its field."""
        entry = only(
            """
- name: kokoro
  url: github:owner/repo/kokoro.yaml@master
  description: speaks
  license: apache-2.0
  icon: https://host/icon.png
  urls: [https://host/a, https://host/b]
  tags: [tts, cpu]
  size: 327MB
  last_checked: 2026-08-19
  variants: [{model: kokoro-q8, min_vram: 1}, kokoro-q4]
  overrides: {backend: kokoro, parameters: {voice: af}, options: ["a:b"], nobody: {knows: this}}
  files:
    - {filename: a/b.onnx, sha256: ABC, uri: 'https://host/b.onnx', mode: 7}
  surprise: [1]
"""
        )

        assert (
            GalleryEntry(
                name="kokoro",
                gallery="g",
                gallery_url="https://host/index.yaml",
                url="github:owner/repo/kokoro.yaml@master",
                description="speaks",
                license="apache-2.0",
                icon="https://host/icon.png",
                urls=("https://host/a", "https://host/b"),
                tags=("tts", "cpu"),
                files=(GalleryFile(filename="a/b.onnx", uri="https://host/b.onnx", sha256="abc"),),
                overrides={
                    "backend": "kokoro",
                    "parameters": {"voice": "af"},
                    "options": ["a:b"],
                    "nobody": {"knows": "this"},
                },
                variants=("kokoro-q8", "kokoro-q4"),
                size="327MB",
                backend="kokoro",
                last_checked="2026-08-19",
            )
            == entry
        )
        assert "g@kokoro" == entry.id

    @pytest.mark.parametrize("merge", ["<<", "!!merge <<", '!!merge "<<"'])
    def test_merges(self, merge: str) -> None:
        """What an entry merges it has, but for what it says itself; and the deeper ones are whole."""
        index = parsed(
            f"- &a\n  name: a\n  tags: [one]\n  license: mit\n  overrides: {{x: 1, y: 2}}\n"
            f"- &b\n  {merge}: *a\n  name: b\n  license: bsd\n"
            f"- {merge}: [*b, *a]\n  name: c\n  overrides: {{x: 3}}\n"
        )

        assert () == index.problems
        assert [("a", "mit"), ("b", "bsd"), ("c", "bsd")] == [
            (entry.name, entry.license) for entry in index.entries
        ]
        assert [{"x": 1, "y": 2}, {"x": 1, "y": 2}, {"x": 3}] == [
            entry.overrides for entry in index.entries
        ]
        assert {("one",)} == {entry.tags for entry in index.entries}

    def test_configuration_as_mapping_and_as_text(self) -> None:
        """Both mean the same, and keep keys that nobody knows."""
        mapping = only("- {name: a, config_file: {backend: x, new_key: [1, 2.5, true, null]}}")
        text = only(
            "- name: a\n  config_file: |\n    backend: x\n    new_key: [1, 2.5, true, null]\n"
        )

        assert {"backend": "x", "new_key": [1, 2.5, True, None]} == mapping.config_file
        assert mapping == text
        assert "x" == text.backend

    def test_values_are_those_of_json(self) -> None:
        """What only YAML has stays the text that it is."""
        entry = only(
            "- {name: 12, license: no, overrides: {d: 2026-08-19, t: 1:30, h: 0x10, k: on, on: 1}}"
        )

        assert ("12", "no") == (entry.name, entry.license)
        assert {"d": "2026-08-19", "t": "1:30", "h": 16, "k": True, "on": 1} == entry.overrides

    def test_conversions_are_for_the_builtin_gallery(self) -> None:
        """From elsewhere nobody chooses what is done with a file."""
        text = (
            "- name: a\n  files: [{filename: f, uri: 'pypi://a==1/w', convert: bert-gguf, title: T,"
            " size_bytes: 5, sources: [{filename: w, uri: 'pypi://a==1/w'}]}]"
        )
        ours, theirs = parsed(text, is_builtin=True).entries[0], parsed(text).entries[0]

        assert GalleryFile(filename="f", uri="pypi://a==1/w") == theirs.files[0]
        assert (
            GalleryFile(
                filename="f",
                uri="pypi://a==1/w",
                size_bytes=5,
                convert="bert-gguf",
                title="T",
                sources=(GalleryFile(filename="w", uri="pypi://a==1/w"),),
            )
            == ours.files[0]
        )

    @pytest.mark.parametrize("text", ["", "---\n", "[]", "# nothing\n"])
    def test_nothing(self, text: str) -> None:
        """An empty index is one."""
        assert () == parsed(text).entries

    def test_order_and_keys(self) -> None:
        """Entries keep their order; keys are the same for all ways to write a name."""
        index = parsed("- {name: Z/a}\n- {name: b}\n")

        assert ["Z/a", "b"] == [entry.name for entry in index.entries]
        assert ["z__a", "b"] == list(index.by_key)
        assert index.is_of(b"- {name: Z/a}\n- {name: b}\n")
        assert not index.is_of(b"")


class TestBadEntries:
    @pytest.mark.parametrize(
        ("text", "cause"),
        [
            ("- {url: x}\n", "has no name"),
            ("- {name: ' '}\n", "has no name"),
            ("- {name: [a]}\n", "list or a mapping where a text belongs"),
            ('- {name: "a\\nb"}\n', "control characters"),
            (f"- {{name: {'x' * 256}}}\n", "too long"),
            ("- just text\n", "no mapping"),
            ("- [a]\n", "no mapping"),
            ("- {name: a, name: b}\n", "'name' is there twice"),
            ("- {name: a, overrides: {x: {k: 1, k: 2}}}\n", "'k' is there twice"),
            ("- {name: a, overrides: [1]}\n", "overrides is no mapping"),
            ("- {name: a, config_file: [1]}\n", "config_file is no mapping"),
            ("- {name: a, config_file: 'a: [b'}\n", "config_file is no YAML"),
            ("- {name: a, files: {x: 1}}\n", "no list"),
            ("- {name: a, files: [{filename: x}]}\n", "no uri"),
            ("- {name: a, overrides: {x: !!python/object/apply:os.system [ls]}}\n", "tag"),
            ("- {name: a, overrides: !!set {x, y}}\n", "tag"),
            ("- {name: a, overrides: {x: .inf}}\n", "not finite"),
            ("- {name: a, overrides: {x: 1.0e+999}}\n", "not finite"),
            (f"- {{name: a, overrides: {{x: {'9' * 5000}}}}}\n", "too large"),
            ("- {name: a, overrides: {x: !!int abc}}\n", "'abc' is no int"),
            ("- {name: a, overrides: {? [x] : 1}}\n", "key is a list"),
            ("- {name: a, overrides: &o {x: *o}}\n", "contains itself"),
            ("- {name: a, overrides: &o {<<: *o}}\n", "merges itself"),
            ("- &e\n  name: a\n  <<: *e\n", "merges itself"),
            (f"- {{name: a, overrides: {'{x: ' * 120}1{'}' * 120}}}\n", "deep"),
        ],
    )
    def test_costs_nothing_but_itself(self, text: str, cause: str) -> None:
        """A bad entry is left out, and told with the cause; the next one is there."""
        assert cause in problem(text)

    def test_place(self) -> None:
        """A problem tells which entry, where it begins, and where the fault is."""
        index = parsed("# x\n" + GOOD + "- name: bad\n  tags: [a]\n  overrides: {x: 1, x: 2}\n")
        (one,) = index.problems

        assert ("bad", 3) == (one.entry, one.line)
        assert "(line 5)" in one.message

    def test_a_name_that_is_taken(self) -> None:
        """The first one is meant, whatever the case of the letters."""
        index = parsed("- {name: A/b, license: x}\n- {name: a__B, license: y}\n")

        assert ["x"] == [entry.license for entry in index.entries]
        assert ["another entry before it has this name"] == [one.message for one in index.problems]

    def test_many(self) -> None:
        """All are counted, and the first hundred told."""
        index = parsed("- {url: x}\n" * (MOST_PROBLEMS + 50) + GOOD)

        assert MOST_PROBLEMS == len(index.problems)
        assert MOST_PROBLEMS + 50 == index.problem_count

    def test_a_piece_that_is_no_yaml(self) -> None:
        """Entries around it are there, also those that refer to others, with their own lines."""
        index = parsed(
            "- &a\n  name: a\n  tags: [t]\n"
            '- name: broken\n  license: "mit\n'
            "- <<: *a\n  name: b\n"
            "- &c\n  <<: *a\n  name: c\n"
            "- <<: *c\n  name: d\n"
            "- {url: nameless}\n"
        )

        assert [("a", ("t",)), ("b", ("t",)), ("c", ("t",)), ("d", ("t",))] == [
            (entry.name, entry.tags) for entry in index.entries
        ]
        assert [("broken", 4), ("", 13)] == [(one.entry, one.line) for one in index.problems]
        assert "no YAML" in index.problems[0].message


@pytest.mark.parametrize(
    "data",
    [b"<!---->" * 30 + b"x", b"- [\n" + b"- \n" + b"\n" * 30_000 + b"]", b"<!--" * 1000],
)
def test_takes_no_time(data: bytes) -> None:
    """What is made so that looking for something in it takes for ever is looked at in a moment."""
    began = time.monotonic()
    with pytest.raises(UnreadableIndexError):
        parse_index(data, gallery="g")
    assert time.monotonic() - began < 2


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "cause"),
        [
            (b"<!DOCTYPE html><html></html>", "web page"),
            (b"\n <!-- x -->\n<html><body>404</body></html>", "web page"),
            (b"<?xml version='1.0'?><Error/>", "web page"),
            (b"name: a\nurl: b\n", "no list"),
            (b"just text", "no list"),
            (b"a: [", "no YAML"),
            (b"\xff\xfe\x00\x01", "no list"),
            (b"- a: \xff\n- b: [\n", "UTF-8"),
            (b"- [" * 5000, "no YAML"),
            (b"- " * 100_000 + b"a", "no YAML"),
            (b"- &x {a: *x, b: [\n- b: [\n", "no YAML"),
            (b"#" * (MOST_INDEX_BYTES + 1), "bytes"),
            (b"- a\n" * 600_000, "parts"),
            (b"[" + b"[]," * 300_000 + b"]", "parts"),
        ],
    )
    def test_no_index(self, data: bytes, cause: str) -> None:
        """What is none is refused with the cause."""
        with pytest.raises(UnreadableIndexError) as caught:
            parsed(data)

        assert cause in str(caught.value)

    def test_a_billion_laughs(self) -> None:
        """References to references are counted before anything is made of them."""
        bomb = "- name: bomb\n  overrides:\n    a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol]\n"
        for level in range(1, 30):
            bomb += f"    a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 8)}]\n"
        began = time.process_time()

        assert "larger" in problem(bomb) or "many times as large" in problem(bomb)
        assert time.process_time() - began < 2

    def test_many_large_entries(self) -> None:
        """Each is small enough; all together are not, and the index is refused."""
        text = "- name: a\n  overrides: &o\n    x: &x [" + "lol, " * 1000 + "]\n    y: ["
        text += "*x, " * 40 + "]\n"
        text += "".join(f"- {{name: a{number}, overrides: *o}}\n" for number in range(100))

        with pytest.raises(UnreadableIndexError, match="many times as large"):
            parsed(text)

    @pytest.mark.parametrize(
        "field",
        ["overrides: {" + "k%d: 1, " * 2000 % tuple(range(2000)) + "}", f"tags: [{'~, ' * 2000}]"],
    )
    def test_many_small_values(self, field: str) -> None:
        """Values count even if hardly anything is written in them, since they take memory all the same."""
        text = f"- &a\n  name: a\n  {field}\n"
        text += "".join(f"- {{!!merge <<: *a, name: a{number}}}\n" for number in range(1000))

        with pytest.raises(UnreadableIndexError, match="many times as large"):
            parsed(text)

    def test_a_mapping_of_merges(self) -> None:
        """Merges of merges end, too."""
        text = "- name: a\n  overrides:\n    m0: &m0 {k0: 1}\n"
        for level in range(1, 200):
            text += f"    m{level}: &m{level} {{<<: [*m{level - 1}, *m{level - 1}], k{level}: 1}}\n"
        began = time.process_time()
        parsed(text + GOOD)

        assert time.process_time() - began < 5


class TestLargeIndexes:
    def test_same_as_the_loader(self) -> None:
        """What is read is what the library's own loader reads."""
        data = large_index()
        index = parsed(data)
        loaded = yaml.load(data, yaml.CSafeLoader)
        theirs: dict[str, Any] = {}
        for one in loaded:
            if "name" in one:
                theirs.setdefault(str(one["name"]).casefold(), one)

        assert theirs.keys() == {entry.name.casefold() for entry in index.entries}
        assert len(loaded) == len(index.entries) + index.problem_count == ENTRIES
        for entry in index.entries:
            other = theirs[entry.name.casefold()]
            assert (other.get("overrides") or {}) == entry.overrides
            assert other.get("config_file") == entry.config_file
            assert tuple(map(str, other.get("tags") or ())) == entry.tags
            assert [(one["filename"], one["uri"]) for one in other.get("files") or ()] == [
                (file.filename, file.uri) for file in entry.files
            ]
            assert str(other.get("description", "")) == entry.description

    def test_synthetic_one(self) -> None:
        """The stand-in has as many entries and nothing wrong."""
        index = parsed(synthetic_index())

        assert ENTRIES == len(index.entries)
        assert () == index.problems
