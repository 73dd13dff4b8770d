"""Reading the variables of the environment for runners, which get them from their supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

from detent.errors import ApiConnectionError
from detent.protocol.backend import WorkerBackend
from detent.protocol.envvars import Variables
from detent.worker.children import Children
from detent.worker.control import Given

INTERVAL = 5.0

log = logging.getLogger("detent.worker")


class VariablesReading:
    """Decides when runners are given other variables: when the environment's are not those of the last look."""

    def __init__(self, backend: WorkerBackend, children: Children) -> None:
        self._backend, self._children = backend, children
        self._known: Variables | None = None

    @property
    def values(self) -> Mapping[str, str]:
        """What a runner that starts now is given."""
        return self._known.values if self._known else {}

    async def read_forever(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.read()
            except ApiConnectionError:
                pass  # told by those that renew
            except Exception:
                log.exception("the variables of the environment cannot be read; runs go on with those they have")

    async def read(self) -> None:
        """Look once, and pass on what has changed."""
        changed = await self._backend.read_variables(self._known.fingerprint if self._known else None)
        if changed is None:
            return
        self._known = changed
        if changed.obstacle:
            log.error("%s", changed.obstacle)
        if shadowed := ", ".join(sorted(changed.values.keys() & os.environ.keys())):
            log.warning("runs find the worker's own %s, not what the environment has under that name", shadowed)
        for child in self._children:
            child.send(Given(variables=changed.values))
