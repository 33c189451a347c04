"""The running cluster, made once for all live tests, and what its processes printed when one of them fails."""

import pytest

from client import Client
from cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        try:
            made.start()
        except BaseException as error:
            raise AssertionError(f"the cluster did not start: {error}\n{made.report()}") from error
        yield made
    finally:
        made.stop()


@pytest.fixture
def connect(cluster):
    """Connects clients through the balancer; those still open at the end are closed."""
    clients = []

    def connect(user: str, origin: str | None = None) -> Client:
        clients.append(Client(cluster.balancer, user, origin))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and cluster is not None:
        report.sections.append(("what the processes printed last", cluster.report()))
    return report
