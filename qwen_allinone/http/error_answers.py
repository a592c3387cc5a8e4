"""One table from errors to answers. Under /v1 they are nested, elsewhere flat; nothing internal is told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, NoReturn

from flask import Response, current_app, jsonify, request
from flask_openapi import OpenAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from qwen_allinone.did_you_mean import names_within, nearest
from qwen_allinone.error_body import error_body
from qwen_allinone.errors import EmptyInput, InvalidInput, RequestError, ServiceError
from qwen_allinone.http.body import Body, field_name
from qwen_allinone.http.request_state import state
from qwen_allinone.wording import Language, in_language, of_header, said

log = logging.getLogger(__name__)

# Where an app has, by a body's title, what to say of fields that this body does not take and others do.
FIELDS_OF_OTHERS = "fields_of_others"
# Type of the complaints of our own validators, whose message goes on after the field's name.
SAID = "said"
# Prefix of the discriminator tags of unions, which pydantic puts into the place of an error; they are no fields.
TAG = "type="
# Messages of the catalogue for pydantic's complaints; what these fill in is what it tells with them.
_COMPLAINTS = {
    "string_type": "must_be_string",
    "string_too_short": "min_characters",
    "string_too_long": "max_characters",
    "bool_type": "must_be_bool",
    "int_type": "must_be_integer",
    "float_type": "must_be_number",
    "list_type": "must_be_list",
    "tuple_type": "must_be_list",
    "model_type": "must_be_object",
    "model_attributes_type": "must_be_object",
    "literal_error": "only",
    "union_tag_invalid": "only_type",
    "union_tag_not_found": "needs_type",
    "too_short": "min_items",
    "too_long": "max_items",
    "greater_than": "more_than",
    "greater_than_equal": "at_least",
    "less_than": "less_than",
    "less_than_equal": "at_most",
}


class _DescribedOnce(BaseModel):
    """Its JSON schema is made once: it stands in the OpenAPI document under most answers of most routes."""

    @classmethod
    @cache
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return super().model_json_schema(*args, **kwargs)


class ErrorBody(_DescribedOnce):
    """An error outside /v1."""

    model_config = ConfigDict(title="Error")

    error: str = Field(description="What is wrong and what to do")
    code: str = Field(description="Machine-readable reason")


class ErrorDetail(BaseModel):
    """What went wrong, for a program."""

    message: str
    type: str
    param: str | None
    code: str


class NestedErrorBody(_DescribedOnce):
    """An error under /v1."""

    model_config = ConfigDict(title="NestedError")

    error: ErrorDetail


def error_responses(model: type[BaseModel], *statuses: int) -> dict[str | int | HTTPStatus, Any]:
    """The error answers of a route, for the OpenAPI document."""
    return dict.fromkeys(statuses, model)


def register(app: OpenAPI) -> None:
    """Answer every error of every route in the contract's shape."""
    app.register_error_handler(RequestError, _request_error)
    app.register_error_handler(ServiceError, _service_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)


def raise_invalid(error: ValidationError) -> NoReturn:
    """Turn pydantic's first complaint into one in the users' language; what is not supported is named first."""
    details = error.errors(include_url=False, include_input=False)
    detail = min(details, key=lambda found: found["type"] != "extra_forbidden")
    field, kind = _named(detail["loc"]), detail["type"]
    if kind == "missing" and field == "text":
        raise EmptyInput(param=field)
    if kind == "missing":
        raise InvalidInput(_missing(field, detail["loc"], error.title), param=field)
    if kind == "extra_forbidden":
        missing = [found["loc"] for found in details if found["type"] == "missing"]
        advice = _instead_of(detail["loc"], error.title, missing)
        raise InvalidInput(said("field_unknown", field=field, advice=advice), param=field)
    if kind == SAID:
        raise InvalidInput(said("of_field", field=field, complaint=detail["ctx"]["message"]), param=field)
    told = {name: _told(value) for name, value in detail.get("ctx", {}).items()}
    complaint = said(_COMPLAINTS.get(kind, "value_wrong"), **told)
    raise InvalidInput(said("of_field", field=field, complaint=complaint), param=field)


def _missing(field: str | None, place: Sequence[int | str], title: str) -> str:
    """That the body called `title` lacks a field, and what to write there if only one value is taken."""
    only = _only_value(title, place[0]) if len(place) == 1 else None
    return said("field_missing", field=field) if only is None else said("field_must_be", field=field, only=repr(only))


def _instead_of(unknown: tuple[int | str, ...], title: str, missing: Sequence[tuple[int | str, ...]]) -> str:
    """What to write instead of a field that the body called `title` does not take, as far as can be told.

    `missing`: the places of required fields that are not there; what was to go into one of them may have another name.
    """
    name = str(unknown[-1])
    meant = nearest(name, _fields(title))
    if meant and meant != name:  # the same name: a field of what the body holds, in the wrong place
        return said("meant_field", meant=meant)
    lacking = [_named(place) for place in missing if place[:-1] == unknown[:-1]]
    if lacking:
        return said("needs_fields", fields=lacking)
    told: str | None = current_app.extensions.get(FIELDS_OF_OTHERS, {}).get(title, {}).get(name)
    return told or said("see_docs")


