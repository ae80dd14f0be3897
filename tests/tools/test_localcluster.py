"""localcluster as a user has it: a terminal, mqclient beside it, kill -9, start by hand, Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

from raftnet.client import Client
from raftnet.errors import RaftnetError
from tools import localcluster
from tools.processes import HOST, ROOT, free_ports, wait_until

WAIT_S = 30.0
# The program, which looks more often at a dead node.
ATTENTIVE = ("-c", "import sys; from tools import localcluster; localcluster.LOOK_S = 0.02; "
             "localcluster.RESTART_S = 0.2; localcluster.ELSEWHERE_S = 0.1; "
             "sys.exit(localcluster.main(sys.argv[1:]))")


class LocalClusterTool(unittest.TestCase):
    """The program as a process."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.output = os.path.join(self.directory, "terminal")

    def start(self, *words: str, program: tuple[str, ...] = ()) -> subprocess.Popen:
        """The program, its terminal a file; ended at the test's end."""
        program = program or (os.path.join(ROOT, "tools", "localcluster.py"),)
        with open(self.output, "wb") as output:
            process = subprocess.Popen([sys.executable, *program, *words],
                                       stdout=output, stderr=output, cwd=ROOT)
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen) -> None:
        """Let it stop its nodes, however the test ended."""
        process.terminate()
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def text(self) -> str:
        """What it printed so far."""
        with open(self.output, encoding="utf-8") as file:
            return file.read()

    def wait_for(self, pattern: str) -> re.Match:
        """The first place where it printed that."""
        return wait_until(lambda: re.search(pattern, self.text()), WAIT_S, pattern)

    def wait_for_port(self) -> int:
        """The first of three ports next to each other that are free."""
        for _ in range(100):
            port = free_ports(1)[0]
            if not any(localcluster.port_is_taken(f"{HOST}:{port + place}") for place in (1, 2)):
                return port
        raise AssertionError("no free ports")

    def mqclient(self, port: int, *words: str) -> list[str]:
        """The lines of a command that is done."""
        servers = ",".join(f"{HOST}:{port + place}" for place in range(3))
        done = subprocess.run(
            [sys.executable, os.path.join(ROOT, "mqclient.py"), "-s", servers, *words],
            capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr + self.text())
        return done.stdout.splitlines()

    def test_two_terminals(self):
        port = self.wait_for_port()
        words = ("--port", str(port), "--data", os.path.join(self.directory, "data"))
        process = self.start(*words, program=ATTENTIVE)
        leader, pid = self.wait_for(r"ready, (\S+) leads(?:.|\n)*kill -9 (\d+)").groups()
        self.assertEqual(self.mqclient(port, "enqueue", "hello", "world"), ["1", "2"])
        os.kill(int(pid), signal.SIGKILL)
        self.assertEqual(self.mqclient(port, "dequeue", "-n", "2"), ["hello", "world"])
        command = self.wait_for(
            rf"{leader} \(pid {pid}\) was ended by SIGKILL. Start it again with:\n +(.*)\n")[1]
        with open(os.path.join(self.directory, "by hand"), "wb") as log:
            by_hand = subprocess.Popen(command.split(), stderr=log)
        self.addCleanup(by_hand.wait)
        self.addCleanup(by_hand.kill)
        self.wait_for(f"{leader} was started elsewhere")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(WAIT_S), 0, self.text())
        self.assertIn("all nodes are stopped", self.text())
        self.assertNotIn("Traceback", self.text())
        self.assertNotIn("heartbeat", self.text())      # only what matters
        by_hand.send_signal(signal.SIGINT)
        self.assertEqual(by_hand.wait(WAIT_S), 0)
        self.see_rejoining(port, words)

    def see_rejoining(self, port: int, words: tuple[str, ...]) -> None:
        """The same command again; one node more joins."""
        process = self.start(*words, "--restart", program=ATTENTIVE)
        leader, pid = self.wait_for(r"ready, (\S+) leads(?:.|\n)*kill -9 (\d+)").groups()
        self.mqclient(port, "enqueue", "again")
        os.kill(int(pid), signal.SIGKILL)
        self.wait_for(f"{leader} is started again, pid")
        self.assertEqual(self.mqclient(port, "dequeue"), ["again"])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(WAIT_S), 0, self.text())

    def restart(self, data: str) -> subprocess.CompletedProcess:
        """The command in the second terminal."""
        return subprocess.run(
            [sys.executable, os.path.join(ROOT, "tools", "localcluster.py"), "restart", "--data",
             data], capture_output=True, text=True, timeout=120)

    def test_rolling_restart(self):
        port, data = self.wait_for_port(), os.path.join(self.directory, "data")
        self.start("--port", str(port), "--data", data)
        leader = self.wait_for(r"ready, (\S+) leads")[1]
        pids = re.findall(r"(\S+)  pid (\d+)", self.text())
        load = Load([f"{HOST}:{port + place}" for place in range(3)])
        load.start()
        self.addCleanup(load.stop)
        done = self.restart(data)
        load.stop()
        self.assertEqual(done.returncode, 0, done.stderr + self.text())
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 5)
        self.assertEqual((lines[0][:15], lines[-1][:13]), ("begins: 3 nodes", "done: 3 nodes"))
        restarted = [re.match(r"(\S+?)(?: \(the leader\))?: stopped in .* pid (\d+), caught up at "
                              r"index \d+", line).groups() for line in lines[1:-1]]
        self.assertEqual(sorted(a for a, _ in restarted), sorted(a for a, _ in pids))
        self.assertFalse({pid for _, pid in restarted} & {pid for _, pid in pids})
        self.assertIn(f"{leader} (the leader)", lines[3])
        self.assertNotIn("ended", self.text())          # nobody is said to have died
        self.assertIsNone(load.error)
        self.assertEqual(load.ids, sorted(set(load.ids)))
        self.assertGreater(len(load.ids), 10)
        os.kill(int(restarted[0][1]), signal.SIGKILL)
        self.wait_for("was ended by SIGKILL")
        done = self.restart(data)                       # there would be no quorum meanwhile
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{restarted[0][0]} is not among the processes that run here", done.stderr)

    def test_one_localcluster_a_directory(self):
        port, data = self.wait_for_port(), os.path.join(self.directory, "data")
        done = self.restart(data)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(f"no localcluster runs the nodes of {data}", done.stderr)
        first = self.start("--nodes", "1", "--port", str(port), "--data", data)
        self.wait_for("ready")
        second = subprocess.run(
            [sys.executable, os.path.join(ROOT, "tools", "localcluster.py"), "--nodes", "1",
             "--port", str(port + 1), "--data", data], capture_output=True, text=True, timeout=60)
        self.assertEqual(second.returncode, 1)
        self.assertIn(f"another localcluster (pid {first.pid}) runs", second.stderr)
        self.assertEqual(self.restart(data).returncode, 0)      # one node: nobody to follow
        first.kill()                            # its pid stays in the file, its lock does not
        first.wait()
        self.assertIn("no localcluster runs", self.restart(data).stderr)

    def test_a_taken_port(self):
        with socket.socket() as sock:
            sock.bind((HOST, 0))
            sock.listen()
            port = sock.getsockname()[1]
            process = self.start("--nodes", "1", "--port", str(port), "--data", self.directory)
            self.assertEqual(process.wait(WAIT_S), 1)
        self.assertEqual(self.text(), f"localcluster.py: something listens at {HOST}:{port} "
                         "already: stop it, or choose other ports with --port\n")

    def test_a_new_node_joins_an_existing_cluster(self):
        data, ports = os.path.join(self.directory, "data"), self.wait_for_port()
        words = ("--port", str(ports), "--data", data)
        process = self.start("--nodes", "1", *words)
        self.wait_for("ready")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(WAIT_S), 0)
        self.start("--nodes", "2", *words)
        self.wait_for(rf":{ports + 1} --join {HOST}:{ports} ")
        self.wait_for(rf"members at index \d+: (?!.*learner).*:{ports + 1}")


