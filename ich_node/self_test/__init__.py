"""The node's own test: a phantom with a known lesion goes the way of every study, and leaves nothing behind.

It is drawn and sent by a child process, to the receiver, by a real C-STORE; the worker analyses it and saves a report.
What that says is judged, and all of it is deleted. `deliver` runs it, every quarter of an hour or when asked.
"""

from ich_node.self_test.tester import SelfTester, testing_itself

__all__ = ["SelfTester", "testing_itself"]
