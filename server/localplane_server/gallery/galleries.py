"""The galleries that models come from."""

from __future__ import annotations

from localplane_server.gallery.entry import GalleryEntry


class Galleries:
    """The galleries, and what they offer."""

    async def find(self, name: str) -> GalleryEntry:
        """Return the entry that is meant by `gallery@name` or by a bare name.

        Case does not matter, and `/` may be written `__`. Of galleries that have a bare name the
        first one, in their order, is meant.

        Raises:
            ModelNotInGalleryError: If there is none.
            GalleryUnavailableError: If there is none, and a gallery that could have it was never reached.
        """
        raise NotImplementedError
