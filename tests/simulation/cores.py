"""Simulated runs on all cores: a pool of processes, each with an interpreter of its own."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor


def all_cores() -> ProcessPoolExecutor:
    """A context manager; what is submitted is a function of a module, and its arguments."""
    return ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"))