def _told(value: Any) -> Any:
    """What pydantic tells with a complaint: its lists of what may be end with an English "or"."""
    if not isinstance(value, str):
        return value
    one, _, other = value.replace(TAG, "").rpartition(" or ")
    return said("either", one=one, other=other) if one else other


def tag_of_type(value: Any) -> str | None:
    """For unions of bodies that their field `type` tells apart."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"{TAG}{kind}" if isinstance(kind, str) else None


@cache
def _fields(title: str) -> frozenset[str]:
    """The fields of the body called `title`, and of what it holds; none if no body is called so."""
    return frozenset(name for model in _bodies(title) for name in names_within(model.model_json_schema()))


@cache
def _only_value(title: str, name: int | str) -> Any:
    """What a field of the body called `title` has to be, if it takes one value alone; None if it takes more."""
    values = {model.model_json_schema().get("properties", {}).get(name, {}).get("const") for model in _bodies(title)}
    return values.pop() if len(values) == 1 else None


@cache
def _bodies(title: str) -> tuple[type[Body], ...]:
    """All bodies called `title`: one, unless several tasks have theirs made alike."""
    waiting, found = [Body], list[type[Body]]()
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        found += [model] if model.__name__ == title else []
    return tuple(found)


def _named(place: Sequence[int | str]) -> str | None:
    """The field that pydantic complains of, without the tags that it puts between."""
    return field_name([part for part in place if isinstance(part, int) or not part.startswith(TAG)]) or None


def describe(error: Exception) -> dict[str, Any]:
    """The body that an answer to `error` has, for where the status has been sent already."""
    if isinstance(error, RequestError):
        return _body(error.status, error.message, error.code, error.param)
    if isinstance(error, ServiceError):
        return _body(error.status, error.message, error.code)
    log.error("unexpected error in %s", request.endpoint, exc_info=error)
    return _body(500, ServiceError.message, ServiceError.code)


def _language() -> Language | None:
    """What the request in hand prefers; None: it does not say, and is told in Chinese."""
    return of_header(request.headers.get("Accept-Language", ""))


def in_asked_language(message: str) -> str:
    """A message of the catalogue as the request in hand prefers it."""
    return in_language(message, _language())


def _body(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    state.errors.append(code)
    return error_body(request.path, status, in_asked_language(message), code, param)


def _answer(status: int, message: str, code: str, param: str | None = None) -> Response:
    response = jsonify(_body(status, message, code, param))
    response.status_code = status
    return response


def _request_error(error: RequestError) -> Response:
    response = _answer(error.status, error.message, error.code, error.param)
    response.headers.update(error.headers)
    return response


def _service_error(error: ServiceError) -> Response:
    response = _answer(error.status, error.message, error.code)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _http_error(error: HTTPException) -> Response:
    """Werkzeug's own errors, with their headers (Allow) and our words; redirects pass."""
    if error.code is None or error.code < 400:
        return Response(error.get_body(), error.code or 500, error.get_headers())
    code, message = _code_and_message(error)
    response = _answer(error.code, message, code)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _code_and_message(error: HTTPException) -> tuple[str, str]:
    if isinstance(error, NotFound):
        return "not_found", said("no_address", asked=_address_meant(request.path))
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return "method_not_allowed", said("no_method", methods=sorted(error.valid_methods))
    if isinstance(error, RequestEntityTooLarge):
        return "payload_too_large", said("body_large")
    status = HTTPStatus(error.code or 500)
    return status.name.lower(), status.phrase


def _address_meant(path: str) -> str:
    """ "did you mean X?" for a path at which there is nothing, or an empty text.

    /v1 is not compared: people forget it, write it twice, or where there is none.
    """
    rules = [rule.rule for rule in current_app.url_map.iter_rules() if not rule.arguments]
    known = {rule.removeprefix("/v1"): rule for rule in rules if rule != "/"}
    meant = nearest(path.removeprefix("/v1"), known)
    return said("is_it", meant=known[meant]) if meant else ""


def _unexpected(error: Exception) -> Response:
    response = jsonify(describe(error))
    response.status_code = 500
    return response


def document_errors(spec: dict[str, Any]) -> dict[str, Any]:
    """Take out what the library adds to every route for its own validation errors; ours declare what they answer."""
    for operations in spec["paths"].values():
        for operation in operations.values():
            if "requestBody" not in operation:
                operation["responses"].pop("400", None)
    spec["components"]["schemas"].pop(ErrorBody.__name__, None)
    return spec
