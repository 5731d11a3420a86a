"""`python -m cronkeeper_api`: the API server, configured by a file (first argument) and the environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.config import load
from cronkeeper_api.config import ApiConfig
from cronkeeper_api.main import run


def main() -> int:
    try:
        file = Path(sys.argv[1]) if len(sys.argv) > 1 else None
        config = load(ApiConfig, file=file, environ=os.environ, flags={})
    except ConfigError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    return run(config)


sys.exit(main())
