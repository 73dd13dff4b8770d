"""One question a module: `answer(stage)` returns its block of the report."""
