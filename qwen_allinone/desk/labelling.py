"""Labels the rows of a table, many at once; what is done goes into the journal in the order of the rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Event

from qwen_allinone.desk.asking import Clerk, answer
from qwen_allinone.desk.journal import Answers, Journal
from qwen_allinone.desk.table import Feedback, Table

_AHEAD = 4  # times as many rows are held as are asked about, so that one long answer does not hold up the others

# Of a row, before it counts as done.
Tell = Callable[[Feedback, Answers], None]


def label(
    table: Table,
    clerk: Clerk,
    tasks: Sequence[str],
    journal: Journal,
    *,
    sure: float,
    at_once: int,
    on_done: Callable[[], None],
    tell: Tell | None = None,
) -> None:
    """Go on behind the last row that is done, `at_once` rows at a time. `tell` hears of each row before it counts as
    done, and so of a row again that a kill came between; what it raises ends the labelling.

    However it ends, by Ctrl-C or an error, all that is done up to there is in the journal and on the disk.

    Raises:
        DataFileError: a file cannot be read, the model does not answer, or the disk is full.
    """
    given_up = Event()
    pending: deque[tuple[Feedback, Future[Answers]]] = deque()

    def ask(feedback: Feedback) -> Answers:
        return answer(clerk, tasks, feedback.text, sure, given_up, feedback.row.problem)

    def take() -> None:
        feedback, answers = pending[0][0], pending[0][1].result()
        if tell:
            tell(feedback, answers)
        pending.popleft()
        journal.add(answers)
        on_done()

    with ThreadPoolExecutor(at_once) as pool:
        try:
            for feedback in islice(table.rows(), journal.done, None):
                pending.append((feedback, pool.submit(ask, feedback)))
                if len(pending) >= _AHEAD * at_once:
                    take()
            while pending:
                take()
        finally:
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
            try:
                while pending and _is_answered(pending[0][1]):
                    take()
            finally:
                journal.flush()


def _is_answered(asked: Future[Answers]) -> bool:
    return asked.done() and not asked.cancelled() and not asked.exception()
