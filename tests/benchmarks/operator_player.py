"""The played kubelet of the operator's benchmark, in a process of its own: so it waits for nobody.

Started by `operator_bench.py` (`python operator_player.py KUBECONFIG`), with which it ends.
"""

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as in run.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import httpx

from support.controlplane.api_server import ApiServer
from support.controlplane.player import Player
from support.controlplane.plays import Exits
from support.world import report

_WRITES_AT_ONCE = 8


class _Busy(Player):
    """A player that shows several pods at once, as the kubelets of many nodes do."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(super().run())
            for _ in range(_WRITES_AT_ONCE - 1):
                tasks.create_task(self._play_on(tasks))


async def main(content: dict[str, Any]) -> None:
    """Play until ended; `content` is that of a kubeconfig."""
    cluster = content["clusters"][0]["cluster"]
    async with httpx.AsyncClient(
        base_url=cluster["server"],
        verify=ssl.create_default_context(cafile=cluster["certificate-authority"]),
        headers={"Authorization": f"Bearer {content['users'][0]['user']['token']}"},
        timeout=60,
    ) as http:
        player = _Busy(ApiServer(http, "default"))
        player.plays(Exits(0, report()), argument="migrate")
        await player.prepare()
        await player.run()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
