"""What two processes must agree on: statuses, ids, the values that cross, retry arithmetic, JSON, and the `Backend` seam.

Pure: no I/O, no driver, no pydantic. Imports only `duration` and `errors`. Start reading at `backend.py` (every operation a
caller may ask for) and `status.py` (the life of a run). What an operation takes and answers is in the module that is named for
what it is about: `triggering`, `leases`, `attempts`, `waits` …; payloads, outputs and metadata cross as JSON text.
"""
