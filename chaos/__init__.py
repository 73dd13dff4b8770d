"""Chaos: random programs executed by workers that are killed, stopped and drained, on a PostgreSQL that is, too.

`python -m chaos --runs 10000 --seed 7`, or `make chaos`. What a program must come to is told by `plan`, an interpreter that knows
nothing of detent; `tasks` has detent execute it, and notes each effect in a file (`effects`). `troubles` is what goes wrong,
`outsider` completes tokens, and `rules` reads the tables and the file when all is over: start reading there.
"""
