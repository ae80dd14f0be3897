"""bench.py --delay as a whole, on real processes; `.ci/run` calls it, because it takes seconds.

    python3 -m unittest tests.tools.delayed_bench
"""

import contextlib
import io
import json
import unittest
from unittest import mock

from tools import bench, benchdelay
from tools.emulatednetwork import unavailable

MIB = 1024 * 1024


@unittest.skipIf(unavailable(), f"no emulated network: {unavailable()}")
class DelayTest(unittest.TestCase):
    """The whole command, with the shortest of runs."""

    def test_lines(self):
        words = ["bench.py", "--local", "2", "--delay", "5ms", "--runs", "1", "--seconds", "0.2",
                 "--warmup", "0.1", "--send-buffer", str(MIB)]
        output, errors = io.StringIO(), io.StringIO()
        with (contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors),
              mock.patch("sys.argv", words), mock.patch.object(benchdelay, "_ALONE_S", 0.2)):
            status = bench.main()
        self.assertEqual((status, errors.getvalue()), (0, ""))
        plain, delayed = map(json.loads, output.getvalue().splitlines())
        for line in plain, delayed:
            self.assertEqual((line["errors"], line["runs"], line["nodes"]), (0, 1, 2))
            self.assertEqual(line["send_buffer_bytes"], MIB)
            self.assertEqual(line["all_outstanding"], line["clients"] * line["outstanding"])
        self.assertEqual((plain["delay_ms"], delayed["delay_ms"]), (0, 5))
        self.assertGreaterEqual(delayed["alone_p50_delays"], 4)     # to the follower and back
        self.assertGreaterEqual(delayed["p50_ms"], 20)
        self.assertGreater(delayed["ops_per_s"], 0)
        self.assertAlmostEqual(delayed["share"],
                               delayed["ops_per_s"] / delayed["ops_per_s_without"], 2)


if __name__ == "__main__":
    unittest.main()
