"""README quotes the committed timings."""

import json

from benchmarks import peers


def test_the_table_is_that_of_the_committed_result():
    text = peers.README.read_text()
    assert peers.table(json.loads(peers.RESULT.read_text())) + "\n\n" in text, (
        "run `python -m benchmarks.peers --table`"
    )
    assert text.count("| | ns per coordinate-step") == 1
