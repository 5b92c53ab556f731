"""Small faults put into a module, one at a time: its own tests must notice each.

python tests/mutants.py retina                         # all mutants of ram_envs/retina.py against tests/test_retina.py
python tests/mutants.py checkpoints --sample 80 --seed 1
python tests/mutants.py scenes --only 17,203 --compiled   # those numbers, such as survivors

Nothing is changed in the checkout: mutants live in a copy, each in a forked process. The compiled loops of the module are
interpreted, which saves most of the time, unless --compiled is given. Tests that take too long count as failed. Not mutated:
text, annotations, decorators, and assignments to local names, without which a function fails at once.
(mutmut wraps functions in trampolines that numba can't compile; cosmic-ray makes ten mutants of an operator, none of statements.)
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numba
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("ram_envs", "agents", "agents/training")
PRELOADED = ("torch.distributed.tensor", "stable_baselines3", "sb3_contrib", "gymnasium", "pygame", "matplotlib.pyplot", "pooch")
SWAPPED = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult},
    **{ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
    ast.BitXor: ast.BitAnd,
}
_PAIRS = (("min", "max"), ("minimum", "maximum"), ("argmin", "argmax"), ("any", "all"), ("zeros", "ones"), ("floor", "ceil"))
NAMES = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
BARE = (ast.Name, ast.Attribute, ast.Subscript, ast.Call)


def with_fields(node, **fields):
    vars(changed := copy.copy(node)).update(fields)
    return changed


def without_each(items):
    return [items[:i] + items[i + 1 :] for i in range(len(items))]


def changes(node, field):
    """What a part of the program could be instead, where it stands in `field` of its parent."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            yield with_fields(node, ops=[*node.ops[:i], SWAPPED[type(op)](), *node.ops[i + 1 :]])
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAPPED:
        yield with_fields(node, op=SWAPPED[type(node.op)]())
    if isinstance(node, ast.BoolOp):
        yield from (with_fields(node, values=rest) if len(rest) > 1 else rest[0] for rest in without_each(node.values))
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield from map(ast.Constant, [not node.value] if isinstance(node.value, bool) else [node.value + 1, node.value - 1])
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield ast.Name(NAMES[node.id], node.ctx)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield with_fields(node, attr=NAMES[node.attr])
    elif isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        names = (ast.Name, ast.Attribute) if field == "type" else (ast.Constant, ast.Starred)  # Exceptions, or strings.
        if all(isinstance(one, names) and isinstance(getattr(one, "value", ""), (str, ast.AST)) for one in node.elts):
            yield from (with_fields(node, elts=rest) for rest in without_each(node.elts))
    elif isinstance(node, ast.Dict) and all(key is None or isinstance(getattr(key, "value", None), str) for key in node.keys):
        both = zip(without_each(node.keys), without_each(node.values), strict=True)
        yield from (with_fields(node, keys=keys, values=values) for keys, values in both)
    if field in ("test", "ifs") and isinstance(node, BARE):
        yield ast.UnaryOp(ast.Not(), node)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield ast.Return(ast.Constant(None))
    elif is_removable(node):
        yield ast.Pass()


def is_removable(node):
    if isinstance(node, ast.Assign):
        return any(isinstance(part, (ast.Attribute, ast.Subscript)) for part in ast.walk(node.targets[0]))
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return isinstance(node, (ast.Raise, ast.Continue, ast.AugAssign, ast.Expr)) and not is_text


def sites(parent):
    """(parent, field, place in the field's list or None, new part, line) of every mutant."""
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for i, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, ast.AST):
                place = i if isinstance(value, list) else None
                yield from ((parent, field, place, new, getattr(node, "lineno", 0)) for new in changes(node, field))
                yield from sites(node)


def mutate(tree, site):
    """The text of the mutant, and what was changed."""
    parent, field, place, new, _ = site
    value = getattr(parent, field)
    old = value if place is None else value[place]
    setattr(parent, field, new if place is None else [*value[:place], new, *value[place + 1 :]])
    text = ast.unparse(tree)
    setattr(parent, field, value)
    return text, " -> ".join(" ".join(ast.unparse(ast.fix_missing_locations(one)).split())[:110] for one in (old, new))


