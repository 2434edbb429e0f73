"""The recording of the tour, what is made of it, and which differences between two runs are put aside."""

import json
from xml.etree import ElementTree as ET

import pytest

from support.tour.likeness import Memory, differences
from support.tour.page import CAST, PAGE, OutdatedError, commands, made, picture, single
from support.tour.recording import Scene, from_cast, to_cast

RED = Scene("status\n", ((0.25, "\x1b[31mnot\x1b[0m ready  \r\n"), (1.0, "next\r\n")))
SILENT = Scene("touch a \\\n  b\n", ())
COMMAND = """\
```sh
touch a \\
  b
```

"""
TEXT = COMMAND + "```sh\nstatus\n```\n\n```text\n{}```\n"
PICTURE = COMMAND + "```sh\nstatus\n```\n\n![A picture](status.svg)\n"


def test_a_recording_can_be_read_again() -> None:
    scenes = [RED, SILENT, RED]
    assert from_cast(to_cast("title", scenes)) == scenes


def test_a_recording_is_an_asciicast_whose_time_goes_on() -> None:
    head, *events = map(json.loads, to_cast("title", [RED, SILENT, RED]).splitlines())
    assert (head["version"], head["title"]) == (2, "title")
    assert {kind for _, kind, _ in events} == {"m", "o"}
    times = [at_s for at_s, _, _ in events]
    assert times == sorted(times)


def test_what_was_shown_is_read_without_colours_and_blanks_at_the_end() -> None:
    assert RED.text == "not ready\nnext\n"


def test_a_block_has_commands_of_one_or_several_lines() -> None:
    text = "cat >a <<'END'\none \\\ntwo\nEND\n"
    more = "kubectl get \\\n  ppe\n"
    assert single(f"{text}{more}true\n") == [text, more, "true\n"]


def test_outputs_are_put_behind_their_commands() -> None:
    ((path, text),) = made(TEXT.format("as it was\n"), [SILENT, RED])
    assert path == PAGE
    assert text == TEXT.format("not ready\nnext\n")
    assert [one.is_shown for one in commands(text)] == [False, True]


def test_a_picture_shows_the_terminal_with_its_colours_and_asks_nobody_for_a_font() -> None:
    _, (path, drawn) = made(PICTURE, [SILENT, RED])
    assert path == PAGE.with_name("status.svg")
    words = "".join(ET.fromstring(drawn).itertext()).replace("\xa0", " ")
    assert "not ready" in words.replace("\n", "")
    assert "url(http" not in drawn.replace('"', "")
    assert drawn == picture(RED)


def test_a_recording_of_other_commands_is_refused() -> None:
    with pytest.raises(OutdatedError):
        list(made(TEXT.format(""), [RED]))


def test_the_recording_is_of_the_page_and_tells_nothing_of_its_machine() -> None:
    cast = CAST.read_text(encoding="utf-8")
    assert [scene.command for scene in from_cast(cast)] == [
        one.text for one in commands(PAGE.read_text(encoding="utf-8"))
    ]
    for word in ("/root", "/home", "/work", "/tmp/pytest", "Authorization", "ppk_"):
        assert word not in cast


ID, OTHER = "01a22e8a65c1705dbb92a94102592aa0", "0198c1f2a3b47c5d8e9f0a1b2c3d4e5f"


@pytest.mark.parametrize(
    ("was", "seen", "alike"),
    [
        (["ready 5s"], ["ready 2m13s"], True),
        (["ready 5s"], ["not ready 5s"], False),
        (["api-5ddd9574cb-mbwzb  1/1"], ["api-d55cb98d9-vchrm     1/1"], True),
        (["api-5ddd9574cb-mbwzb  1/1"], ["api-d55cb98d9-vchrm  0/1"], False),
        (["paid"], ["waiting for http://api …\npaid"], True),
        (["api-5f9ff9f7-k8qk8"], ["api-5ddd9574cb-mbwzb"], True),
        (["migrate-e3d324c6-x7k2p"], ["migrate-16c141ff-pfmw2"], True),
        (["migrate-e3d324c6"], ["migrate-16c141ff"], True),
        (["cannot pull a:1: no route"], ["cannot pull a:1: not found"], True),
        (["cannot pull a:1: no route"], ["cannot pull b:1: no route"], False),
        ([f"pay_{ID}", f"pay_{ID}"], [f"pay_{OTHER}", f"pay_{OTHER}"], True),
        ([f"pay_{ID}", f"pay_{ID}"], [f"pay_{ID}", f"pay_{OTHER}"], False),
        (["21", "posted_minor  21"], ["350", "posted_minor  350"], True),
        (["21", "posted_minor  21"], ["350", "posted_minor  349"], False),
        (["posted_minor  21"], ["posted_minor  22"], False),
    ],
)
def test_two_runs_are_alike_but_for_what_is_another_in_every_run(
    was: list[str], seen: list[str], alike: bool
) -> None:
    then, now = Memory(), Memory()
    found = [
        line
        for one, other in zip(was, seen, strict=True)
        for line in differences(then.settled(one), now.settled(other))
    ]
    assert (not found) == alike, found
