"""What two processes must agree on: statuses, ids, wire models, retry arithmetic, JSON, and the `Backend` seam.

Pure: no I/O, no driver, no pydantic. Imports only `duration` and `errors`. Start reading at `backend.py` (every operation a
caller may ask for) and `status.py` (the life of a run).
"""
