"""localcluster as a user has it: a terminal, mqclient beside it, kill -9, start by hand, Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from tools import localcluster
from tools.processes import HOST, ROOT, free_ports, wait_until

WAIT_S = 30.0


class LocalClusterTool(unittest.TestCase):
    """The program as a process."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.output = os.path.join(self.directory, "terminal")

    def start(self, *words: str) -> subprocess.Popen:
        """The program, its terminal a file; ended at the test's end."""
        with open(self.output, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, os.path.join(ROOT, "tools", "localcluster.py"), *words],
                stdout=output, stderr=output)
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
        process = self.start(*words)
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
        process = self.start(*words, "--restart")
        leader, pid = self.wait_for(r"ready, (\S+) leads(?:.|\n)*kill -9 (\d+)").groups()
        self.mqclient(port, "enqueue", "again")
        os.kill(int(pid), signal.SIGKILL)
        self.wait_for(f"{leader} is started again, pid")
        self.assertEqual(self.mqclient(port, "dequeue"), ["again"])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(WAIT_S), 0, self.text())

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
