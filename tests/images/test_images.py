"""Both images: what they are told to be, what is in them and what is not, and that they do their work."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from picopay_api import __version__
from picopay_api.database_url import DatabaseUrl
from picopay_api.store.schema import MIN_COMPATIBLE_SCHEMA, head
from support.images import PROGRAMS, UID, Engine, Image
from support.postgres import CHECKOUT

pytestmark = pytest.mark.timeout(1_800)  # the first test makes the images

API_MB_MAX = 60
PATIENCE_S = 60
TOOLS = (
    *(
        "apk",
        "apt",
        "apt-get",
        "as",
        "c++",
        "cargo",
        "cc",
        "clang",
        "conda",
        "cpp",
        "dpkg",
        "easy_install",
    ),
    *(
        "g++",
        "gcc",
        "go",
        "ld",
        "make",
        "npm",
        "perl5",
        "pip",
        "pip3",
        "rustc",
        "strip",
        "uv",
        "yum",
    ),
)
INSTALLERS = ("ensurepip", "pip", "setuptools", "uv", "hatchling", "cyclonedx_py")
APIS_OWN = ("picopay_api", "litestar", "asyncpg", "sqlalchemy", "alembic", "uvicorn")
OPERATORS_OWN = ("picopay_operator", "kopf", "kubernetes", "aiohttp")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.remove()


@pytest.fixture(scope="module")
def images(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    return engine.make(tmp_path_factory.mktemp("images"))


@pytest.fixture(params=PROGRAMS)
def image(images: dict[str, Image], request: pytest.FixtureRequest) -> Image:
    return images[request.param]


@pytest.fixture(scope="module")
def api(images: dict[str, Image]) -> Image:
    return images["api"]


def test_nobody_is_root(image: Image, engine: Engine) -> None:
    assert image.config["User"] == f"{UID}:{UID}"
    program = (
        "import json, os; print(json.dumps([os.getuid(), os.getgid(), os.access('/', os.W_OK)]))"
    )
    assert engine.python(image, program) == [UID, UID, False]


def test_what_the_api_runs(api: Image) -> None:
    assert (api.config["Entrypoint"], api.config["Cmd"]) == (["picopay"], ["serve"])
    assert api.config["Healthcheck"]["Test"] == ["CMD", "picopay", "healthcheck"]
    assert list(api.config["ExposedPorts"]) == ["8000/tcp"]


def test_what_the_operator_runs(images: dict[str, Image]) -> None:
    config = images["operator"].config
    assert config["Entrypoint"] == ["python", "-m", "picopay_operator"]
    assert not config.get("Cmd")
    assert config.get("Healthcheck", {"Test": ["NONE"]})["Test"] == ["NONE"]


def test_labels(image: Image) -> None:
    labels = image.config["Labels"]
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert labels["org.opencontainers.image.revision"] == revision.stdout.strip()
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.base.name"]


def test_labels_of_the_schema_are_what_the_image_says(api: Image, engine: Engine) -> None:
    told = json.loads(engine.run(api, "schema", "info", "--json").stdout)
    assert (told["head"], told["min_compatible"]) == (head(), MIN_COMPATIBLE_SCHEMA)
    assert api.config["Labels"]["io.picopay.schema.head"] == told["head"]
    assert api.config["Labels"]["io.picopay.schema.min-compatible"] == told["min_compatible"]


def test_nothing_in_it_installs_or_compiles(image: Image, engine: Engine) -> None:
    program = f"""
import importlib.util, json, shutil
print(json.dumps([[one for one in {TOOLS} if shutil.which(one)],
                  [one for one in {INSTALLERS} if importlib.util.find_spec(one)]]))"""
    assert engine.python(image, program) == [[], []]


@pytest.mark.parametrize(
    ("program", "own", "others"),
    [("api", APIS_OWN, OPERATORS_OWN), ("operator", OPERATORS_OWN, APIS_OWN)],
)
def test_neither_carries_the_others_packages(
    images: dict[str, Image],
    engine: Engine,
    program: str,
    own: tuple[str, ...],
    others: tuple[str, ...],
) -> None:
    asked = f"""
import importlib.util, json
print(json.dumps([one for one in {own + others} if importlib.util.find_spec(one)]))"""
    assert engine.python(images[program], asked) == list(own)


def test_the_bill_of_materials_names_every_package_as_it_is_locked(
    image: Image, engine: Engine
) -> None:
    program = """
import importlib.metadata, json
print(json.dumps({one.name: one.version for one in importlib.metadata.distributions()}))"""
    installed = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in engine.python(image, program).items()
        if name != "picopay"
    }
    bill = image.bill_of_materials
    named = {
        re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"] for one in bill["components"]
    }
    assert named == installed
    assert bill["metadata"]["component"]["name"] == "picopay"
    lock = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")
    for name, version in installed.items():
        assert f"\n{name}=={version} " in lock


def test_what_is_imported_has_been_compiled(image: Image, engine: Engine) -> None:
    # A root that is read-only keeps no bytecode: it would be made anew at every start.
    module = "picopay_api.app" if "-api" in image.name else "picopay_operator.__main__"
    program = f"""
import importlib, json, pathlib, sys
importlib.import_module({module!r})
specs = [getattr(one, "__spec__", None) for one in list(sys.modules.values())]
files = [one.cached for one in specs if one and one.has_location]
print(json.dumps([one for one in files if one and not pathlib.Path(one).exists()]))"""
    assert engine.python(image, program) == []


def test_the_api_is_small(api: Image, engine: Engine) -> None:
    own = len(api.layers) - len(engine.base_layers())
    assert sum(api.sizes[-own:]) <= API_MB_MAX * 1_000_000


def test_the_same_commit_has_the_same_layers(api: Image, engine: Engine, tmp_path: Path) -> None:
    again = engine.make(tmp_path, "--only", "api", "--no-cache")
    assert again["api"].layers == api.layers
    assert again["api"].bill_of_materials == api.bill_of_materials


def test_the_api_tells_its_version(api: Image, engine: Engine) -> None:
    assert engine.run(api, "--version").stdout.strip() == __version__


def test_it_migrates_and_serves(
    api: Image, engine: Engine, empty_database_url: DatabaseUrl
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = {
        "DATABASE_URL": empty_database_url.text,
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
    }
    migrated = engine.run(api, "migrate", **told)
    assert migrated.exit_code == 0, migrated
    with engine.running(api, **told) as container:
        until = time.monotonic() + PATIENCE_S
        while not _ready(port):
            assert time.monotonic() < until, container.logs()
            time.sleep(0.1)
        assert container.execute("picopay", "healthcheck") == 0
        assert container.stop() == 0, container.logs()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
    except httpx.TransportError:
        return False


def test_the_operator_starts(images: dict[str, Image], engine: Engine) -> None:
    ended = engine.run(images["operator"], PICOPAY_OPERATOR_PORT="none")
    assert ended.exit_code == 3
    assert "PICOPAY_OPERATOR_PORT" in ended.stderr


def test_the_installer_starts(images: dict[str, Image], engine: Engine) -> None:
    program = """
import json, subprocess, sys
command = [sys.executable, "-m", "picopay_operator.install", "--help"]
print(json.dumps(subprocess.check_output(command, text=True)))"""
    assert "picopay_operator.install" in engine.python(images["operator"], program)
