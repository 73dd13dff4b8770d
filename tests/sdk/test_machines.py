"""Machines as tasks name them: checked where the config is known, told to the engine with the config's default."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detent import DefinitionError, Machine, Retry, task
from detent.protocol.machines import PRESETS
from detent.sdk import discovery
from detent.sdk.machines import machines

BOX = Machine(cpu=8, memory_gb=32)


@pytest.fixture(autouse=True)
def unknown() -> Iterator[None]:
    """No config has been loaded."""
    before, machines.own = machines.own, None
    yield
    machines.own = before


@pytest.fixture
def known() -> None:
    """A config is loaded that has one machine."""
    machines.own = {"gpu-box": BOX}


def test_a_preset_is_what_the_documentation_says() -> None:
    assert (PRESETS["micro"].cpu, PRESETS["micro"].memory) == (0.25, 256 * 1024**2)
    assert (PRESETS["large-2x"].cpu, PRESETS["large-2x"].memory) == (8, 16 * 1024**3)


@pytest.mark.usefixtures("known")
def test_a_machine_of_the_config_is_known_beside_the_presets() -> None:
    assert [machines.check(name) for name in ("gpu-box", "micro")] == ["gpu-box", "micro"]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("options", [{"machine": "large1x"}, {"isolation": "process", "retry": Retry(oom_machine="large1x")}])
def test_an_unknown_machine_is_refused_at_definition_naming_the_nearest(options: Any) -> None:
    def work() -> None: ...

    with pytest.raises(DefinitionError, match="there is no machine 'large1x'; did you mean \"large-1x\"") as refused:
        task(**options)(work)
    assert "tests/sdk/test_machines.py" in str(refused.value)


def test_the_machines_of_a_config_are_known_once_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "detent_config.py").write_text(
        "from detent import Machine, define_config\nconfig = define_config(machines={'gpu-box': Machine(cpu=8, memory_gb=32)})\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        discovery.load_config(tmp_path)
        sys.modules.pop("detent_config", None)
    assert machines.own == {"gpu-box": BOX}


def test_a_program_without_a_config_takes_a_name_for_one_of_its_machines() -> None:
    @task(machine="gpu-box")
    async def render() -> None: ...

    assert render.machine == "gpu-box"


def test_the_config_fills_in_the_machine_of_tasks_that_name_none() -> None:
    @task
    async def plain() -> None: ...

    @task(machine="micro")
    async def small() -> None: ...

    registered = [one.registration(Retry(), default_machine="small-2x").machine for one in (plain, small)]
    assert registered == ["small-2x", "micro"]


def test_only_runs_in_processes_of_their_own_are_tried_on_the_machine_of_the_default_retry() -> None:
    @task(isolation="process")
    def alone() -> None: ...

    @task
    def threaded() -> None: ...

    default = Retry(oom_machine="large-1x")
    assert [one.registration(default).oom_machine for one in (alone, threaded)] == ["large-1x", None]


@pytest.mark.parametrize("sizes", [{"cpu": 0, "memory_gb": 1}, {"cpu": 1, "memory_gb": -1}, {"cpu": True, "memory_gb": 1}])
def test_a_machine_of_no_size_is_refused(sizes: Any) -> None:
    with pytest.raises(DefinitionError, match="it must be a number over 0"):
        Machine(**sizes)
