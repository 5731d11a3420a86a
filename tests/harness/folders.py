"""Where the test servers keep their data and logs: outside pytest's folders, so that other accounts may enter."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

KEEP_VARIABLE = "CRONKEEPER_TEST_KEEP"


def make_folder(name: str) -> Path:
    """Return a new folder that every account may enter (MariaDB runs as one of its own)."""
    folder = Path(tempfile.mkdtemp(prefix=f"cronkeeper-{name}-"))
    folder.chmod(0o755)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove the folder, unless CRONKEEPER_TEST_KEEP is set: then its path is printed."""
    if os.environ.get(KEEP_VARIABLE):
        print(f"kept: {folder}")
        return
    shutil.rmtree(folder, ignore_errors=True)
