"""tools/netem.py from the shell: COMMANDs in hosts, lines that change the network, tc."""

import contextlib
import io
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import unittest
from unittest import mock

from raftnet.errors import RaftnetError
from tests.tools.test_emulatednetwork import is_running
from tools.netem import Console, Network, TrafficControl, count_text, fill, main, unavailable
from tools.processes import ROOT, wait_until

PROGRAM = os.path.join(ROOT, "tools", "netem.py")
NEEDED = unittest.skipIf(unavailable(), f"no emulated network: {unavailable()}")
ENDS_S = 30.0


def netem(*words: str, lines: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Run it to its end."""
    return subprocess.run([sys.executable, PROGRAM, *words], input=lines, capture_output=True,
                          text=True, timeout=ENDS_S, check=False,
                          env={**os.environ, **environment})


class ArgumentsTest(unittest.TestCase):
    """What is refused before there is a network, root or not."""

    def refuse(self, *words: str) -> tuple[int, list[str]]:
        """The exit status, and what is said, of the program called here."""
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            try:
                status = main(list(words))
            except SystemExit as end:
                status = end.code
        return status, errors.getvalue().splitlines()

    def test_bad_arguments(self):
        for words, complaint in (
                (["--profile", "delay fast", "--", "true"], "--profile: delay TIME [JITTER"),
                (["--hosts", "0"], "from 1 to"),
                (["--hosts", "2", "--on", "3", "--", "true"], "there are 2 hosts"),
                (["--each"], "--each needs"),
                (["--mtu", "100"], "from 1280 to"),
                (["COMMAND"], "unrecognized")):
            with self.subTest(words):
                status, lines = self.refuse(*words)
                self.assertEqual(status, 2)
                self.assertIn(complaint, lines[-1])

    def test_help(self):
        done = netem("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("partition 1,2 3,4,5", done.stdout)

    def test_enter_somewhere_else(self):
        for place in ("1", "x:3", f"{os.getpid()}:0", "4194999:3"):
            with self.subTest(place):
                status, lines = self.refuse("--enter", place, "--", "true")
                self.assertEqual((status, len(lines)), (1, 1))

    @unittest.skipUnless(unavailable(), "there is an emulated network here")
    def test_where_there_is_none(self):
        done = netem("--", "true")
        self.assertEqual(done.returncode, 1)
        self.assertIn(unavailable(), done.stderr)
        with self.assertRaises(RaftnetError):
            Network(2)

    def test_count_text(self):
        self.assertEqual(count_text({"packets": 0, "bytes": 0, "delivered": 0, "lost": 0}),
                         "packets 0, bytes 0, delivered 0")
        self.assertEqual(count_text({"packets": 2, "lost": 1}), "packets 2, lost 1")


@NEEDED
class CommandTest(unittest.TestCase):
    """COMMANDs in hosts."""

    def test_status_output_addresses(self):
        done = netem("--hosts", "2", "--profile", "delay 1ms", "--on", "2", "--", "sh", "-c",
                     "echo $RAFTNET_HOST $RAFTNET_HOSTS $RAFTNET_HOSTS6 {1} {host}; exit 7")
        self.assertEqual(done.returncode, 7)
        self.assertEqual(done.stdout, "10.77.0.2 10.77.0.1,10.77.0.2 fd77::1,fd77::2 10.77.0.1 "
                                      "10.77.0.2\n")
        self.assertIn("2 hosts, every link: delay 1ms\n", done.stderr)
        self.assertIn("packets 0", done.stderr.splitlines()[-1])

    def test_stdin_is_the_commands(self):
        self.assertEqual(netem("--", "cat", lines="quit\n").stdout, "quit\n")

    def test_each(self):
        done = netem("--each", "--", "sh", "-c", "echo {host} {hosts:5001}; test {host} != {2}")
        every = ",".join(f"10.77.0.{number}:5001" for number in (1, 2, 3))
        self.assertEqual(sorted(done.stdout.splitlines()),
                         [f"10.77.0.{number} {every}" for number in (1, 2, 3)])
        self.assertEqual(done.returncode, 1)

    def test_each_has_a_session_of_its_own(self):
        # Ctrl-C at the terminal then reaches netem.py only, which stops them once, in order.
        fields = [line.split() for line in netem(
            "--each", "--", "cut", "-d ", "-f1,6", "/proc/self/stat").stdout.splitlines()]
        self.assertEqual([pid for pid, _ in fields], [session for _, session in fields])
        self.assertEqual(len(fields), 3)

    def test_a_killed_program_takes_its_command_along(self):
        with subprocess.Popen([sys.executable, PROGRAM, "--", "sh", "-c", "echo $$; exec sleep 60"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            try:
                command = int(child.stdout.readline())
            finally:
                child.kill()
            # Its end of the pipe closes: nobody has it any more.
            self.assertEqual(child.stdout.read(), b"")
        wait_until(lambda: not is_running(command), ENDS_S, "the command ends")

    def test_a_command_that_is_not_there_or_dies(self):
        done = netem("--", "/nonexistent")
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nonexistent: No such file", done.stderr)
        self.assertEqual(netem("--", "sh", "-c", "kill -9 $$").returncode, 128 + signal.SIGKILL)

    def test_a_signal_ends_the_command_and_the_network(self):
        for words in (["--"], ["--each", "--"], None):
            with self.subTest(words):
                command = [] if words is None else [*words, "sh", "-c", "echo up; exec sleep 60"]
                with subprocess.Popen([sys.executable, PROGRAM, *command], text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE) as child:
                    try:
                        child.stdout.readline()
                        child.terminate()
                        _, errors = child.communicate(timeout=ENDS_S)
                    finally:
                        child.kill()
                self.assertEqual(child.returncode, 128 + signal.SIGTERM if words else 0)
                self.assertNotIn("Traceback", errors)

    def test_enter_from_elsewhere_while_stdin_changes_the_links(self):
        with subprocess.Popen([sys.executable, PROGRAM, "--hosts", "2"], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            try:
                child.stdout.readline()
                place = child.stdout.readline().split("--enter ")[1].split()[0]
                for _ in range(4):
                    child.stdout.readline()
                probe = textwrap.dedent("""
                    import socket
                    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    sock.sendto(b"1", ("10.77.0.2", 9))""")
                done = netem("--enter", place, "--", sys.executable, "-c", probe)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                output, _ = child.communicate("cut 1 2 one-way\nquit\n", timeout=ENDS_S)
            finally:
                child.kill()
        # The port is closed: host 2 says so.
        self.assertEqual(output.splitlines()[-1], "netem: packets 2, bytes 86, delivered 2")
        self.assertEqual(child.returncode, 0)


@NEEDED
class ConsoleTest(unittest.TestCase):
    """The lines."""

    @classmethod
    def setUpClass(cls):
        cls.net = Network(3)
        cls.addClassCleanup(cls.net.close)

    def setUp(self):
        self.said: list[str] = []
        self.console = Console(self.net, self.said.append)

    def test_bad_lines_give_one_line_each(self):
        for line in ("nonsense", "set", "set from 1", "set delay", "set delay 1ms from 9",
                     "set delay 1ms from 1 from 2", "set clean now", "cut", "cut 1", "cut 1 1",
                     "cut 1 4", "cut 1 2 3", "cut one 2", "isolate", "isolate 0", "isolate 1 2",
                     "partition", "partition 1,2", "partition 1,2 2,3", "partition 1, 2",
                     "heal 1", "counts all", "cut ² 1"):
            with self.subTest(line):
                self.said.clear()
                self.assertTrue(self.console.obey(line))
                self.assertEqual(len(self.said), 1)
                self.assertTrue(self.said[0].startswith("netem: "))
                self.assertNotIn("\n", self.said[0])

    def test_good_lines(self):
        with mock.patch.object(self.net, "_ask", return_value={}) as ask:
            for line, links, change in (
                    ("set delay 20ms loss 1% from 1 to 2", [[0, 1]],
                     {"profile": "delay 20ms loss 1%", "closed": None}),
                    ("set clean to 3", [[0, 2], [1, 2]], {"profile": "", "closed": None}),
                    ("cut 1 2", [[0, 1], [1, 0]], {"profile": None, "closed": True}),
                    ("cut 1 2 one-way", [[0, 1]], {"profile": None, "closed": True}),
                    ("isolate 1", [[0, 1], [1, 0], [0, 2], [2, 0]], {"closed": True}),
                    ("partition 1 2,3", [[0, 1], [0, 2], [1, 0], [2, 0]], {"closed": True}),
                    ("heal", [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]],
                     {"closed": False})):
                with self.subTest(line):
                    self.assertTrue(self.console.obey(line))
                    asked = ask.call_args[0][0]
                    self.assertEqual(asked["links"], links)
                    self.assertEqual({**asked, **change}, asked)

    def test_words_of_its_own(self):
        self.assertTrue(self.console.obey(""))
        self.assertEqual(self.said, [])
        self.assertTrue(self.console.obey("help"))
        self.assertTrue(self.console.obey("counts"))
        self.assertIn("packets", self.said[-1])
        self.assertTrue(self.console.obey("counts links"))
        self.assertFalse(self.console.obey("quit"))

    def test_places_in_a_command(self):
        host = self.net.hosts[1]
        for word, filled in (("{1}:5001", "10.77.0.1:5001"), ("{host}", "10.77.0.2"),
                             ("a={hosts}", "a=10.77.0.1,10.77.0.2,10.77.0.3"),
                             ("{4}{0}{}{x}", "{4}{0}{}{x}")):
            self.assertEqual(fill(word, host), filled)


class TrafficControlTest(unittest.TestCase):
    """--tc, with a tc of our own in its place: the machine's devices are left alone."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.log = os.path.join(self.directory, "log")

    def install(self, body: str) -> str:
        """A PATH with that tc, which notes its arguments."""
        path = os.path.join(self.directory, "tc")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\necho "$@" >> {self.log}\n{body}\n')
        os.chmod(path, stat.S_IRWXU)
        return f"{self.directory}:{os.environ['PATH']}"

    def noted(self) -> list[str]:
        """What it was called with."""
        with open(self.log, encoding="utf-8") as file:
            return file.read().splitlines()

    def test_set_and_removed(self):
        path = self.install('[ "$1" != -s ] || echo " Sent 86 bytes 2 pkt (dropped 1)"')
        done = netem("--tc", "lo", "--profile", "delay 1ms slot 5ms", "--", "sh", "-c", "exit 3",
                     PATH=path)
        self.assertEqual(done.returncode, 3)
        self.assertEqual(self.noted(), ["qdisc add dev lo root netem delay 1ms slot 5ms",
                                        "-s qdisc show dev lo", "qdisc del dev lo root"])
        self.assertIn("netem: Sent 86 bytes 2 pkt (dropped 1)", done.stderr)

    def test_removed_after_a_signal(self):
        path = self.install("")
        for number in (signal.SIGINT, signal.SIGTERM):
            with subprocess.Popen([sys.executable, PROGRAM, "--tc", "lo", "--profile", "loss 1%"],
                                  env={**os.environ, "PATH": path}, text=True,
                                  stderr=subprocess.PIPE) as child:
                try:
                    child.stderr.readline()
                    child.send_signal(number)
                    child.communicate(timeout=ENDS_S)
                finally:
                    child.kill()
            self.assertEqual(self.noted()[-1], "qdisc del dev lo root")

    def test_a_kernel_without_netem(self):
        path = self.install('echo "Error: Specified qdisc kind is unknown." >&2; exit 2')
        done = netem("--tc", "lo", "--profile", "loss 1%", "--", "true", PATH=path)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Anetem.py: .*no netem qdisc.*--hosts.*\n\Z")
        self.assertEqual(len(self.noted()), 1)

    def test_what_tc_refuses(self):
        path = self.install('echo "Error: Exclusivity flag on, cannot modify." >&2; exit 2')
        done = netem("--tc", "lo", "--", "true", PATH=path)
        self.assertEqual(done.returncode, 1)
        self.assertIn("Exclusivity", done.stderr)
        self.assertEqual(len(self.noted()), 1)      # another's qdisc is not removed

    def test_without_tc(self):
        done = netem("--tc", "lo", "--", "true", PATH=self.directory)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Anetem.py: there is no tc .*\n\Z")

    @NEEDED
    def test_the_kernels_own(self):
        # In a namespace of its own, where nobody minds.
        with Network(1) as net, net.hosts[0].inside():
            try:
                with TrafficControl("lo", "delay 1ms") as control:
                    self.assertIn("Sent", control.counts())
            except RaftnetError as error:
                self.assertRegex(str(error), "no netem qdisc|there is no tc")


if __name__ == "__main__":
    unittest.main()
