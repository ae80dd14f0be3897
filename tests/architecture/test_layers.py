"""The rules of the house that a program can check: who imports whom, what is never imported,
lengths, and what lies where.

The floors are those of the design; a file that is new must be given its place here.
"""

import ast
import functools
import os
import re
import subprocess
import sys
import unittest
from collections.abc import Iterable, Iterator

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 80
COLUMNS_MAX = 100

TOP_LEVEL = {"README.md", "protocol.md", "node.py", "mqclient.py", "raftnet", "tests", "tools"}

# What each part may import of the project, itself included. A part is the longest prefix here.
_GROUND = {"raftnet.errors", "raftnet.config"}
_CORE = {"raftnet.raft"} | _GROUND
_WIRE = {"raftnet.wire"} | _GROUND
_MACHINE = {"raftnet.machine"} | _CORE | _WIRE
_STORAGE = {"raftnet.storage"} | _CORE | _WIRE
_NET = {"raftnet.net"} | _CORE | _WIRE
_REPLICA = ({"raftnet", "raftnet.replica", "raftnet.gateway", "raftnet.reads", "raftnet.founding",
             "raftnet.joining", "raftnet.greetings", "raftnet.acquaintances", "raftnet.admission",
             "raftnet.applying", "raftnet.replicatedtime", "raftnet.leadership", "raftnet.distrust",
             "raftnet.narration", "raftnet.actions", "raftnet.net.messages",
             "raftnet.storage.store", "raftnet.snapshots", "raftnet.rebuild", "raftnet.outbox",
             "raftnet.watches", "raftnet.weights"} | _MACHINE)
_SERVER = ({"raftnet.server", "raftnet.accepting", "raftnet.storage", "raftnet.snapshotprocess",
            "raftnet.makesnapshot"} | _REPLICA | _NET)
_CLIENT = {"raftnet.client", "raftnet", "raftnet.raft.entry", "raftnet.raft.membership"} | _WIRE
FLOORS = {
    "raftnet": set(),
    "raftnet.errors": set(),
    "raftnet.config": set(),
    "raftnet.actions": set(),
    "raftnet.raft": _CORE,
    "raftnet.wire": _WIRE,
    "raftnet.machine": _MACHINE,
    "raftnet.storage": _STORAGE,
    "raftnet.net": _NET,
    "raftnet.narration": {"raftnet.actions"} | _CORE,
    "raftnet.founding": {"raftnet.actions"} | _CORE | _WIRE,
    "raftnet.joining": {"raftnet.actions", "raftnet.founding"} | _CORE | _WIRE,
    "raftnet.acquaintances": _WIRE,
    "raftnet.greetings": {"raftnet.actions", "raftnet.founding", "raftnet.acquaintances"}
                         | _CORE | _WIRE,
    "raftnet.replicatedtime": _CORE,
    "raftnet.distrust": {"raftnet.replicatedtime"} | _CORE | _WIRE,
    "raftnet.weights": _WIRE,
    "raftnet.gateway": {"raftnet.weights"} | _MACHINE,
    "raftnet.changering": set(),
    "raftnet.watches": {"raftnet.changering", "raftnet.gateway"} | _MACHINE,
    "raftnet.reads": {"raftnet"} | _CORE | _WIRE,
    "raftnet.admission": _CORE | _WIRE,
    "raftnet.applying": _MACHINE,
    "raftnet.leadership": _WIRE,
    "raftnet.rebuild": _MACHINE | _STORAGE,
    "raftnet.makesnapshot": {"raftnet.rebuild"} | _MACHINE | _STORAGE,
    "raftnet.snapshots": {"raftnet.actions", "raftnet.rebuild"} | _MACHINE | _STORAGE,
    "raftnet.recovery": {"raftnet.founding", "raftnet.rebuild"} | _MACHINE | _STORAGE,
    "raftnet.outbox": {"raftnet.narration", "raftnet.storage.store"} | _CORE,
    "raftnet.replica": _REPLICA,
    "raftnet.snapshotprocess": {"raftnet.makesnapshot", "raftnet.rebuild"} | _NET,
    "raftnet.accepting": _REPLICA | _NET,
    "raftnet.server": _SERVER,
    "raftnet.nodecommand": {"raftnet.nodecommand", "raftnet.recovery"} | _SERVER,
    "raftnet.client": _CLIENT,
    "raftnet.simulation": {"raftnet.simulation", "raftnet.storage", "raftnet.client",
                           "raftnet.recovery"} | _REPLICA,
    "node": {"raftnet.nodecommand"},
    "mqclient": {"raftnet.client"},
    "tools": {"raftnet", "tools"},
    "tests": {"raftnet", "tools", "tests"},
}
# Parts that must not know time, chance, threads, sockets or the system.
PURE = {
    "raftnet.raft": {"socket", "select", "selectors", "time", "random", "os", "threading",
                     "asyncio", "logging", "datetime", "secrets", "uuid"},
    "raftnet.machine": {"socket", "select", "selectors", "time", "random", "os", "threading",
                        "asyncio", "logging", "datetime", "secrets", "uuid"},
    "raftnet.wire": {"socket", "select", "selectors", "time", "random", "os", "threading",
                     "asyncio", "logging", "datetime", "secrets", "uuid"},
}
for _name in ("replica", "gateway", "reads", "founding", "joining", "greetings", "applying",
              "replicatedtime", "narration", "snapshots", "rebuild", "outbox", "watches",
              "changering", "weights"):
    PURE[f"raftnet.{_name}"] = {"socket", "select", "selectors", "time", "random", "threading",
                                "asyncio", "datetime", "secrets", "uuid"}


