"""What the operator is set up by, and what it tells of itself when it is asked."""

from importlib.metadata import version

import msgspec
import pytest

from picopay_operator.__main__ import main
from picopay_operator.settings import VARIABLES, Settings, SettingsError

OTHERWISE = {
    "PICOPAY_OPERATOR_PORT": "9090",
    "PICOPAY_OPERATOR_RESYNC_S": "60",
    "PICOPAY_OPERATOR_WORKERS": "2",
    "LOG_LEVEL": "ERROR",
    "PICOPAY_LOG_FORMAT": "text",
}
"""Values for what cannot be any text."""


def test_defaults_are_the_same_wherever_they_stand() -> None:
    assert Settings.of({"POD_NAME": Settings().pod_name}) == Settings()
    assert Settings.of(dict.fromkeys(VARIABLES, "")) == Settings.of({})


def test_every_variable_sets_something_of_its_own() -> None:
    changed = []
    for name in VARIABLES:
        before = msgspec.to_builtins(Settings.of({}))
        after = msgspec.to_builtins(Settings.of({name: OTHERWISE.get(name, "other")}))
        changed += [field for field in before if before[field] != after[field]]
    assert sorted(changed) == sorted(field.name for field in msgspec.structs.fields(Settings))


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = {
        "PICOPAY_OPERATOR_PORT": "70000",
        "PICOPAY_OPERATOR_WORKERS": "many",
        "LOG_LEVEL": "LOUD",
        "PICOPAY_OPERATOR_REPLICAS": "3",
    }
    with pytest.raises(SettingsError) as refused:
        Settings.of(wrong)
    assert [name for name in wrong if name in str(refused.value)] == list(wrong)


def test_help_names_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert not ended.value.code
    told = capsys.readouterr().out
    assert [name for name in VARIABLES if name not in told] == []


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out == f"{version('picopay')}\n"


def test_there_is_nothing_to_say_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run"])
    assert ended.value.code == 2
    assert "unrecognized arguments: run" in capsys.readouterr().err
