"""What a user has who clones the repository on a machine where nothing is set."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT

_REGISTRIES = re.compile(
    r"(PIP|UV|GO|SSL_CERT|REQUESTS_CA|CURL_CA)_\w+|GOPROXY|(https?|no|all)_proxy", re.IGNORECASE
)
"""How this site reaches the package registries: no property of a user's machine."""


def clone(target: Path) -> Path:
    """Copy what git knows to ``target``: nothing that was built, nothing that was not added."""
    # In a container the files may be another user's, which git would refuse to read.
    words = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def stripped() -> dict[str, str]:
    """The environment with everything optional taken out.

    No HOME, no USER, no language, no terminal; a PATH without the system's own programs
    (``/usr/sbin``), as a root shell by ``su`` has it. Python is this one's.
    """
    registries = {name: text for name, text in os.environ.items() if _REGISTRIES.fullmatch(name)}
    python = Path(sys.base_prefix, "bin")
    return {**registries, "PATH": f"{python}:/usr/local/bin:/usr/bin:/bin"}
