"""`python -m tests.acceptance.hurried worker ...`: the `detent` command for tests that have no time.

Its lease is 3 s, not 15, who carries a bulk action on is given up as soon, and it looks for what is due ten times a second,
because tests move the database's clock.
"""

from __future__ import annotations

from detent.cli import main
from detent.engine import bulk, maintenance, ticks
from detent.worker import reaper, renewing, vigil

LEASE = 3.0


HURRIED = {
    (reaper, "LEASE"): LEASE,
    (vigil, "LEASE"): LEASE,
    (reaper, "INTERVAL"): LEASE / 5,
    (renewing, "INTERVAL"): LEASE / 3,
    (bulk, "RESERVED_SECONDS"): LEASE,
    (maintenance, "LONGEST_SLEEP"): 0.1,
    (maintenance, "LONG_WORK_SECONDS"): 0.1,
    (ticks, "AHEAD_SECONDS"): 0.1,
}
"""All of them are the supervisor's: runners know nothing of leases."""


def hurry() -> None:
    for (module, name), seconds in HURRIED.items():
        assert isinstance(getattr(module, name), float)
        setattr(module, name, seconds)


if __name__ == "__main__":
    hurry()
    main.run()
