"""How fast detent is, beside bare PostgreSQL in the same run: `python -m benchmarks [question …] [--scale 0.01] [--save]`.

One file a question in `questions/`; each measures what users run (shipped defaults, real worker processes, the public SDK),
checks that the work was really done, and gives one block of the report. What they share: `stage` (one embedded server),
`database` (a fresh one for each measurement), `worker` (the `detent worker` process), `rows` (many rows by SQL), `measuring`.

May import anything of detent. Start reading at `__main__.py`; what each figure means is told in `docs/performance.md`.
"""
