from __future__ import annotations

from detent.protocol import ids
from detent.protocol.ids import SessionId
from detent.protocol.sessions import SessionBeat
from detent.worker.reaper import INTERVAL, LEASE, Reaper

LOST, OWN = ids.new_session_id(), ids.new_session_id()


def beats(beat: int, session: SessionId = LOST) -> list[SessionBeat]:
    return [SessionBeat(session_id=session, beat=beat)]


def test_a_heartbeat_that_stands_still_for_a_lease_is_dead() -> None:
    reaper, now = Reaper(), 0.0
    while now < LEASE:
        assert reaper.observe(now, beats(7), ()) == []
        now += INTERVAL
    assert reaper.observe(now, beats(7), ()) == beats(7)


def test_a_heartbeat_that_moves_lives() -> None:
    reaper = Reaper()
    assert all(reaper.observe(count * INTERVAL, beats(count // 2), ()) == [] for count in range(40))


def test_an_outage_kills_nobody() -> None:
    reaper = Reaper()
    for count in range(4):
        reaper.observe(count * INTERVAL, beats(7), ())
    reaper.lose_contact()
    assert reaper.observe(1000.0, beats(7), ()) == []
    assert reaper.observe(1000.0 + INTERVAL, beats(7), ()) == []


def test_a_reaper_that_was_stopped_begins_anew() -> None:
    reaper = Reaper()
    reaper.observe(0.0, beats(7), ())
    assert reaper.observe(3600.0, beats(7), ()) == []


def test_a_clock_that_jumps_back_kills_nobody() -> None:
    reaper = Reaper()
    reaper.observe(3600.0, beats(7), ())
    assert reaper.observe(0.0, beats(7), ()) == []


def test_own_sessions_are_left_alone() -> None:
    reaper = Reaper()
    assert all(reaper.observe(count * INTERVAL, beats(7, OWN), {OWN}) == [] for count in range(40))
