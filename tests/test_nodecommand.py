"""node.py as it is typed: arguments, what it cannot start with, signals, and a terminal that is
closed, gone or stuck."""

import array
import contextlib
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import termios
import unittest

from raftnet import nodecommand
from raftnet.client import Client
from tools.processes import NODE_PROGRAM, ROOT, NodeProcess, free_ports, wait_until

LIMIT_S = 20.0
PIPE_BYTES = 4096           # the smallest pipe
LINE_BYTES = 400            # no line is longer
# node.py that waits less long for its terminal.
IMPATIENT = ("-c", "from raftnet import actions, nodecommand; actions._STOP_WAIT_S = 0.3; "
             "nodecommand.main()")


class NodeCase(unittest.TestCase):
    """A folder, an address, and processes that do not outlive the test."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.data = os.path.join(self.directory, "data")
        self.address, self.other = (f"127.0.0.1:{port}" for port in free_ports(2))

    def path(self, name: str, text: str | None = None) -> str:
        """A file in the folder."""
        path = os.path.join(self.directory, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return path

    def run_node(self, *arguments: str) -> tuple[int, str]:
        """(exit status, what it wrote) of a node that ends by itself."""
        done = subprocess.run([sys.executable, NODE_PROGRAM, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S)
        return done.returncode, done.stdout.decode()

    def node(self, *arguments: str, address: str = "", name: str = "log") -> NodeProcess:
        """A node that runs."""
        node = NodeProcess(address or self.address, list(arguments), self.path(name))
        self.addCleanup(node.kill)
        node.start().wait_ready()
        return node

    def run_here(self, *arguments: str) -> tuple[int, str]:
        """The same within this process: for arguments that are refused before anything begins."""
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        text = io.StringIO()
        try:
            with contextlib.redirect_stderr(text), self.assertRaises(SystemExit) as ended:
                nodecommand.main(list(arguments))
        finally:
            signal.signal(signal.SIGINT, before[0])
            signal.signal(signal.SIGTERM, before[1])
        return ended.exception.code, text.getvalue()

    def assert_ends(self, status: int, words: str, *arguments: str) -> str:
        """It ends with that status and a last line with these words, and without a traceback."""
        found, text = (self.run_here if status == 2 else self.run_node)(*arguments)
        self.assertNotIn("Traceback", text)
        self.assertEqual(found, status, text)
        self.assertIn(words, text.strip().splitlines()[-1])
        return text


class TestArguments(NodeCase):
    """Exit status 2, one clear line at the end, no traceback; nothing is made on disk."""

    def test_wrong_ones(self):
        for words, arguments in (
                ("the following arguments are required", []),
                ("host:port", ["5001"]),
                ("port", ["127.0.0.1:70000"]),
                ("port", ["127.0.0.1", "http"]),
                ("one address is needed", ["127.0.0.1", "5001", "127.0.0.1"]),
                ("one address is needed", ["a:1", "b:2", "c:3"]),
                ("cannot join itself", ["127.0.0.1:5001", "--join", "127.0.0.1:5001"]),
                ("cannot join itself", ["127.0.0.1", "5001", "127.0.0.1", "5001"]),
                ("twice", ["127.0.0.1", "5001", "127.0.0.1", "5002", "--join", "127.0.0.1:5003"]),
                ("not allowed with", ["127.0.0.1:5001", "--join", "127.0.0.1:5002", "--cluster",
                                      "127.0.0.1:5001,127.0.0.1:5002"]),
                ("not among the founders", ["127.0.0.1:5001", "--cluster", "127.0.0.1:5002"]),
                ("named twice", ["127.0.0.1:5001", "--cluster", "127.0.0.1:5001,127.0.0.1:5001"]),
                ("invalid choice", ["127.0.0.1:5001", "--quorum", "all"]),
                ("--insecure", ["192.0.2.1:5001"]),
                ("--insecure", ["127.0.0.1:5001", "--bind", "0.0.0.0:5001"]),
                ("--insecure", ["[2001:db8::1]:5001"]),
                ("unrecognized", ["127.0.0.1:5001", "--colour"])):
            with self.subTest(arguments=arguments):
                self.assert_ends(2, words, *arguments, "--data", self.data)
                self.assertFalse(os.path.exists(self.data))
        status, text = self.run_node("5001")        # and so as a program
        self.assertEqual(status, 2)
        self.assertNotIn("Traceback", text)

    def test_wrong_configurations(self):
        cluster = {"0": ["127.0.0.1", 5001], "1": ["127.0.0.1", 5002]}
        for words, settings in (
                ("Expecting", "{"),
                ("object", "[]"),
                ("unknown setting", '{"colour": 1}'),
                ("unknown setting", '{"config": "x"}'),
                ("not among the founders", json.dumps({"cluster": {"0": ["127.0.0.1", 5002]}})),
                ("", json.dumps({"cluster": {"0": ["127.0.0.1"]}})),
                ("", json.dumps({"cluster": ["127.0.0.1:5001"]})),
                ("port", json.dumps({"cluster": {"0": ["127.0.0.1", 70000]}})),
                ("twice", json.dumps({"cluster": {"0": ["127.0.0.1", 5001],
                                                  "1": ["127.0.0.1", 5001]}})),
                ("either join or cluster", json.dumps({"cluster": cluster,
                                                       "join": "127.0.0.1:5003"})),
                ("data", '{"data": 5}'),
                ("insecure", '{"insecure": "yes"}'),
                ("quorum", '{"quorum": "all"}'),
                ("quorum", '{"quorum": ["majority"]}'),
                ("log_level", '{"log-level": 7}')):
            with self.subTest(settings=settings):
                text = self.assert_ends(2, words, "127.0.0.1:5001", "--config",
                                        self.path("config", settings))
                self.assertIn("config", text.splitlines()[-1] + " founders config")
        self.assert_ends(2, "No such file", "127.0.0.1:5001", "--config", self.path("absent"))
        self.assert_ends(2, "s a directory", "127.0.0.1:5001", "--config", self.directory)


class TestCannotStart(NodeCase):
    """Exit status 1 and one clear line."""

    def test_address_in_use(self):
        self.node(self.address, "--data", self.data)
        self.assert_ends(1, "another process listens there", self.address, "--data",
                         self.path("elsewhere"))

    def test_directory_of_a_running_node(self):
        self.node(self.address, "--data", self.data)
        text = self.assert_ends(1, "another process", self.other, "--data", self.data)
        self.assertIn(self.data, text.splitlines()[-1])

    def test_an_address_that_is_not_here(self):
        self.assert_ends(1, "cannot listen", "192.0.2.1:5001", "--insecure", "--data", self.data)

    def test_a_directory_that_cannot_be(self):
        path = self.path("file", "no directory")
        self.assert_ends(1, path, self.address, "--data", path)

    def test_damaged_files(self):
        node = self.node(self.address, "--data", self.data)
        with Client([self.address], timeout_s=LIMIT_S) as client:
            client.queue().enqueue_many([b"x" * 200] * 20)
            client.queue().enqueue(b"and another record behind them")
        node.kill()
        for name, offset in (("log", 100), ("identity", 12)):
            with self.subTest(name=name):
                path = os.path.join(self.data, name)
                with open(path, "r+b") as file:
                    file.seek(offset)
                    byte = file.read(1)[0]
                    file.seek(offset)
                    file.write(bytes((byte ^ 1,)))
                text = self.assert_ends(1, "damaged at byte", self.address, "--data", self.data)
                self.assertIn(path, text.splitlines()[-1])
                with open(path, "r+b") as file:
                    file.seek(offset)
                    file.write(bytes((byte,)))
        self.node(self.address, "--data", self.data)

    def test_files_of_two_directories(self):
        for address, name in ((self.address, "one"), (self.other, "two")):
            self.node(address, "--data", self.path(name), address=address, name=name + ".log"
                      ).kill()
        os.replace(os.path.join(self.path("two"), "identity"),
                   os.path.join(self.path("one"), "identity"))
        self.assert_ends(1, "two directories", self.address, "--data", self.path("one"))

    def test_without_assertions(self):
        done = subprocess.run([sys.executable, "-O", NODE_PROGRAM, self.address],
                              capture_output=True, timeout=LIMIT_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"without -O", done.stderr)


class TestOtherCluster(NodeCase):
    """A node with the files of one cluster at the address of another's member."""

    def test_it_is_refused_on_both_sides_and_both_go_on(self):
        alone = self.node(self.other, "--data", self.path("three"), address=self.other,
                          name="before.log")
        with Client([self.other], timeout_s=LIMIT_S) as client:
            client.queue().enqueue("data of its own")
        alone.kill()
        founders = ["--cluster", f"{self.address},{self.other}"]
        pair = [NodeProcess(address, [address, *founders, "--data", self.path(name)],
                            self.path(name + ".log"))
                for address, name in ((self.address, "one"), (self.other, "two"))]
        for node in pair:
            self.addCleanup(node.kill)
            node.start()
        wait_until(lambda: pair[0].wait_ready().founded, LIMIT_S, "founded")
        pair[1].kill()
        stranger = self.node(self.other, "--data", self.path("three"), address=self.other,
                             name="three.log")
        for node in (pair[0], stranger):
            wait_until(lambda: "belongs to cluster" in node.log_text(), LIMIT_S, "a clear line")
            self.assertTrue(node.running)
        wait_until(lambda: stranger.status().role == "leader", LIMIT_S, "it leads its own")


