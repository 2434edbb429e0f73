"""The tour of docs/tutorial/kubernetes.md, followed word by word: it shows what the page does.

With --e2e-record nothing is compared: the recording, the page and its pictures are written anew.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from picopay_operator import names
from support.e2e.installation import DEFINITION, Installation
from support.e2e.kube import Kube
from support.tour.__main__ import written
from support.tour.likeness import Memory, differences
from support.tour.page import CAST, PAGE, TITLE, Command, commands
from support.tour.player import play
from support.tour.recording import Scene, from_cast, to_cast


@pytest.fixture
def shop_street(bare: Installation, saved: list[Kube]) -> Iterator[Kube]:
    """Return the namespace that the page makes; remove it, wherever the reader has stopped."""
    kube = bare.kube.of("shop")
    assert not kube.exists("namespace", kube.namespace), "it is somebody else's"
    saved.append(kube)
    yield kube
    saved.remove(kube)
    if kube.exists("customresourcedefinition", DEFINITION):
        kube("delete", names.PLURAL, "--all", "--timeout=2m")
    kube("delete", "namespace", kube.namespace, "--ignore-not-found", "--timeout=3m")


def test_the_tour_shows_what_its_page_says(
    bare: Installation, shop_street: Kube, tmp_path: Path
) -> None:
    told = commands(PAGE.read_text(encoding="utf-8"))
    chosen = bare.options
    replaced = {
        "docker.io/picopay": chosen.repository,
        "docker.io/library/postgres": chosen.postgres_image,
    }
    with closing(play(told, chosen.context, tmp_path, replaced)) as played:
        if chosen.record:
            scenes = list(played)
            CAST.write_text(to_cast(TITLE, scenes), encoding="utf-8")
            written(scenes)
        else:
            compare(told, played)
    bare.demand_room()  # the page has cleaned up
    assert not shop_street.exists("namespace", shop_street.namespace)


def compare(told: Sequence[Command], played: Iterable[Scene]) -> None:
    """Demand that what the page shows is what is seen."""
    recorded = from_cast(CAST.read_text(encoding="utf-8"))
    then, now = Memory(), Memory()
    for one, was, seen in zip(told, recorded, played, strict=True):
        assert was.command == one.text, "the recording is of another page: record it anew"
        if one.is_shown:
            found = list(differences(then.settled(was.text), now.settled(seen.text)))
            assert not found, "\n".join([one.text, *found, "", seen.text])
