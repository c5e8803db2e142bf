"""The options, the drop-in table, and that docs/drop-in.md holds the same table.

The inner runs of pytest are subprocesses: within this process they would import torch twice, and crash.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "drop-in.md"


@pytest.fixture
def project(pytester):
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makeini("[pytest]\naddopts = --strict-markers\nmarkers = dropin(feature): a drop-in feature")
    return pytester


def test_dropin_table_lists_each_marked_test_with_its_worst_outcome(project):
    project.makepyfile("""
        import pytest

        @pytest.mark.dropin("callbacks")
        @pytest.mark.parametrize("n", [1, 2, 3])
        def test_callbacks(n):
            assert n != 2

        @pytest.mark.dropin("interrupt")
        @pytest.mark.dropin("progress bar")
        def test_two_features():
            pass

        @pytest.mark.dropin("bf16")
        def test_skipped():
            pytest.skip("no bf16 here")

        @pytest.fixture
        def broken():
            raise RuntimeError

        @pytest.mark.dropin("LoRA")
        def test_broken_set_up(broken):
            pass

        @pytest.mark.dropin("left out")
        def test_deselected():
            pass

        def test_unmarked():
            pass
    """)
    result = project.runpytest_subprocess("-k", "not deselected")
    file = "test_dropin_table_lists_each_marked_test_with_its_worst_outcome.py"
    table = [line.split(" | ") for line in result.outlines if " | " in line]
    assert [[cell.strip() for cell in row] for row in table] == [
        ["drop-in: feature", "test", "outcome"],
        ["callbacks", f"{file}::test_callbacks", "failed"],
        ["progress bar", f"{file}::test_two_features", "passed"],
        ["interrupt", f"{file}::test_two_features", "passed"],
        ["bf16", f"{file}::test_skipped", "skipped"],
        ["LoRA", f"{file}::test_broken_set_up", "failed"],
    ]


def test_no_table_without_marked_tests(project):
    project.makepyfile("def test_plain(): pass")
    assert "drop-in" not in project.runpytest_subprocess().stdout.str()


def test_a_marker_without_a_feature_is_refused(project):
    project.makepyfile("import pytest\n\n@pytest.mark.dropin\ndef test_nothing(): pass")
    result = project.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*write @pytest.mark.dropin(*"])


def test_device_and_dtype_come_from_the_command_line(project):
    project.makepyfile("""
        def test_options(device, dtype):
            assert (str(device), str(dtype)) == ("meta", "torch.bfloat16")
    """)
    project.runpytest_subprocess("--device", "meta", "--dtype", "bfloat16").assert_outcomes(passed=1)


def test_tests_that_ask_for_no_device_run_without_torch(project):
    file = project.makepyfile("""
        import sys

        def test_light():
            assert "torch" not in sys.modules
    """)
    command = [sys.executable, "-m", "pytest", file]
    run = subprocess.run(command, capture_output=True, text=True, cwd=project.path)
    assert run.returncode == 0, run.stdout


def test_docs_hold_the_same_table_as_the_tests(dropin_table):
    """A row is "| feature | what holds | `tests/test_x.py::test_y` |"; a file not in this run must only exist."""
    lines = DOCS.read_text().splitlines() if DOCS.exists() else []
    cells = [[cell.strip(" `") for cell in line.strip("| ").split("|")] for line in lines if "::" in line]
    documented = [(feature, test) for feature, *_, test in cells]
    missing = [f"| {row[0]} | … | `{row[1]}` |" for row in dropin_table if row not in documented]
    assert not missing, "add to docs/drop-in.md:\n" + "\n".join(missing)

    files_run = {test.split("::")[0] for _, test in dropin_table}
    for feature, test in documented:
        file, name = test.split("::", 1)
        assert (ROOT / file).exists(), f"docs/drop-in.md names {test}, and there is no such file"
        assert file not in files_run or (feature, test) in dropin_table, (
            f'docs/drop-in.md: no test {name} of {file} is marked @pytest.mark.dropin("{feature}")'
        )