class TestForms(NodeCase):
    """The ways to found and to join."""

    def cluster_of(self, commands: list[list[str]]) -> list[NodeProcess]:
        nodes = []
        for number, arguments in enumerate(commands):
            node = NodeProcess(self.addresses[number],
                               [*arguments, "--data", self.path(str(number))],
                               self.path(f"{number}.log"))
            self.addCleanup(node.kill)
            node.start()
            nodes.append(node)
        for node in nodes:
            wait_until(lambda: (status := node.status()) and status.founded
                       and len([m for m in status.members if m.voter]) == len(commands),
                       LIMIT_S, f"{node.address} is in")
        return nodes

    def setUp(self):
        super().setUp()
        self.ports = free_ports(3)
        self.addresses = [f"127.0.0.1:{port}" for port in self.ports]

    def test_the_assignments_form(self):
        first, *others = (["127.0.0.1", str(port)] for port in self.ports)
        nodes = self.cluster_of([first, *([*other, *first] for other in others)])
        leaders = [node for node in nodes if node.status().role == "leader"]
        self.assertEqual(leaders, [nodes[0]])

    def test_a_configuration_in_zatts_form_and_the_other_quorum(self):
        config = self.path("config.json", json.dumps({
            "cluster": {str(n): ["127.0.0.1", port] for n, port in enumerate(self.ports)},
            "quorum": "half-rounded-up-plus-one", "log-level": "debug"}))
        nodes = self.cluster_of([[address, "--config", config] for address in self.addresses])
        self.assertEqual(nodes[0].status().quorum_rule, 1)
        # Three of three decide: one that is gone stops all.
        with Client(self.addresses, timeout_s=LIMIT_S) as client:
            client.queue().enqueue("x")
        follower = next(node for node in nodes if node.status().role != "leader")
        follower.kill()
        wait_until(lambda: not any((status := node.status()) and status.role == "leader"
                                   for node in nodes), LIMIT_S, "nobody leads")
        follower.start()
        with Client(self.addresses, timeout_s=LIMIT_S) as client:
            self.assertEqual(client.queue().dequeue().text, "x")


