"""How `.ci/environment` finds a Python: among shims that do not work and releases too old."""

import os
import subprocess
import sys
from pathlib import Path

from support.postgres import CHECKOUT

BROKEN_SHIM = "#!/bin/sh\necho 'version is not installed' >&2\nexit 127\n"
TOO_OLD = f"""#!/bin/sh
exec {sys.executable} -c 'import sys; sys.version_info = (3, 11, 9); exec(sys.argv[1])' "$2"
"""
WORKS = f'#!/bin/sh\nexec {Path(sys.executable).resolve()} "$@"\n'


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def find(*folders: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the search where nothing is known of this machine's own Pythons."""
    tools = home / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    for tool in ("sh", "dirname", "ls"):
        (tools / tool).symlink_to(
            next(p for p in map(Path, ("/bin", "/usr/bin")) if (p / tool).exists()) / tool
        )
    return subprocess.run(
        [CHECKOUT / ".ci" / "environment", "--find"],
        env={"PATH": os.pathsep.join(map(str, (*folders, tools))), "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_shim_that_does_not_work_is_passed_over(tmp_path: Path) -> None:
    script(tmp_path / "shims" / "python3.14", BROKEN_SHIM)
    script(tmp_path / "shims" / "python3", BROKEN_SHIM)
    good = script(tmp_path / "bin" / "python3", WORKS)
    found = find(tmp_path / "shims", tmp_path / "bin", home=tmp_path / "home")
    assert found.stdout.strip() == str(good)


def test_a_release_too_old_is_passed_over(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "python3", TOO_OLD)
    assert find(tmp_path / "bin", home=tmp_path / "home").returncode != 0
    good = script(tmp_path / "more" / "python3.12", WORKS)
    (tmp_path / "home" / "tools").rename(tmp_path / "used")
    found = find(tmp_path / "bin", tmp_path / "more", home=tmp_path / "home")
    assert found.stdout.strip() == str(good)


def test_named_releases_come_before_the_plain_name_and_pyenv_before_uv(tmp_path: Path) -> None:
    home = tmp_path / "home"
    uv = script(home / ".local/share/uv/python/cpython-3.13.1-linux/bin/python3", WORKS)
    assert find(home=home).stdout.strip() == str(uv)
    for made_after, path in enumerate(
        (".pyenv/versions/3.12.4/bin/python3", ".pyenv/versions/3.13.0/bin/python3")
    ):
        best = script(home / path, WORKS)
        (home / "tools").rename(tmp_path / f"used-{made_after}")
        assert find(home=home).stdout.strip() == str(best)
    plain = script(tmp_path / "bin" / "python3", WORKS)
    (home / "tools").rename(tmp_path / "used-plain")
    assert find(tmp_path / "bin", home=home).stdout.strip() == str(plain)
    named = script(tmp_path / "bin" / "python3.12", WORKS)
    (home / "tools").rename(tmp_path / "used-named")
    assert find(tmp_path / "bin", home=home).stdout.strip() == str(named)