class Load(threading.Thread):
    """A client that enqueues one message after the other until it is stopped."""

    def __init__(self, servers: list[str]):
        super().__init__()
        self.servers = servers
        self.ids: list[int] = []
        self.error: RaftnetError | None = None
        self._stop_asked = threading.Event()

    def run(self) -> None:
        try:
            with Client(self.servers) as client:
                queue = client.queue()
                while not self._stop_asked.wait(0.002):
                    self.ids.append(queue.enqueue("x"))
        except RaftnetError as error:
            self.error = error

    def stop(self) -> None:
        """Wait for its end."""
        self._stop_asked.set()
        self.join()


class Shown(unittest.TestCase):
    """Which lines of a node's log are shown."""

    def test_lines(self):
        for text, shown in [
                ("[h:1] [12:34:56.789] leader term 3: elected leader", True),
                ("[h:1] [12:34:56.789] follower term 3: following h:2", True),
                ("[h:1] [12:34:56.789] follower term 3: following nobody yet", False),
                ("[h:1] [12:34:56.789] leader term 3: heartbeat sent to 2 nodes", False),
                ("[h:1] [12:34:56.789] leader term 3: append: 9 more in the last second", False),
                ("[h:1] [12:34:56.789] leader term 3: members at index 3: h:1", True),
                ("[h:1] [12:34:56.789] follower term 3: members at index 3: h:1", False),
                ("[h:1] [12:34:56.789] starting: raftnet 0.1.0, data directory /d", True),
                ("[h:1] [12:34:56.789] follower term 1: WARNING: held up", True),
                ("[h:1] [12:34:56.789] leader term 3: SIGINT: stopping", True),
                ("node.py: cannot listen at h:1", True)]:
            with self.subTest(text=text):
                self.assertEqual(localcluster.is_shown(text), shown)


if __name__ == "__main__":
    unittest.main()
