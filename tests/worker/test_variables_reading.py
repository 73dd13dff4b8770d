"""When runners are given other variables, without processes and without a database."""

from __future__ import annotations

from typing import cast

import pytest

from detent.protocol.backend import WorkerBackend
from detent.protocol.envvars import Variables
from detent.worker.children import Children
from detent.worker.control import Given
from detent.worker.variables_reading import VariablesReading
from tests.worker.stand_in import StandIn


class Store:
    """Answers like a backend: nothing when what it has is known."""

    def __init__(self, **values: str) -> None:
        self.variables = Variables(fingerprint="1", values=values)

    async def read_variables(self, known: str | None) -> Variables | None:
        return None if known == self.variables.fingerprint else self.variables


async def test_runners_are_given_what_has_changed_and_only_then() -> None:
    store, children = Store(A="first"), Children()
    reading = VariablesReading(cast("WorkerBackend", store), children)
    assert reading.values == {}
    runner = StandIn().join(children)
    for _ in range(2):
        await reading.read()
    assert runner.sent == [Given(variables={"A": "first"})]
    store.variables = Variables(fingerprint="2", values={"A": "second"})
    await reading.read()
    assert runner.sent[1:] == [Given(variables={"A": "second"})]
    assert reading.values == {"A": "second"}


async def test_a_key_that_does_not_fit_and_a_name_of_the_worker_itself_are_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN", "the worker's")
    store = Store()
    store.variables = Variables(fingerprint="1", values={"OWN": "", "A": ""}, obstacle="1 variable cannot be opened")
    await VariablesReading(cast("WorkerBackend", store), Children()).read()
    assert [record.message for record in caplog.records] == [
        "1 variable cannot be opened",
        "runs find the worker's own OWN, not what the environment has under that name",
    ]
