"""mqclient watch against real nodes, of which the leader is killed."""

import json
import os
import select
import subprocess
import sys
import unittest

from raftnet.client import Client
from tools.processes import ROOT, LocalCluster

LIMIT_S = 30


class Processes(unittest.TestCase):
    def setUp(self):
        self.cluster = LocalCluster(3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.servers = [node.address for node in self.cluster.nodes]

    def watch(self, *words: str) -> subprocess.Popen:
        """The program; its first line is read elsewhere."""
        process = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, "mqclient.py"), "-s", ",".join(self.servers),
             "watch", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def line(self, process: subprocess.Popen) -> list[bytes]:
        """Its next line, in parts."""
        # Read unbuffered: what select tells is about the pipe alone.
        data = b""
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], LIMIT_S)
            self.assertTrue(ready, "no line in time")
            more = os.read(process.stdout.fileno(), 1)
            self.assertTrue(more, "it has ended")
            data += more
        return data.removesuffix(b"\n").split(b"\t")

    def test_each_change_once_through_a_death_of_the_leader(self):
        with Client(self.servers) as client:
            client.kv_put("p/0", "first")
            process, sizes = self.watch("prefix", "p/", "--from", "1"), self.watch("queue", "q")
            self.assertEqual(self.line(process)[1:], [b"put", b"p/0", b"1", b"first"])
            self.assertEqual(self.line(sizes)[1:4], [b"size", b"q", b"0"])
            for n in range(1, 11):
                client.kv_put(f"p/{n}", f"{n}")
                client.kv_put("other", f"{n}")
                if n == 5:
                    self.cluster.leader().kill()
            client.queue("q").enqueue("hello")
            client.kv_delete("p/0")
            found = [self.line(process) for _ in range(11)]
            self.assertEqual([(kind, key, value) for _, kind, key, _, value in found],
                             [(b"put", b"p/%d" % n, b"%d" % n) for n in range(1, 11)]
                             + [(b"deleted", b"p/0", b"")])
            while (size := self.line(sizes))[3] != b"1":
                self.assertEqual(size[1:4], [b"size", b"q", b"0"])
            self.assertEqual(size[4], b"leased 0 delayed 0 bytes 5")

    def test_a_listing_then_a_watch_without_a_gap(self):
        program = [sys.executable, os.path.join(ROOT, "mqclient.py"), "-s", ",".join(self.servers)]
        help_text = subprocess.run([*program, "watch", "--help"], capture_output=True, check=True)
        self.assertIn(b"kv list PREFIX --verbose", b" ".join(help_text.stdout.split()))
        with Client(self.servers) as client:
            client.kv_put("p/1", "1")
            listed = subprocess.run([*program, "--json", "kv", "list", "p/", "--verbose"],
                                    capture_output=True, check=True, timeout=LIMIT_S)
            found = json.loads(listed.stdout)
            self.assertEqual([item["key"] for item in found["keys"]], ["p/1"])
            client.kv_put("p/2", "2")       # behind the listing, before the watch
            process = self.watch("prefix", "p/", "--from", str(found["index"]))
            self.assertEqual(self.line(process)[1:], [b"put", b"p/2", b"2", b"2"])


if __name__ == "__main__":
    unittest.main()