class Order:
    """Fast tests first, and before them those that fail often; `seconds` and `failures` are by name."""

    def __init__(self, log, seconds, failures):
        self.log, self.seconds, self.failures = log, seconds, failures

    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0.0) / (1 + self.failures.count(item.nodeid)) ** 2)

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        self.failures += [report.nodeid] * report.failed

    def pytest_sessionfinish(self):
        self.log.with_suffix(".tests").write_text(repr((self.seconds, self.failures)), "utf-8")


def interpret(module):
    """Leave the loops of a module as they are, instead of compiling them."""
    compile_one = numba.njit

    def njit(*loops, **options):
        def choose(loop):
            return loop if loop.__module__ == module else compile_one(**options)(loop)

        return choose(*loops) if loops else choose

    numba.njit = njit


def run_tests(tests, module, interpreted, known, limit, log):
    """Whether the tests pass, in a forked process, and what is known of them now: their seconds and failures."""
    start, process = time.monotonic(), os.fork()
    if process == 0:
        os.setsid()
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1), os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_AS, (32 * 2**30, 32 * 2**30))
        sys.dont_write_bytecode = bool(known[0])
        if interpreted:
            interpret(module)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        options = ["-xq", "--tb=short", "-pno:cacheprovider", "-pno:unraisableexception", "-Wignore::RuntimeWarning"]
        try:
            code = pytest.main([*options, *tests], [Order(log, *known)])
            sys.stdout.flush()
            os._exit(code)
        finally:
            os._exit(1)
    while (ended := os.waitpid(process, os.WNOHANG))[0] == 0:
        if time.monotonic() - start > limit:
            os.killpg(process, signal.SIGKILL)
        time.sleep(0.02)
    told = log.with_suffix(".tests")
    seconds, failures = ast.literal_eval(told.read_text("utf-8")) if told.exists() else known
    return ended[1] == 0, (known[0] or seconds, failures)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", help="such as retina, losses or checkpoints")
    parser.add_argument("--sample", type=int, help="how many mutants, drawn at random (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", type=lambda text: [int(one) for one in text.split(",")], help="the numbers of some mutants")
    parser.add_argument("--compiled", action="store_true", help="try them as machine code")
    options = parser.parse_args()
    path = next(Path(folder, f"{options.module}.py") for folder in FOLDERS if (ROOT / folder / f"{options.module}.py").exists())
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    with tempfile.TemporaryDirectory() as place:
        project = Path(place, "project")
        shutil.copytree(ROOT, project, symlinks=True, ignore=shutil.ignore_patterns(".*", "logs"))
        os.chdir(project)
        sys.path[:] = [str(project), *(one for one in sys.path if one not in (str(ROOT), str(ROOT / "tests")))]
        module = ("" if path.parts[0] == "ram_envs" else "ram_envs.") + ".".join(path.with_suffix("").parts)
        check(options, path, module, [f"tests/test_{options.module}.py"], Path(place, "log"))


def check(options, path, module, tests, log):
    tree = ast.parse(path.read_text("utf-8"))
    mutants = list(sites(tree))
    chosen, limit, interpreted = options.only or range(len(mutants)), 900.0, not options.compiled
    if options.sample is not None:
        chosen = sorted(random.Random(options.seed).sample(chosen, min(options.sample, len(chosen))))
    path.write_text(ast.unparse(tree), "utf-8")
    start = time.monotonic()
    passes, known = run_tests(tests, module, interpreted, ({}, []), limit, log)
    if not passes:
        sys.exit(f"the tests of {path} fail without a fault in it:\n{log.read_text('utf-8')[-3000:]}")
    limit = 30 + 3 * (time.monotonic() - start)
    for cache in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        cache.unlink()
    killed = len(chosen)
    print(f"{path}: {len(chosen)} of {len(mutants)} mutants, at most {limit:.0f} s each", flush=True)
    for number in chosen:
        mutant, what = mutate(tree, mutants[number])
        path.write_text(mutant, "utf-8")
        survives, known = run_tests(tests, module, interpreted, known, limit, log)
        if survives:
            killed -= 1
            print(f"  {number}  {path}:{mutants[number][-1]}  {what}", flush=True)
    print(f"{path}: {killed} of {len(chosen)} mutants noticed, {killed / len(chosen):.1%}, in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
