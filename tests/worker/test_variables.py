"""The variables that an environment gives, among those that the process came with."""

from __future__ import annotations

from detent.worker.variables import GivenVariables


def test_given_variables_come_change_and_go() -> None:
    process: dict[str, str] = {}
    variables = GivenVariables(process)
    variables.give({"A": "1", "B": "1"})
    assert process == {"A": "1", "B": "1"}
    variables.give({"B": "2"})
    assert process == {"B": "2"}
    variables.give({})
    assert process == {}


def test_own_variables_of_the_process_stay_as_they_are() -> None:
    process = {"PATH": "/bin", "A": ""}
    variables = GivenVariables(process)
    variables.give({"PATH": "/evil", "A": "1", "B": "1"})
    assert process == {"PATH": "/bin", "A": "", "B": "1"}
    variables.give({})
    assert process == {"PATH": "/bin", "A": ""}


def test_variable_that_a_run_has_set_itself_stays() -> None:
    process: dict[str, str] = {}
    variables = GivenVariables(process)
    variables.give({"A": "1"})
    process["B"] = "mine"
    del process["A"]
    variables.give({})
    assert process == {"B": "mine"}
