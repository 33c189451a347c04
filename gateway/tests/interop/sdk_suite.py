"""Runs the own tests of the official SDK for Python against nodes of this machine.

    sdk_suite.py FOLDER ADDRESS...

FOLDER is the unpacked source of the SDK, ADDRESS what the clients of the tests connect to instead of the port that
the tests name, each in its turn: with two addresses the two clients of a test are on different nodes.
"""

import itertools
import logging
import sys
import unittest
from unittest import mock

import centrifuge

NAMED = "localhost:8000"

# Classes of tests that are not run, and why.
DESELECTED = {
    "TestChannelCompaction": "short names for channels, which Roomcast does not offer; a server of the suite answers it",
    "TestProcessDisconnectReconnectFlag": "what the SDK makes of codes; no server is asked",
}


def redirect(addresses):
    """Every client made from now on that would go to the port of the tests goes to the next of the addresses."""
    turn = itertools.cycle(addresses)
    make = centrifuge.Client.__init__

    def redirected(self, address, *rest, **options):
        make(self, address.replace(NAMED, next(turn)) if NAMED in address else address, *rest, **options)

    centrifuge.Client.__init__ = redirected


def await_subscriptions(case):
    """Has the tests of this class wait for the answer to each subscribe.

    It disconnects a client at once, and one that was not answered yet has nothing to recover when it comes back.
    """
    subscribe = centrifuge.Subscription.subscribe

    async def answered(subscription):
        await subscribe(subscription)
        await subscription.ready(timeout=60)

    async def prepare(test):
        patch = mock.patch.object(centrifuge.Subscription, "subscribe", answered)
        patch.start()
        test.addCleanup(patch.stop)

    case.asyncSetUp = prepare


def selected(module):
    """The tests of the module, without what is deselected: a name there that no test has is an error."""
    suite = unittest.TestSuite()
    missing = set(DESELECTED)
    for tests in unittest.defaultTestLoader.loadTestsFromModule(module):
        for test in tests:
            name = type(test).__name__
            missing.discard(name)
            if name not in DESELECTED:
                suite.addTest(test)
    if missing:
        raise SystemExit(f"deselected, but not in the suite: {', '.join(sorted(missing))}")
    return suite


def main(folder, *addresses):
    redirect(addresses)
    sys.path.insert(0, folder)
    from tests import centrifugo, test_client

    centrifugo.CENTRIFUGO_HTTP_URL = f"http://{addresses[0]}"
    await_subscriptions(test_client.TestAutoRecovery)
    logging.disable(logging.INFO)
    for name, why in DESELECTED.items():
        print(f"not run: {name}: {why}", flush=True)
    result = unittest.TextTestRunner(verbosity=2).run(selected(test_client))
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