class TestEnds(NodeCase):
    """Signals, and where its log goes."""

    def assert_stops(self, process: subprocess.Popen, number: int = signal.SIGTERM):
        process.send_signal(number)
        self.assertEqual(process.wait(LIMIT_S), 0)

    def popen(self, *program: str, **streams) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *(program or [NODE_PROGRAM]), self.address, "--data", self.data,
             "--log-all", "--log-level", "debug"],
            stdin=subprocess.DEVNULL, cwd=ROOT, **streams)

        def end():
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):      # it was closed by the test
                        stream.close()
        self.addCleanup(end)
        return process

    def use(self, count: int = 50) -> None:
        """The node works, whatever becomes of its lines."""
        with Client([self.address], timeout_s=LIMIT_S) as client:
            for _ in range(count):
                client.queue().enqueue(b"x")

    def test_signals_end_with_status_0(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            node = self.node(self.address, "--data", self.data)
            self.use()
            node.signal(number)
            self.assertEqual(node.wait(LIMIT_S), 0, node.log_text())
            text = node.log_text()
            self.assertNotIn("Traceback", text)
            self.assertIn("everything is synced", text)
            self.assertIn(f"data directory {self.data}", text.splitlines()[0])

    def test_signals_during_the_start_leave_no_traceback(self):
        for delay in range(6):
            node = NodeProcess(self.address, [self.address, "--data", self.data],
                               self.path("log"))
            self.addCleanup(node.kill)
            node.start()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node._process.wait(0.12 + 0.04 * delay)
            node.signal(signal.SIGTERM)
            self.assertIn(node.wait(LIMIT_S), (0, -signal.SIGTERM))
            self.assertNotIn("Traceback", node.log_text())

    def test_stderr_is_closed(self):
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'exec "$@" 2>&- >&- <&-', "sh", sys.executable, NODE_PROGRAM,
             self.address, "--data", self.data])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.use()
        open_files = {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1, 2)}
        self.assertEqual(open_files, {"/dev/null"})
        self.assert_stops(process)

    def test_nobody_reads_its_pipe(self):
        process = self.popen(*IMPATIENT, stderr=subprocess.PIPE, pipesize=PIPE_BYTES)
        room = fcntl.fcntl(process.stderr, fcntl.F_GETPIPE_SZ)
        self.assertEqual(room, PIPE_BYTES)
        self.use(40)            # more lines than the pipe holds
        held = array.array("i", [0])

        def full() -> bool:
            fcntl.ioctl(process.stderr, termios.FIONREAD, held)
            return held[0] > room - LINE_BYTES
        wait_until(full, LIMIT_S, "the pipe is full")
        self.assert_stops(process)

    def test_the_reader_of_its_pipe_is_gone(self):
        process = self.popen(stderr=subprocess.PIPE)
        process.stderr.close()
        self.use()
        self.assert_stops(process)

    def test_a_node_starts_again_and_has_its_messages(self):
        for round_ in range(3):
            node = self.node(self.address, "--data", self.data)
            with Client([self.address], timeout_s=LIMIT_S) as client:
                self.assertEqual(client.queue().size().messages, round_ * 10)
                client.queue().enqueue_many([b"x"] * 10)
            self.assertEqual(node.status().boot, round_ + 1)
            node.kill()


if __name__ == "__main__":
    unittest.main()
