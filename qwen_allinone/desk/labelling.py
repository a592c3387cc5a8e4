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


def label(
    table: Table,
    clerk: Clerk,
    tasks: Sequence[str],
    journal: Journal,
    *,
    sure: float,
    at_once: int,
    on_done: Callable[[], None],
) -> None:
    """Go on behind the last row that is done, `at_once` rows at a time.

    However it ends, by Ctrl-C or an error, all that is done up to there is in the journal and on the disk.

    Raises:
        DataFileError: a file cannot be read, the model does not answer, or the disk is full.
    """
    given_up = Event()
    pending: deque[Future[Answers]] = deque()

    def ask(feedback: Feedback) -> Answers:
        return answer(clerk, tasks, feedback.text, sure, given_up, feedback.row.problem)

    def take() -> None:
        journal.add(pending.popleft().result())
        on_done()

    with ThreadPoolExecutor(at_once) as pool:
        try:
            for feedback in islice(table.rows(), journal.done, None):
                pending.append(pool.submit(ask, feedback))
                if len(pending) >= _AHEAD * at_once:
                    take()
            while pending:
                take()
        finally:
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
            while pending and pending[0].done() and not pending[0].cancelled() and not pending[0].exception():
                take()
            journal.flush()