def _files() -> list[str]:
    """Every Python file of the project, as a path below the root."""
    found = [name for name in os.listdir(ROOT) if name.endswith(".py")]
    for top in ("raftnet", "tests", "tools"):
        for folder, folders, names in os.walk(os.path.join(ROOT, top)):
            folders[:] = [name for name in folders if name != "__pycache__"]
            found += [os.path.relpath(os.path.join(folder, name), ROOT)
                      for name in names if name.endswith(".py")]
    return sorted(found)


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace(os.sep, ".")


def _part(module: str) -> str:
    """The longest name in FLOORS that this module is or lies in."""
    part = module
    while part not in FLOORS:
        part, _, _ = part.rpartition(".")
        assert part, f"{module} has no place in FLOORS"
    assert part != "raftnet" or module == part, f"{module} has no place in FLOORS"
    return part


def _imports(nodes: Iterable[ast.AST]) -> list[tuple[int, str]]:
    """(line, module) of everything that these nodes import; names of modules resolved."""
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                found.append((node.lineno, deeper if _is_module(deeper) else node.module))
    return found


@functools.cache
def _is_module(name: str) -> bool:
    path = os.path.join(ROOT, *name.split("."))
    return os.path.exists(path + ".py") or os.path.isdir(path)


def _outside_functions(tree: ast.Module) -> Iterator[ast.AST]:
    """The statements that are executed when the module is imported."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.expr)):
                continue
            yield node
            waiting.append(node)


def import_faults(module: str, tree: ast.AST) -> list[str]:
    """What this module imports and may not."""
    faults = []
    part = _part(module)
    for line, name in _imports(ast.walk(tree)):
        top = name.split(".")[0]
        where = f"{module}, line {line}: {name}"
        if top not in ("raftnet", "tools", "tests"):
            if top not in sys.stdlib_module_names:
                faults.append(f"{where} is not of the standard library")
            forbidden = next((PURE[p] for p in PURE if module == p or module.startswith(p + ".")),
                             set())
            if top in forbidden:
                faults.append(f"{where}: {part} knows nothing of that")
            continue
        allowed = FLOORS[part]
        whole = part in ("tests", "tools")      # they may look into everything below
        if not any(name == each or (each != "raftnet" or whole) and name.startswith(each + ".")
                   for each in allowed):
            faults.append(f"{where}: {part} must not import that")
    return faults


def text_faults(module: str, text: str) -> list[str]:
    """Lengths, and words that are not left behind."""
    faults = []
    lines = text.splitlines()
    if len(lines) > FILE_LINES_MAX:
        faults.append(f"{module}: {len(lines)} lines")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            faults.append(f"{module}, line {number}: {len(line)} columns")
        if re.search(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b", line):
            faults.append(f"{module}, line {number}: left behind: {line.strip()}")
    return faults


def tree_faults(module: str, tree: ast.AST) -> list[str]:
    """Long functions, and exceptions that are swallowed."""
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES_MAX and not module.startswith("tests"):
                faults.append(f"{module}.{node.name}: {length} lines")
        elif isinstance(node, ast.ExceptHandler):
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if (
                node.type) else set()
            empty = all(isinstance(each, ast.Pass) for each in node.body)
            if node.type is None or empty and caught & {"Exception", "BaseException"}:
                faults.append(f"{module}, line {node.lineno}: an exception is swallowed")
    if module.startswith("raftnet") and ast.get_docstring(tree) is None:
        faults.append(f"{module}: opens without its purpose")
    return faults


class TestLayers(unittest.TestCase):
    """Every file of the project."""

    @classmethod
    def setUpClass(cls):
        cls.files = {}
        for path in _files():
            with open(os.path.join(ROOT, path), encoding="utf-8") as file:
                text = file.read()
            cls.files[_module(path)] = (text, ast.parse(text, path))

    def assert_none(self, faults: list[str]):
        self.assertEqual(faults, [], "\n" + "\n".join(faults))

    def test_imports_point_down(self):
        self.assertIn("raftnet.raft.core", self.files)
        self.assert_none([fault for module, (_, tree) in self.files.items()
                          for fault in import_faults(module, tree)])

    def test_no_import_goes_round(self):
        # One within a function is put off on purpose, and goes round no more when it happens.
        graph = {}
        for module, (_, tree) in self.files.items():
            graph[module] = {name for _, name in _imports(_outside_functions(tree))
                             if name in self.files}
        done: set[str] = set()

        def visit(module: str, path: list[str]):
            self.assertNotIn(module, path, "imports go round: " + " ".join([*path, module]))
            if module not in done:
                for each in sorted(graph[module]):
                    visit(each, [*path, module])
                done.add(module)
        for module in graph:
            visit(module, [])

    def test_lengths_and_left_overs(self):
        self.assert_none([fault for module, (text, _) in self.files.items()
                          for fault in text_faults(module, text)])

    def test_functions_exceptions_docstrings(self):
        self.assert_none([fault for module, (_, tree) in self.files.items()
                          for fault in tree_faults(module, tree)])

    def test_every_tests_folder_is_found_by_unittest(self):
        for folder, folders, names in os.walk(os.path.join(ROOT, "tests")):
            folders[:] = [name for name in folders if name != "__pycache__"]
            if any(name.endswith(".py") for name in names):
                self.assertIn("__init__.py", names, folder)

    def test_the_rules_find_what_they_are_for(self):
        def faults(module, text):
            tree = ast.parse(text)
            return (import_faults(module, tree) + tree_faults(module, tree)
                    + text_faults(module, text))
        doc = '"""Purpose."""\n'
        for module, text in (
                ("raftnet.raft.core", "import socket"),
                ("raftnet.raft.core", "from time import monotonic"),
                ("raftnet.raft.core", "from raftnet.wire import frames"),
                ("raftnet.raft.core", "def f():\n    import raftnet.net.loop"),
                ("raftnet.machine.machine", "import os"),
                ("raftnet.replica", "import threading"),
                ("raftnet.replica", "from raftnet.server import Server"),
                ("raftnet.replica", "from raftnet.net import loop"),
                ("raftnet.wire.frames", "from raftnet.raft.entry import Entry"),
                ("raftnet.client.client", "from raftnet.raft.core import Raft"),
                ("raftnet.client.client", "from raftnet.machine import machine"),
                ("raftnet.storage.store", "from raftnet.replica import Replica"),
                ("raftnet.storage.store", "from tests.replicas import Nodes"),
                ("raftnet.wire.frames", "import numpy"),
                ("tools.bench", "import yaml"),
                ("tests.test_x", "import pytest"),
                ("raftnet.server", "try:\n    pass\nexcept:\n    raise"),
                ("raftnet.server", "try:\n    x = 1\nexcept Exception:\n    pass"),
                ("raftnet.server", "try:\n    x = 1\nexcept (OSError, BaseException):\n    pass"),
                ("raftnet.server", "# TO" "DO: later"),
                ("raftnet.server", "x = '" + "x" * 100 + "'"),
                ("raftnet.server", "def f():\n" + "    x = 1\n" * 80),
                ("raftnet.server", "x = 1\n" * 600)):
            with self.subTest(text=text[:60]):
                self.assertEqual(len(faults(module, doc + text)), 1)
        self.assertEqual(faults("raftnet.server", doc + "import socket\nimport raftnet.replica"),
                         [])
        self.assertEqual(len(faults("raftnet.server", "x = 1")), 1)


class TestFolder(unittest.TestCase):
    """What git knows; nothing to check where there is no repository (an unpacked archive)."""

    def git(self, *arguments: str) -> str:
        if not os.path.exists(os.path.join(ROOT, ".git")):
            self.skipTest("no repository here")
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True,
                              check=False)
        return done.stdout

    def test_top_level(self):
        tops = {path.split("/")[0] for path in self.git("ls-files").splitlines()}
        self.assertEqual({top for top in tops if not top.startswith(".")}, TOP_LEVEL)

    def test_data_directories_are_ignored(self):
        for path in ("raftnet-data/", "raftnet-data/127.0.0.1-5001/log", "tests/__pycache__/x.pyc"):
            self.assertEqual(self.git("check-ignore", path).strip(), path)


if __name__ == "__main__":
    unittest.main()
