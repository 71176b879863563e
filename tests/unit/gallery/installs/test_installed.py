"""What galleries said of models that were installed."""

from __future__ import annotations

from pathlib import Path

from localplane_server.gallery.installs.installed import InstalledModels
from localplane_server.gallery.installs.models_folder import ModelsFolder

FILE = """
name: smol
description: talks
license: mit
icon: null
urls: ['https://host/x?token=secret', 'https://user:secret@host/y']
config_file: "options: ['password:secret']"
overrides: {api_key: secret}
files: [{filename: a.gguf, sha256: aa, uri: 'https://host/a.gguf?key=secret'}, oops]
prompt_templates: [{name: x, content: secret}]
"""


def test_told(tmp_path: Path) -> None:
    """What is for people to see, and nothing that may be secret; what cannot be read is left out."""
    (tmp_path / "._gallery_org__smol.yaml").write_text(FILE)
    (tmp_path / "._gallery_bad.yaml").write_text("a: [")
    (tmp_path / "._gallery_list.yaml").write_text("[1]")
    (tmp_path / "._gallery_dir.yaml").mkdir()
    (tmp_path / "._gallery_x.partial").write_text("name: x")
    (tmp_path / "._gallery_link.yaml").symlink_to("/etc/hostname")
    (tmp_path / "other.yaml").write_text("name: other")

    assert {
        "org__smol": {
            "name": "smol",
            "description": "talks",
            "license": "mit",
            "urls": ["https://host/x", "https://host/y"],
            "files": [{"filename": "a.gguf", "sha256": "aa", "uri": "https://host/a.gguf"}],
        }
    } == InstalledModels(ModelsFolder(tmp_path)).configs()


def test_changes(tmp_path: Path) -> None:
    """Files that come, go and change are seen; a folder that is missing has none."""
    models = InstalledModels(ModelsFolder(tmp_path / "models"))
    assert {} == models.configs()
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "._gallery_a.yaml"
    file.write_text("description: one")
    assert {"a": {"description": "one"}} == models.configs()
    file.write_text("description: another")
    assert {"a": {"description": "another"}} == models.configs()
    file.unlink()
    assert {} == models.configs()
