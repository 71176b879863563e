"""``python -m localplane_backends.openai --addr HOST:PORT``."""

from __future__ import annotations

import gc
import os
import sys

# Until the program answers it only makes what it keeps; `serving` turns the collector on.
gc.disable()

from localplane_backends import serving  # noqa: E402
from localplane_backends.openai.registration import RegistrationError, taken_from  # noqa: E402
from localplane_backends.openai.servicer import OpenAIBackend  # noqa: E402

if __name__ == "__main__":
    try:
        registration = taken_from(os.environ)
    except RegistrationError as error:
        sys.exit(str(error))
    serving.run(OpenAIBackend(registration))
