"""The real app with a forward pass that can be made slow or made to fail, for tests over real Gunicorn.

`FAULT_STEP_S` makes every step that much longer, half a second more while there is a file `slow` in the folder
`FAULT_FOLDER`. While one of these files is in the folder `FAULT_FOLDER`, a step
does what its name says, once: `hang`, `memory` (there is none), `die` (the engine's thread ends).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from qwen_allinone.bootstrap import build_app
from qwen_allinone.model.qwen2 import Qwen2

_FOLDER = Path(os.environ["FAULT_FOLDER"])
_STEP_S = float(os.environ.get("FAULT_STEP_S", "0"))
_forward = Qwen2.forward


def _faulty(self: Qwen2, *args: Any) -> Any:
    time.sleep(_STEP_S + 0.5 * (_FOLDER / "slow").exists())
    if (_FOLDER / "hang").exists():
        (_FOLDER / "hang").unlink()
        time.sleep(3600)
    if (_FOLDER / "memory").exists():
        (_FOLDER / "memory").unlink()
        raise MemoryError
    if (_FOLDER / "die").exists():
        (_FOLDER / "die").unlink()
        sys.exit()
    return _forward(self, *args)


Qwen2.forward = _faulty  # type: ignore[method-assign]
app = build_app()
