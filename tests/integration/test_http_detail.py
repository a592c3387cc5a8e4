"""`"detail": true`: how an answer came about, and nothing else changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.cli.result_files import write_calibration
from qwen_allinone.tasks import Calibration, Quality
from tests.integration.conftest import Server, StartServer
from tests.support.events import read_events, without_pings
from tests.support.tasks import write_prompts

TEXT = "今天心情特别差，工作也不顺利"
KEYS = ["usage", "timings", "model", "prompt_version", "finish_reason"]


def task(server: Server, text: str = TEXT, name: str = "sentiment", **more: Any) -> dict[str, Any]:
    answer = server.client.post(f"/v1/tasks/{name}", json={"text": text} | more, headers={"Cache-Control": "no-store"})
    assert answer.status_code == 200, answer.get_json()
    return dict(answer.get_json())


def assert_is_detail(detail: dict[str, Any]) -> None:
    usage, timings = detail["usage"], detail["timings"]
    assert list(usage) == ["prompt_tokens", "completion_tokens", "total_tokens", "reused_tokens"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert 0 <= usage["reused_tokens"] <= usage["prompt_tokens"]
    assert list(timings) == ["queue_ms", "prefill_ms", "decode_ms"]
    assert all(isinstance(value, float) and 0 <= value < 60_000 for value in timings.values())
    assert re.fullmatch(r"demo@[0-9a-f]{12}:fp32", detail["model"])
    assert re.fullmatch(r"[0-9a-f]{12}", detail["prompt_version"])


def test_a_label_has_a_probability_for_each_label(server: Server) -> None:
    body = task(server, detail=True)
    assert list(body) == ["task", "label", "detail"]
    detail = body["detail"]
    assert list(detail) == ["probabilities", "label_mass", *KEYS] and detail["finish_reason"] == "label"
    assert_is_detail(detail)
    shares = detail["probabilities"]
    assert list(shares) == ["正面", "负面"] and sum(shares.values()) == pytest.approx(1.0)
    assert body["label"] == max(shares, key=shares.__getitem__)
    assert detail["usage"]["completion_tokens"] == 1


def test_the_vocabulary_is_read_for_detail_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins a label is weighed against all else: once a request, and for nobody who did not ask for it."""
    model: Any = server.service.engine.model
    read, logits = list[int](), model.logits
    monkeypatch.setattr(model, "logits", lambda hidden: read.append(len(hidden)) or logits(hidden))
    plain = task(server)
    assert read == []
    with_detail = task(server, detail=True)
    assert read == [1] and plain["label"] == with_detail["label"]
    assert 0.0 < with_detail["detail"]["label_mass"] <= 1.0


