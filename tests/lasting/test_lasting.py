"""Short forms of the long tests of what lasts (`python3 -m tests.lasting`), with real processes."""

import unittest
from unittest import mock

from tests.lasting import damage, failing, smalldisk
from tests.lasting.bounded import BoundedRun
from tests.lasting.failing import FailingRun
from tests.lasting.fulldisk import FullDiskRun


class TestLasting(unittest.TestCase):
    """Each part once, with small numbers."""

    def test_disk_and_memory_stay_bounded_and_idle_writes_nothing(self):
        BoundedRun(14_000, idle_s=0.5).run()

    def test_a_damaged_log_is_healed_by_the_others(self):
        damage.DamageRun([("log", damage.flip)]).run()

    def test_a_damaged_snapshot_of_a_lone_node_is_refused(self):
        damage.refuse_alone("snapshot", damage.flip)

    def test_a_full_disk(self):
        why = smalldisk.unavailable()
        if why:
            self.skipTest(why)
        FullDiskRun().alone()

    def test_a_sync_that_fails(self):
        why = failing.unavailable()
        if why:
            self.skipTest(why)
        run = FailingRun()
        with mock.patch.object(failing, "_CALL_S", 0.4):
            run.run("fdatasync", "EIO", 20)
        self.assertEqual(run.ends, {"ended": 1})


if __name__ == "__main__":
    unittest.main()
