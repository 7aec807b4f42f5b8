"""What Gradio reads when it is imported: that it calls nobody, and where it may write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SILENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}


@contextmanager
def quiet() -> Iterator[Path]:
    """Have Gradio, which is imported inside, call no other host and write into one folder, which
    goes at the end. Nothing of ours is written there; a server that is killed leaves it empty."""
    with tempfile.TemporaryDirectory(prefix="ddpm-ui-", ignore_cleanup_errors=True) as folder:
        os.environ.update(SILENT, GRADIO_TEMP_DIR=folder)
        yield Path(folder)
