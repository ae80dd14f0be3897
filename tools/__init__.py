"""Programs around raftnet; each runs by itself, as `python3 tools/NAME.py`, from any folder."""
