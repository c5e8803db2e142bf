"""What all tests share: the device and dtype they run with, and the drop-in table a run ends with.

Nothing here imports torch before a test asks for it, so the tests of rooms without it run in milliseconds.
"""

import os
import platform
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch, transformers or matplotlib are imported by a test: no network, no window, and one thread, on which
# models this small are fastest (more wait for each other, longest where other programs run too).
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
# What is left over from whole vectors is computed by other functions, which round otherwise. Tensors this small are
# multiples of 8 floats, AVX2's vectors, and not always of AVX-512's 16.
if platform.machine() == "x86_64":
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    # Without AMX, whose way of packing bfloat16 torch's attention takes and cannot follow at AVX2's vectors.
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

settings.register_profile("hybridstitch", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("hybridstitch")

TESTS = Path(__file__).parent
DTYPES = ("float32", "bfloat16", "float16")
COLLECTED = pytest.StashKey[dict[tuple[str, str], None]]()  # (feature, test), in order
ROW = "dropin"  # a report's property: (feature, test)
SUPPORT = "support"  # another: (feature, pipeline, test)
TICKS = pytest.StashKey[dict[tuple[str, str, str], None]]()


def pytest_addoption(parser):
    group = parser.getgroup("hybridstitch")
    group.addoption("--device", default="cpu", help="device of the models under test (default: cpu)")
    group.addoption("--support", metavar="FILE", help="write the table of what pipelines support into this page")
    group.addoption("--soak", action="store_true", help="run what takes minutes, too: clusters, kills, long loads")
    group.addoption("--dtype", default="float32", choices=DTYPES, help="their dtype (default: float32)")


@pytest.fixture(scope="session")
def device(pytestconfig):
    import torch

    return torch.device(pytestconfig.getoption("device"))


@pytest.fixture(scope="session")
def dtype(pytestconfig):
    import torch

    return getattr(torch, pytestconfig.getoption("dtype"))


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """The folder of an untrained miniature pair."""
    from mini_folder import save

    return save(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="session")
def server():
    """Begins processes that have the libraries imported already."""
    from hybridstitch.batch.pool import fresh
    from hybridstitch.cli.batch_studio import MODULES

    return fresh(MODULES)


@pytest.fixture
def flash(monkeypatch):
    """Attention without weights that holds no scores, as a GPU's kernels do."""
    import torch

    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda query, *_, **__: torch.empty_like(query)
    )


# --- the drop-in table ---


def dropin_rows(item):
    """The (feature, test) pairs of an item; parameters are left out, so a parametrised test is one row."""
    for marker in item.iter_markers("dropin"):
        if len(marker.args) != 1 or not isinstance(marker.args[0], str) or marker.kwargs:
            raise pytest.UsageError(f'{item.nodeid}: write @pytest.mark.dropin("one feature")')
        yield marker.args[0], item.nodeid.split("[")[0]


def support_rows(item):
    """The (feature, pipeline, test) of an item of the table of pipelines."""
    for marker in item.iter_markers(SUPPORT):
        yield marker.args[0], item.callspec.params["piped"], item.nodeid


def pytest_configure(config):
    config.stash[COLLECTED] = {}
    config.stash[TICKS] = {}


@pytest.hookimpl(tryfirst=True)  # before -k and -m take tests away
def pytest_collection_modifyitems(config, items):
    if not config.getoption("--soak"):
        left = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    config.stash[COLLECTED].update((row, None) for item in items for row in dropin_rows(item))
    config.stash[TICKS].update((row, None) for item in items for row in support_rows(item))


def pytest_xdist_make_scheduler(config, log):
    """Tests of a module that makes something once go to one worker, all others to whoever is free."""
    from xdist.scheduler import LoadScopeScheduling

    together = {f"tests/{path.relative_to(TESTS).as_posix()}" for path in TESTS.rglob("test_*.py") if once(path)}

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            module = nodeid.partition("::")[0]
            return module if module in together else nodeid

    return Scheduler(config, log)


def once(path):
    """Whether a module of tests has a fixture for all of them."""
    return 'scope="module"' in path.read_text(encoding="utf-8")


@pytest.fixture
def dropin_table(request):
    """Every (feature, test) pair of the test files collected in this run, run or not."""
    return list(request.config.stash[COLLECTED])


@pytest.fixture
def support_table(request):
    """Every (feature, pipeline, test) of the test files collected in this run, run or not."""
    return list(request.config.stash[TICKS])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.user_properties += [(ROW, list(row)) for row in dropin_rows(item)]  # they travel with it from a worker
    report.user_properties += [(SUPPORT, list(row)) for row in support_rows(item)]
    return report


def outcomes_of(reports):
    """The worst outcome of each row; a broken set-up or tear-down is a failure too."""
    worst, outcomes = ("failed", "skipped", "passed"), {}
    for report in reports:
        if getattr(report, "when", None) == "call" or report.outcome != "passed":
            for row in (tuple(row) for name, row in getattr(report, "user_properties", ()) if name == ROW):
                outcomes[row] = min(outcomes.get(row, "passed"), report.outcome, key=worst.index)
    return outcomes


def support_page(reports, page):
    """A page with its table made anew: a tick, linked to its test, where one passed."""
    ticks, rows, columns = {}, {}, {}
    for report in reports:
        for feature, pipeline, test in (row for name, row in getattr(report, "user_properties", ()) if name == SUPPORT):
            rows[pipeline] = columns[feature] = None
            if report.when == "call" and report.outcome == "passed":
                file, _, case = test.partition("::")
                ticks[pipeline, feature] = f'[✓](../{file} "{case}")'
    lines = ["| pipeline | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for row in sorted(rows):
        lines.append(f"| `{row}` | " + " | ".join(ticks.get((row, feature), "—") for feature in columns) + " |")
    before, _, rest = page.partition("| pipeline |")
    after = rest.partition("\n\n")[2]
    return before + "\n".join(lines) + "\n\n" + after


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--support"):
        path = Path(config.getoption("--support"))
        told = [r for kind in ("passed", "failed", "skipped") for r in terminalreporter.getreports(kind)]
        path.write_text(support_page(told, path.read_text(encoding="utf-8")), encoding="utf-8")
    kinds = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
    outcomes = outcomes_of(report for kind in kinds for report in terminalreporter.getreports(kind))
    if not outcomes:
        return
    rows = [("drop-in: feature", "test", "outcome")]
    order = {row: place for place, row in enumerate(config.stash[COLLECTED])}  # empty where workers collect
    ordered = sorted(outcomes, key=lambda row: (order.get(row, 0), row[1]))
    rows += [(feature, test, outcomes[feature, test]) for feature, test in ordered]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    terminalreporter.section("drop-in")
    for feature, test, outcome in rows:
        colour = {"passed": {"green": True}, "failed": {"red": True}}.get(outcome, {})
        terminalreporter.write(f"{feature:{widths[0]}} | {test:{widths[1]}} | ")
        terminalreporter.line(outcome, **colour)
