"""What all tests share: the device and dtype they run with, and the drop-in table a run ends with.

Nothing here imports torch before a test asks for it, so the tests of rooms without it run in milliseconds.
"""

import os

import pytest
from hypothesis import settings

# Before torch, transformers or matplotlib are imported by a test: no network, no window, and one thread, on which
# models this small are fastest (more wait for each other, longest where other programs run too).
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("hybridstitch", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("hybridstitch")

DTYPES = ("float32", "bfloat16", "float16")
COLLECTED = pytest.StashKey[dict[tuple[str, str], None]]()  # (feature, test), in order
OUTCOMES = pytest.StashKey[dict[tuple[str, str], str]]()


def pytest_addoption(parser):
    group = parser.getgroup("hybridstitch")
    group.addoption("--device", default="cpu", help="device of the models under test (default: cpu)")
    group.addoption("--dtype", default="float32", choices=DTYPES, help="their dtype (default: float32)")


@pytest.fixture(scope="session")
def device(pytestconfig):
    import torch

    return torch.device(pytestconfig.getoption("device"))


@pytest.fixture(scope="session")
def dtype(pytestconfig):
    import torch

    return getattr(torch, pytestconfig.getoption("dtype"))


# --- the drop-in table ---


def dropin_rows(item):
    """The (feature, test) pairs of an item; parameters are left out, so a parametrised test is one row."""
    for marker in item.iter_markers("dropin"):
        if len(marker.args) != 1 or not isinstance(marker.args[0], str) or marker.kwargs:
            raise pytest.UsageError(f'{item.nodeid}: write @pytest.mark.dropin("one feature")')
        yield marker.args[0], item.nodeid.split("[")[0]


def pytest_configure(config):
    config.stash[COLLECTED] = {}
    config.stash[OUTCOMES] = {}


@pytest.hookimpl(tryfirst=True)  # before -k and -m take tests away
def pytest_collection_modifyitems(config, items):
    config.stash[COLLECTED].update((row, None) for item in items for row in dropin_rows(item))


@pytest.fixture
def dropin_table(request):
    """Every (feature, test) pair of the test files collected in this run, run or not."""
    return list(request.config.stash[COLLECTED])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    outcomes = item.config.stash[OUTCOMES]
    if report.when == "call" or report.outcome != "passed":  # a broken set-up or tear-down is a failure too
        worst = ("failed", "skipped", "passed")
        for row in dropin_rows(item):
            outcomes[row] = min(outcomes.get(row, "passed"), report.outcome, key=worst.index)
    return report


def pytest_terminal_summary(terminalreporter, config):
    outcomes = config.stash[OUTCOMES]
    if not outcomes:
        return
    rows = [("drop-in: feature", "test", "outcome")]
    rows += [(feature, test, outcome) for (feature, test), outcome in outcomes.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    terminalreporter.section("drop-in")
    for feature, test, outcome in rows:
        colour = {"passed": {"green": True}, "failed": {"red": True}}.get(outcome, {})
        terminalreporter.write(f"{feature:{widths[0]}} | {test:{widths[1]}} | ")
        terminalreporter.line(outcome, **colour)
