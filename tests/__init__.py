"""The tests; README.md says what is where.

Where Python is told to keep no bytecode, each of the hundreds of processes that they start would
compile the program anew. So theirs is kept in a temporary directory, as long as the tests run.
"""

import os
import sys
import tempfile

if sys.dont_write_bytecode and "PYTHONPYCACHEPREFIX" not in os.environ:
    # A child of a node that was killed may still write there.
    _bytecode = tempfile.TemporaryDirectory(prefix="raftnet-bytecode-", ignore_cleanup_errors=True)
    os.environ["PYTHONPYCACHEPREFIX"] = _bytecode.name
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
