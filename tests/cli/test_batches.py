from __future__ import annotations

from detent import tasks
from detent.protocol.ids import new_batch_id
from tests.cli.conftest import Detent


def test_a_batch_is_shown_with_what_became_of_it(at_database: Detent) -> None:
    made = tasks.sync.batch_trigger("hello", [1, 2], idempotency_key="import 7")
    at_database("runs", "cancel", made.runs[0].id)
    shown = at_database("batches", "get", made.id).out
    for part in (made.id, "status       PROCESSING", "2 of 2 given", "cancelled    1", "key          import 7"):
        assert part in shown


def test_a_batch_as_json_names_its_runs(at_database: Detent) -> None:
    made = tasks.sync.batch_trigger("hello", [1, 2])
    record = at_database("batches", "get", made.id, "--json").json
    assert record["run_ids"] == [handle.id for handle in made.runs]
    assert (record["status"], record["run_count"]) == ("PROCESSING", 2)


def test_an_unknown_batch_is_a_sentence(at_database: Detent) -> None:
    done = at_database("batches", "get", new_batch_id())
    assert done.code == 1
    assert "there is no batch" in done.err
