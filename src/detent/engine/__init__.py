"""The durable state machine on PostgreSQL. Only this package writes its tables; it knows no user code and no HTTP.

Start at `backend.py` (the operations behind `detent.protocol.backend.Backend`), then `lifecycle.py` (what an outcome means,
pure) and `sql/` (the statements; the functions they call are in `migrations/`). `db.py` holds connections, repeats what a
lost connection interrupted, and states the lock order.
"""
