"""POST /v1/adapters/reload: the service takes adapters and prompts as they are now, without a restart."""

from __future__ import annotations

from collections.abc import Callable, Collection

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.errors import ReloadForbidden, ReloadRefused, TaskFileError
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.request_state import state
from qwen_allinone.wording import message_of

# Given the version in force, has the service take what is there now; returns the version of that. Raises ReloadOff, and
# TaskFileError where something there is at fault.
AskToReload = Callable[[str], str]


class Reloading(BaseModel):
    """What was asked for, and whether there was anything to do."""

    prompt_version: str = Field(description="Of the files as they are now; X-Prompt-Version once they are in force")
    in_force: bool = Field(description="They are in force already: nothing was done")


def register(app: OpenAPI, version: str, admins: Collection[str], ask_to_reload: AskToReload) -> None:
    """Add the route, for callers that are `admins`. `version`: of the prompts that this worker has."""

    @app.post(
        "/v1/adapters/reload",
        summary="不重启就换上改过的适配器和提示词",
        responses={
            200: Reloading,
            202: Reloading,
            **error_responses(NestedErrorBody, 403, 404, 409, 500),
        },
    )
    def reload_adapters() -> tuple[Response, int]:
        if state.caller is None or state.caller not in admins:
            raise ReloadForbidden()
        try:
            now = ask_to_reload(version)
        except TaskFileError as error:
            raise ReloadRefused(message_of(error)) from None
        answer = Reloading(prompt_version=now, in_force=now == version)
        return jsonify(answer.model_dump()), 200 if answer.in_force else 202
