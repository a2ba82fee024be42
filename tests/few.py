"""`@pytest.mark.few(n)`: n of a test's cases belong to plain pytest, all others to the slow sweeps.

Which ones depends on their names alone. So a case stays where it is when others join.
"""

from collections import defaultdict
from zlib import crc32

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "few(n): n of the cases are in plain pytest, the others are slow")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
    """Mark as slow whatever exceeds the few."""
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker("few"):
            cases[item.nodeid.split("[")[0]].append(item)
    for found in cases.values():
        count = found[0].get_closest_marker("few").args[0]
        for item in sorted(found, key=lambda item: crc32(item.name.encode()))[count:]:
            item.add_marker(pytest.mark.slow)
