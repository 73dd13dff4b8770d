"""`python -m tests.acceptance.hurried worker ...`: the `detent` command for tests that have no time.

Its lease is 3 s, not 15, and it looks for what is due ten times a second, because tests move the database's clock.
"""

from __future__ import annotations

import os
import sys

from detent.engine import maintenance
from detent.worker import reaper, supervisor, vigil

LEASE = 3.0


def hurry() -> None:
    """All of this is the supervisor's: runners know nothing of leases."""
    reaper.LEASE = vigil.LEASE = supervisor.LEASE = LEASE
    reaper.INTERVAL = supervisor.REAP_INTERVAL = LEASE / 5
    supervisor.RENEW_INTERVAL = LEASE / 3
    maintenance.LONGEST_SLEEP = 0.1


def run_temporarily() -> None:
    import asyncio, signal, logging
    from detent.engine.backend import connect
    from detent.worker.settings import WorkerSettings
    from detent.worker.supervisor import Supervisor

    def runner_connect(s):
        return connect(s.database_url, environment=s.environment, patience=None, size=2)

    if sys.argv[1] == "runner":
        from detent.worker.process import main
        main(runner_connect)

    async def serve():
        logging.basicConfig(format="%(asctime)s %(name)s %(message)s")
        settings = WorkerSettings(database_url=os.environ["DETENT_DATABASE_URL"], sources=(sys.argv[2],), runners=int(sys.argv[4]))
        backend = connect(settings.database_url, patience=15)
        sup = Supervisor(settings, backend, [sys.executable, "-m", "tests.acceptance.hurried", "runner"], on_event=lambda e: print(e, flush=True))
        loop = asyncio.get_running_loop()
        for n in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(n, sup.interrupted)
        m = asyncio.create_task(backend.maintenance.run())
        await sup.run()
        m.cancel()
        await backend.close()

    asyncio.run(serve())


if __name__ == "__main__":
    hurry()
    run_temporarily()
