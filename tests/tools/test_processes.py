"""Real processes: starting, ending, waiting; and the request of one netcat."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import unittest

from raftnet.errors import RaftnetError
from raftnet.wire.address import parse_address
from raftnet.wire.frames import encode_frame
from tools import encode
from tools.filetext import log_lines, meta_lines
from tools.frametext import StreamDecoder
from tools.processes import (HOST, ROOT, LocalCluster, NodeProcess, check_digests, free_ports,
                             port_is_taken, wait_until)

ENDS_S = 30.0


def run_tool(name: str, *words: str, data: bytes = b"") -> bytes:
    """The stdout of a tool that ends well."""
    done = subprocess.run([sys.executable, os.path.join(ROOT, "tools", name), *words], input=data,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def netcat(address: str, data: bytes) -> bytes:
    """Send, close the sending side, and take all that comes until the other side closes."""
    with socket.create_connection(parse_address(address), ENDS_S) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while data := sock.recv(65_536):
            received += data
        return received


class Cluster(unittest.TestCase):
    """One cluster, through its life."""

    def setUp(self):
        self.cluster = LocalCluster(3)
        self.addCleanup(self.cluster.close)

    def test_life(self):
        cluster = self.cluster.start()
        leader = cluster.leader()
        self.see_netcat(leader)
        self.see_refused_start(leader)
        leader.kill()
        self.assertEqual(leader.exit_status, -signal.SIGKILL)
        self.assertIsNot(cluster.leader(), leader)
        leader.start().wait_ready()
        statuses = cluster.wait_settled()
        self.assertEqual(len(statuses), 3)
        self.assertEqual(statuses[leader.address].boot, 2)
        self.assertIn("start 2 of this directory", leader.log_text())
        self.assertNotIn("start 1 of this directory", leader.log_text())
        follower = next(node for node in cluster.nodes if node is not cluster.leader())
        follower.suspend()
        self.assertIsNone(follower.status(0.1))
        follower.resume()
        follower.wait_ready()
        follower.suspend()
        cluster.stop()              # ends suspended nodes too
        self.assertEqual([node.exit_status for node in cluster.nodes], [0, 0, 0])
        for address, status in statuses.items():
            status.digest += address == leader.address
        with self.assertRaisesRegex(RaftnetError, "has digest"):
            check_digests(statuses.values())

    def see_netcat(self, leader: NodeProcess) -> None:
        """encode | nc | decode, with a netcat that closes its sending side."""
        follower = next(node for node in self.cluster.nodes if node is not leader)
        for words, node, expected in [
                (["enqueue", "hello"], leader, "REPLY id 1: sequence 1 count 1: enqueued from id"),
                (["size"], leader, "OK 1 messages 5 bytes"),
                (["enqueue", "hello"], follower, f"leader {leader.address}"),
                (["log"], leader, 'enqueue default "hello"'),
                (["status"], follower, f"{follower.address} follower"),
                (["dequeue"], leader, 'OK 1:"hello"'),
                # nobody waits behind a closed door
                (["dequeue", "--wait", "60"], leader, "CANCELLED"),
                (["hello"], leader, f"at {leader.address}")]:
            with self.subTest(words=words):
                parsed = encode.parse(words)
                reply = netcat(node.address, encode_frame(*self.frame(parsed)))
                self.assertIn(expected, "\n".join(StreamDecoder().feed(reply)))
        reply = netcat(leader.address, run_tool("encode.py", "enqueue", "-q", "piped", "hello"))
        self.assertIn(b"enqueued from id", run_tool("decode.py", data=reply))
        for node in self.cluster.nodes:     # the files of running nodes
            directory = self.cluster.data_of(node.address)
            self.assertTrue(any("membership" in line for line in log_lines(directory)))
            self.assertIn("identity: cluster", list(meta_lines(directory))[-1])

    def frame(self, parsed) -> tuple[int, int, bytes]:
        """What encode_frame takes."""
        kind, body = encode.encode(parsed)
        return kind, parsed.request_id, body

    def see_refused_start(self, node: NodeProcess) -> None:
        """A second process at the same address ends with one clear line."""
        path = os.path.join(self.cluster.directory, "second")
        with NodeProcess(node.address, [node.address, "--data", path], path + ".log") as second:
            second.start()
            self.assertEqual(second.wait(ENDS_S), 1)
            with self.assertRaisesRegex(RaftnetError, "cannot listen at .* another process"):
                second.wait_ready()


class Waits(unittest.TestCase):
    """Small parts."""

    def test_wait_until(self):
        values = iter([None, 0, "", 7])
        self.assertEqual(wait_until(lambda: next(values), 5, "seven"), 7)
        with self.assertRaisesRegex(RaftnetError, "not within 0.02 s: pigs fly"):
            wait_until(lambda: False, 0.02, "pigs fly")

    def test_free_ports(self):
        ports = free_ports(20)
        self.assertEqual(len(set(ports)), 20)
        with socket.socket() as sock:
            sock.bind((HOST, ports[0]))
            sock.listen()
            self.assertTrue(port_is_taken(f"{HOST}:{ports[0]}"))
        self.assertFalse(port_is_taken(f"{HOST}:{ports[0]}"))

    @unittest.skipUnless(sys.platform == "linux", "the tie to the parent is Linux's")
    def test_nodes_die_with_who_started_them(self):
        program = textwrap.dedent(f"""
            import sys, time
            sys.path.insert(0, {ROOT!r})
            from tools.processes import LocalCluster
            cluster = LocalCluster(1)
            node = cluster.nodes[0].start()
            print(node.pid, cluster.directory, flush=True)
            time.sleep(600)
            """)
        parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        self.addCleanup(parent.wait)
        self.addCleanup(parent.stdout.close)
        self.addCleanup(parent.kill)
        pid, directory = parent.stdout.readline().split()
        self.addCleanup(subprocess.run, ["rm", "-r", directory])
        self.addCleanup(kill_if_alive, int(pid))
        parent.kill()
        parent.wait()
        wait_until(lambda: not is_alive(int(pid)), ENDS_S, "the node dies")


def kill_if_alive(pid: int) -> None:
    """For a test that failed."""
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has reaped does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    unittest.main()
