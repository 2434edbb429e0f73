"""Applies engines as soon as the cluster knows their kind: `python -m picopay_operator.install FOLDER`.

Run by the Job in k8s/: `kubectl apply` of a folder cannot bring both a new kind and objects of it, as it
asks for all kinds before it begins. Uses the cluster that it runs in, else the one of the kubeconfig. Not a
part of the operator's work: nothing else calls it.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from picopay_operator import names

FIELD_MANAGER = "picopay-install"
_APPLY = "application/apply-patch+yaml"
_ATTEMPTS_MAX = 240
_PAUSE_S = 0.5
_REQUEST_S = 10
# The kind is not there yet, the role that allows it is not seen yet, or the server has too much to do.
_PASSING = frozenset({403, 404, 429, 500, 502, 503, 504})


def main(arguments: Sequence[str] | None = None) -> None:
    """Apply all engines in the YAML files of a folder; exit 1 when one is refused or time is up."""
    parser = argparse.ArgumentParser(prog="picopay_operator.install", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    try:
        asyncio.run(_apply_all(list(read(folder))))
    except ApiException as refusal:
        sys.exit(f"not applied: {refusal.body or refusal.reason}")


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the engines in the YAML files of a folder."""
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if (document["apiVersion"], document["kind"]) != (names.API_VERSION, names.KIND):
                sys.exit(f"{path.name} has something else than a {names.KIND}")
            yield document


async def _apply_all(engines: Sequence[dict[str, Any]]) -> None:
    try:
        config.load_incluster_config()
    except config.ConfigException:
        await config.load_kube_config()
    async with client.ApiClient() as api:
        for engine in engines:
            await _apply(client.CustomObjectsApi(api), engine)
            print(f"{names.KIND} {engine['metadata']['name']} applied", flush=True)  # noqa: T201  # the Job's log


async def _apply(api: client.CustomObjectsApi, engine: dict[str, Any]) -> None:
    """Apply an engine, again and again while the cluster is not ready for it; raise what it said last."""
    metadata = engine["metadata"]
    for attempt in range(1, _ATTEMPTS_MAX + 1):
        try:
            await api.patch_namespaced_custom_object(
                names.GROUP,
                names.VERSION,
                metadata["namespace"],
                names.PLURAL,
                metadata["name"],
                engine,
                field_manager=FIELD_MANAGER,
                force=True,
                _content_type=_APPLY,
                _request_timeout=_REQUEST_S,
            )
        except ApiException as refusal:
            if attempt == _ATTEMPTS_MAX or refusal.status not in _PASSING:
                raise
        except (aiohttp.ClientError, TimeoutError):
            if attempt == _ATTEMPTS_MAX:
                raise
        else:
            return
        await asyncio.sleep(_PAUSE_S)


if __name__ == "__main__":
    main()
