"""Writes what settings may be into the chart's values.schema.json, so that Helm refuses what no pod would start with.

    python deploy/helm/settings_schema.py        # after a change of qwen_allinone/settings.py

What settings say of each other (`QAIO_KV_TOKENS` of `QAIO_CONTEXT`), and the inner form of lists and addresses, is left
to the service.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).with_name("qwen-allinone") / "values.schema.json"
sys.path.insert(0, str(SCHEMA.parents[3]))

from qwen_allinone.settings import PREFIX, Settings  # noqa: E402
from qwen_allinone.wording.of_settings import OF_SETTINGS  # noqa: E402

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "minLength")
# Of libraries within the service, which check them themselves.
OTHERS = {"^(HF|OTEL)_[A-Z0-9_]+$": {"type": ["string", "number", "boolean", "null"]}}


def of_setting(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """The schema of one setting as somebody writes it in values.yaml, from that of its field in `Settings`.

    Lists, addresses and paths are written as text. `null` takes a default of values.yaml away.
    """
    _, meaning = OF_SETTINGS[name]
    kind = next((choice for choice in field.get("anyOf", ()) if choice["type"] != "null"), field)
    if "enum" in kind:
        return {"description": meaning, "enum": [*kind["enum"], None]}
    plain = kind["type"] if kind["type"] in ("integer", "number", "boolean") else "string"
    bounds = {bound: kind[bound] for bound in BOUNDS if bound in kind}
    return {"description": meaning, "type": [plain, "null"], **bounds}


def lines() -> str:
    """The part of the file under `settings`, a setting on each line."""
    fields = Settings.model_json_schema()["properties"].items()
    settings = [f'"{PREFIX}{name.upper()}": {json.dumps(of_setting(name, field))}' for name, field in fields]
    return "\n".join(
        [
            "{",
            '      "type": "object",',
            '      "additionalProperties": false,',
            f'      "patternProperties": {json.dumps(OTHERS)},',
            '      "properties": {',
            ",\n".join(f"        {setting}" for setting in settings),
            "      }",
            "    }",
        ]
    )


def written(text: str) -> str:
    """`text`, that of values.schema.json, with the settings of today."""
    new, count = re.subn(r'(?<=^    "settings": ).*?(?=,\n    "service":)', lambda _: lines(), text, flags=re.M | re.S)
    if count != 1:
        raise SystemExit(f'{SCHEMA}: "settings" must stand between four spaces and "service"')
    return new


if __name__ == "__main__":
    SCHEMA.write_text(written(SCHEMA.read_text(encoding="utf-8")), encoding="utf-8")
