"""The tests; README.md says what is where.

Where Python is told to keep no bytecode, each of the hundreds of processes that they start would
compile the program anew. So theirs is kept in a temporary directory, as long as the tests run.

In the background of a script SIGINT is ignored, and would be by every process that they start and
interrupt. So it is not here.
"""

import os
import signal
import sys
import tempfile

if sys.dont_write_bytecode and "PYTHONPYCACHEPREFIX" not in os.environ:
    # A child of a node that was killed may still write there.
    _bytecode = tempfile.TemporaryDirectory(prefix="raftnet-bytecode-", ignore_cleanup_errors=True)
    os.environ["PYTHONPYCACHEPREFIX"] = _bytecode.name
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