def test_what_fits_no_label_shows(start_server: StartServer, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A model that knows nothing says anything: its labels are a small part of that, however sure it is of one."""
    known = task(start_server(QAIO_FIT="off"), detail=True)["detail"]["label_mass"]
    settings = {"QAIO_MODEL": str(tiny_checkpoint), "QAIO_PROMPTS": str(write_prompts(tmp_path / "prompts"))}
    tiny = start_server(**settings, QAIO_CONTEXT="256", QAIO_FIT="off")
    assert task(tiny, detail=True)["detail"]["label_mass"] < 0.2 < known


def test_an_answer_remembered_without_it_is_weighed_when_asked(start_server: StartServer) -> None:
    server = start_server()
    body = {"text": TEXT}
    assert server.post("/v1/tasks/sentiment", body).headers["X-Cache"] == "MISS"
    first = server.post("/v1/tasks/sentiment", body | {"detail": True})
    again = server.post("/v1/tasks/sentiment", body | {"detail": True})
    assert (first.headers["X-Cache"], again.headers["X-Cache"]) == ("MISS", "HIT")
    assert first.get_json()["detail"]["label_mass"] == again.get_json()["detail"]["label_mass"] > 0
    assert "detail" not in server.post("/v1/tasks/sentiment", body).get_json()


def test_free_text_has_no_probabilities(server: Server) -> None:
    detail = task(server, name="chat", sentiment="负面", detail=True)["detail"]
    assert list(detail) == KEYS and detail["finish_reason"] in ("stop", "length")
    assert_is_detail(detail)


def test_a_chat_has_both_halves(server: Server) -> None:
    body = server.post("/chat", {"text": TEXT, "detail": True}).get_json()
    assert list(body) == ["sentiment", "response", "detail"]
    assert list(body["detail"]) == ["sentiment", "response"]
    for half in body["detail"].values():
        assert_is_detail(half)
    assert "probabilities" in body["detail"]["sentiment"] and "probabilities" not in body["detail"]["response"]
    assert body["detail"]["response"]["told"] in (body["sentiment"], "平静")
    versions = {half["prompt_version"] for half in body["detail"].values()}
    assert len(versions) == 2


def test_a_stream_has_both_halves_at_its_end(server: Server) -> None:
    answer = server.client.post("/chat", json={"text": TEXT, "detail": True, "stream": True}, buffered=False)
    found = without_pings(read_events(answer.iter_encoded()))
    answer.close()
    assert list(found[-1].data) == ["finish_reason", "usage", "timings", "detail"]
    for half in found[-1].data["detail"].values():
        assert_is_detail(half)


@pytest.mark.parametrize("more", [{}, {"detail": False}])
def test_without_it_answers_are_as_they_were(server: Server, more: dict[str, Any]) -> None:
    assert list(task(server, **more)) == ["task", "label"]
    assert list(task(server, name="chat", sentiment="负面", **more)) == ["task", "text"]
    assert list(server.post("/chat", {"text": TEXT} | more).get_json()) == ["sentiment", "response"]


@pytest.mark.parametrize("path", ["/chat", "/v1/tasks/sentiment"])
@pytest.mark.parametrize("value", ["true", 1, None, [], {}])
def test_what_is_not_true_or_false_is_a_400(server: Server, path: str, value: object) -> None:
    answer = server.post(path, {"text": TEXT, "detail": value})
    assert answer.status_code == 400
    assert "detail 必须是 true 或 false" in answer.get_data(as_text=True)


def copied(prompts_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prompts_folder, tmp_path / "prompts"))


def fitted(server: Server, temperature: float = 4.0, **other: str) -> Calibration:
    return Calibration(
        temperature=temperature,
        model=other.get("model", server.service.codec.model_id.rpartition("@")[2]),
        prompt=other.get("prompt", server.service.registry.get("sentiment").prompt_hash),
        data="0" * 64,
        rows=100,
        date="2026-01-01",
        before=Quality(accuracy=0.7, ece=0.2),
        after=Quality(accuracy=0.7, ece=0.02),
    )


def test_a_calibration_softens_the_probabilities_and_leaves_the_labels(
    server: Server, start_server: StartServer, prompts_folder: Path, tmp_path: Path
) -> None:
    prompts = copied(prompts_folder, tmp_path)
    write_calibration(prompts / "sentiment", fitted(server))
    warm = start_server(QAIO_PROMPTS=str(prompts))
    for text in (TEXT, "我升职了，今天好开心！", "房间很小，隔音也差", "还行吧"):
        before, after = task(server, text, detail=True), task(warm, text, detail=True)
        assert before["label"] == after["label"]
        assert before["detail"]["prompt_version"] != after["detail"]["prompt_version"]
        sure, less = (max(body["detail"]["probabilities"].values()) for body in (before, after))
        odds = (sure / (1 - sure)) ** 0.25
        assert less == pytest.approx(odds / (1 + odds), abs=1e-3)


@pytest.mark.parametrize("other", [{"model": "0" * 12 + ":fp32"}, {"prompt": "0" * 12}])
def test_a_calibration_of_another_model_or_prompt_is_not_used_and_told_of(
    server: Server,
    start_server: StartServer,
    prompts_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    other: dict[str, str],
) -> None:
    prompts = copied(prompts_folder, tmp_path)
    write_calibration(prompts / "sentiment", fitted(server, **other))
    cold = start_server(QAIO_PROMPTS=str(prompts))
    (warning,) = [record.getMessage() for record in caplog.records if "calibration.yaml" in record.getMessage()]
    assert warning.startswith("sentiment: calibration.yaml is not used") and next(iter(other)) in warning
    one, same = (task(each, detail=True)["detail"]["probabilities"] for each in (server, cold))
    assert one == pytest.approx(same, abs=1e-5)


def test_what_the_prompt_prefers_is_taken_out(
    server: Server, start_server: StartServer, prompts_folder: Path, tmp_path: Path
) -> None:
    """Empty contents, judged as any text, give the prior; the answers are then what the reference says."""
    prompts = copied(prompts_folder, tmp_path)
    file = prompts / "sentiment" / "prompt.md"
    plain = file.read_text("utf-8")
    # As the model reads them: no cleaning, and nothing refused for being empty.
    file.write_text(plain.replace("kind: label", "kind: label\n  contextual: true"), "utf-8")
    contextual = start_server(QAIO_PROMPTS=str(prompts))
    prior = contextual.service.codec.tasks["sentiment"].prior
    assert prior is not None
    known = [task(server, word, detail=True)["detail"]["probabilities"]["正面"] for word in ("N/A", "无")]
    # The third content is empty, which no request can be; it can only add what a probability may be.
    assert sum(known) / 3 - 1e-4 <= prior[0] <= (sum(known) + 1) / 3 + 1e-4
    changed = 0
    for text in (TEXT, "我升职了，今天好开心！", "还行吧", "嗯"):
        before, after = task(server, text, detail=True), task(contextual, text, detail=True)
        p = before["detail"]["probabilities"]
        odds = (p["正面"] / prior[0]) / (p["负面"] / prior[1])
        assert after["detail"]["probabilities"]["正面"] == pytest.approx(odds / (1 + odds), abs=1e-3)
        assert after["label"] == ("正面" if odds > 1 else "负面")
        changed += before["label"] != after["label"]
    assert "contextual" not in plain
