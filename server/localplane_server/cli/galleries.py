"""`localplane models search` and `galleries`: what can be installed, and from where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from localplane.v1 import gallery_pb2, gallery_service_pb2
from localplane_server.cli.session import Session, client_options
from localplane_server.cli.text import UNKNOWN, printable, since, table

LONGEST_DESCRIPTION = 60


@click.command("search")
@click.argument("term", nargs=-1)
@click.option("--tag", default="", help="Only those with this tag.")
@click.option("--backend", default="", help="Only those whose entry names this backend.")
@click.option("--installed/--not-installed", default=None, help="Only those that are, or are not.")
@client_options
def search_models(
    term: tuple[str, ...], tag: str, backend: str, session: Session, *, installed: bool | None
) -> None:
    """Search the galleries for models that have all words of TERM; without any, list all."""
    with session.client() as client:
        answer = client.list_available_models(
            term=" ".join(term),
            tag=tag,
            backend=backend,
            installed=installed,
            # What people read needs no configurations.
            view=(
                gallery_service_pb2.GALLERY_MODEL_VIEW_FULL
                if session.is_json
                else gallery_service_pb2.GALLERY_MODEL_VIEW_BASIC
            ),
        )
        session.write(answer, _model_rows(answer.models), field="models")
        if not session.is_json:
            for gallery in client.list_galleries().galleries:
                if gallery.error:
                    click.echo(f"cannot read gallery {gallery.name}: {gallery.error}", err=True)
                elif gallery.reading and not gallery.HasField("models"):
                    click.echo(f"gallery {gallery.name} is still being read", err=True)


@click.group("galleries")
def galleries() -> None:
    """List, add and remove the galleries that models come from."""


@galleries.command("list")
@client_options
def list_galleries(session: Session) -> None:
    """List the galleries, with what is wrong with each."""
    with session.client() as client:
        _write(session, client.list_galleries())


@galleries.command("add")
@click.argument("name")
@click.argument("url")
@click.option("--mirror", "mirrors", multiple=True, help="URL of a copy. May be given repeatedly.")
@client_options
def add_gallery(name: str, url: str, mirrors: tuple[str, ...], session: Session) -> None:
    """Add the gallery NAME, whose index is at URL, for good."""
    with session.client() as client:
        _write(session, client.add_gallery(name, url, mirrors=mirrors))


@galleries.command("remove")
@click.argument("name")
@client_options
def remove_gallery(name: str, session: Session) -> None:
    """Remove the gallery NAME for good. Models that were installed from it stay."""
    with session.client() as client:
        _write(session, client.remove_gallery(name))


def _write(session: Session, answer: gallery_service_pb2.ListGalleriesResponse) -> None:
    session.write(answer, _gallery_rows(answer.galleries), field="galleries")


def _model_rows(models: Iterable[gallery_pb2.GalleryModel]) -> Iterator[str]:
    rows = [
        (
            f"{model.gallery.name}@{model.name}",
            model.size or UNKNOWN,
            "yes" if model.installed else "no",
            _in_short(model.description),
        )
        for model in models
    ]
    yield from (
        table(("MODEL", "SIZE", "INSTALLED", "DESCRIPTION"), rows) if rows else ["no models"]
    )


def _gallery_rows(galleries: Iterable[gallery_pb2.Gallery]) -> Iterator[str]:
    shown = list(galleries)
    if not shown:
        yield "no galleries"
        return
    rows = [
        (
            gallery.name,
            str(gallery.models) if gallery.HasField("models") else UNKNOWN,
            since(gallery.read_at if gallery.HasField("read_at") else None),
            gallery.url,
        )
        for gallery in shown
    ]
    yield from table(("GALLERY", "MODELS", "READ", "URL"), rows)
    for gallery in shown:
        if gallery.error:
            yield printable(f"{gallery.name} cannot be read: {gallery.error}")
        if gallery.problem_count:
            what = "entry" if gallery.problem_count == 1 else "entries"
            yield f"{gallery.name} has {gallery.problem_count} {what} that cannot be used:"
        for problem in gallery.problems:
            name = problem.entry or "an entry without a name"
            yield printable(f"  line {problem.line}: {name}: {problem.message}")


def _in_short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_DESCRIPTION else f"{line[: LONGEST_DESCRIPTION - 3]}..."
