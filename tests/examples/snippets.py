"""`python -m tests.examples.snippets`: executes the snippets of one page, in one namespace, in the reader's project.

Reads a JSON string a snippet from stdin, and answers each with a JSON string: what went wrong, empty for nothing. A snippet
may `await`; one that does not is executed with no event loop running. A `print` may say what it prints (`print(1 + 1)  # => 2`),
and any statement what it raises (`# raises ValueError: ...`); `…` stands for anything.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import sys
import traceback

from tests.examples.likeness import Ids, difference

_PRINTED = re.compile(r"  # => (.+)$")
_RAISED = re.compile(r"  # raises (.+)$")


def main() -> None:
    sys.path.insert(0, "")
    answers, sys.stdout = sys.stdout, sys.stderr
    names: dict[str, object] = {"__name__": "snippets", "_prints": _prints, "_raised": _raised}
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            try:
                _execute(json.loads(line), names, runner)
            except Exception:  # noqa: BLE001 - whatever a snippet raises is what the test wants to know
                print(json.dumps(traceback.format_exc()), file=answers, flush=True)
            else:
                print(json.dumps(""), file=answers, flush=True)


def _execute(text: str, names: dict[str, object], runner: asyncio.Runner) -> None:
    tree = ast.parse(text)
    lines = text.splitlines()
    tree.body = [_checked(statement, lines) for statement in tree.body]
    code = compile(ast.fix_missing_locations(tree), "snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        runner.run(eval(code, names))
    else:
        exec(code, names)


def _checked(statement: ast.stmt, lines: list[str]) -> ast.stmt:
    last = lines[(statement.end_lineno or 1) - 1]
    if raised := _RAISED.search(last):
        return _try(statement, raised[1])
    match statement, _PRINTED.search(last):
        case ast.Expr(value=ast.Call(func=ast.Name(id="print")) as call), re.Match() as found:
            call.func = ast.Name("_prints", ast.Load())
            call.keywords.append(ast.keyword("shown", ast.Constant(found[1])))
    return statement


def _try(statement: ast.stmt, expected: str) -> ast.stmt:
    (checked,) = ast.parse(f"try: pass\nexcept Exception as error: _raised(error, {expected!r})\nelse: _raised(None, '')").body
    assert isinstance(checked, ast.Try)
    checked.body = [statement]
    return checked


def _prints(*values: object, shown: str) -> None:
    wrong = difference([shown], [" ".join(map(str, values))], Ids())
    assert not wrong, wrong


def _raised(error: Exception | None, shown: str) -> None:
    assert error is not None, "nothing was raised"
    wrong = difference([shown], [f"{type(error).__name__}: {error}".partition("\n")[0]], Ids())
    if wrong:
        raise AssertionError(wrong) from error


if __name__ == "__main__":
    main()
