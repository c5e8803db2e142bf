"""The last pieces: one that is slow is drawn at an idle seat as well, the first result counts, and it is there once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from batch_workers import Flat
from hybridstitch.batch import folder, ledger
from hybridstitch.batch.drawing import draw_all
from hybridstitch.batch.executor import processes_at
from hybridstitch.batch.job import WorkError
from hybridstitch.batch.seats import Seats
from hybridstitch.batch.work import Desk
from hybridstitch.errors import StitchWarning
from test_batch import SETTING, check, desks, run, some


class Threaded:
    """A seat whose worker is a thread, held up by prompts of its own."""

    volatile = False

    def __init__(self, out, slow=(), fails=(), full=()):
        self.desk = Desk(out=out, setting=SETTING, device="cpu", open=Flat(out))
        self.released = threading.Event()
        self.slow, self.fails, self.full = slow, fails, full
        self.groups = []
        self._thread, self._worker = ThreadPoolExecutor(1), self.desk.worker()

    def submit(self, group):
        return self._thread.submit(self._do, group)

    def _do(self, group):
        prompts = [attempt.job.prompt for attempt in group]
        self.groups += [prompts] if prompts else []
        if any(prompt in self.slow for prompt in prompts):
            self.released.wait(60)
        if any(prompt in self.fails for prompt in prompts):
            return [self._worker._do(attempt, self._error) for attempt in group]
        if any(prompt in self.full for prompt in prompts):
            raise WorkError("cannot send what it drew")
        return self._worker.do(group)

    def _error(self):
        raise ValueError("not here")

    def outcomes(self, future):
        return future.result()

    def renew(self):
        raise AssertionError("nobody died")

    def close(self):
        self.released.set()
        self._thread.shutdown()


def drawn_at(out, jobs, *seats, on_outcome=lambda outcome: None):
    found = folder.look(out, jobs, SETTING, verify=False)
    folder.begin(out, jobs, SETTING, {}, found)
    return draw_all(jobs, Seats(seats, out), on_outcome)


def prompts_of(seats):
    return [prompt for seat in seats for group in seat.groups for prompt in group]


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr("hybridstitch.batch.seats.LATE_SECONDS", 0.2)


def test_a_slow_seat_does_not_hold_the_end(tmp_path):
    jobs = some("a", "b", "slow one", "d", "e")
    seats = [Threaded(tmp_path, slow=("slow one",)), Threaded(tmp_path)]
    order = []

    def on_outcome(outcome):
        order.append(outcome.attempt.job.prompt)
        if len(order) == len(jobs):
            assert not seats[0].released.is_set()  # it is at it still

    seats[1].slow = ("a", "b")  # until the first holds the slow one
    threading.Thread(target=lambda: (_until(lambda: "slow one" in prompts_of(seats)), seats[1].released.set())).start()
    result = drawn_at(tmp_path, jobs, *seats, on_outcome=on_outcome)
    assert set(result.done) == set(jobs)
    assert order[-1] == "slow one"
    assert sorted(prompts_of(seats)) == sorted([*(job.prompt for job in jobs.values()), "slow one"])
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {folder.name_of(key) for key in jobs}
    rows = {(row.id, row.sha256) for row in ledger.read(tmp_path)[0]}
    assert len(rows) == len(jobs)  # two rows of one picture agree


def _until(true):
    while not true():
        time.sleep(0.01)


def test_work_that_waits_goes_before_what_is_late(tmp_path):
    jobs = some("slow one", *"abcdefgh")
    seats = [Threaded(tmp_path, slow=("slow one",)), Threaded(tmp_path, slow=("slow one",))]

    def release():
        _until(lambda: prompts_of(seats).count("slow one") == 2)
        for seat in seats:
            seat.released.set()

    threading.Thread(target=release).start()
    assert set(drawn_at(tmp_path, jobs, *seats).done) == set(jobs)
    other = next(seat for seat in seats if "a" in prompts_of([seat]))
    assert other.groups[-1] == ["slow one"]
    assert prompts_of(seats).count("slow one") == 2  # never a third time


def test_an_error_elsewhere_leaves_it_to_the_slow_one(tmp_path):
    jobs = some("slow one", "a", "b")
    first = Threaded(tmp_path, slow=("slow one",))
    second = Threaded(tmp_path, fails=("slow one",))
    second.slow = ("a",)
    threading.Thread(target=lambda: (_until(lambda: first.groups), second.released.set())).start()
    threading.Thread(
        target=lambda: (_until(lambda: ["slow one"] in second.groups), time.sleep(0.3), first.released.set())
    ).start()
    result = drawn_at(tmp_path, jobs, first, second)
    assert set(result.done) == set(jobs)
    assert {row.attempts for row in result.done.values()} == {1}


def test_a_seat_that_cannot_hand_over_what_it_drew_is_given_up_and_the_others_draw_it(tmp_path):
    jobs = some("a", "b", "c", "d")
    seats = [Threaded(tmp_path, full=[job.prompt for job in jobs.values()]), Threaded(tmp_path)]
    with pytest.warns(StitchWarning, match="the worker on cpu cannot send what it drew; the others go on without it"):
        result = drawn_at(tmp_path, jobs, *seats)
    assert set(result.done) == set(jobs)
    assert len(seats[0].groups) == 1
    check(tmp_path, jobs)

    alone = tmp_path / "alone"
    alone.mkdir()
    with pytest.raises(WorkError, match="the worker on cpu cannot send what it drew"):
        drawn_at(alone, jobs, Threaded(alone, full=["c"]))
    assert len(list(alone.glob("*.png"))) == 2  # what was drawn before is there


def test_nothing_is_drawn_twice_where_all_are_equally_quick(tmp_path):
    jobs = some(*"abcdefghijklmnop")
    seats = [Threaded(tmp_path), Threaded(tmp_path)]
    assert set(drawn_at(tmp_path, jobs, *seats).done) == set(jobs)
    assert sorted(prompts_of(seats)) == list("abcdefghijklmnop")
    check(tmp_path, jobs)


@pytest.mark.soak
def test_a_process_that_stalls_is_let_go_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("hybridstitch.batch.pool.PATIENCE_SECONDS", 0.1)
    jobs = some("a", "b", "stalls", "d")
    begun = time.monotonic()
    _, drawn = run(tmp_path, jobs, processes_at(desks(tmp_path, "cpu", "cpu")))
    assert time.monotonic() - begun < 300
    assert set(drawn.done) == set(jobs)
    check(tmp_path, jobs)
