"""The files in deploy/ fit their formats, the service's settings and each other."""

from __future__ import annotations

import copy
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from qwen_allinone.settings import Settings
from tests.support.kubernetes import VERSIONS, manifests
from tests.support.nginx import DEPLOY, proxy_settings, rendered

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
RESOURCES = manifests()
DEPLOYMENT = RESOURCES["Deployment/qwen-allinone"]
CONFIG = RESOURCES["ConfigMap/qwen-allinone"]["data"]
UNIT = (DEPLOY / "qwen-allinone.service").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOY.parent / "Dockerfile").read_text(encoding="utf-8")
WEIGHTS_GB = {"fp32": 1.9, "fp16": 0.93, "int8": 0.5}


def example() -> dict[str, str]:
    text = (DEPLOY / "example.env").read_text(encoding="utf-8")
    return dict(word.split("=", 1) for word in shlex.split(text, comments=True))


def gigabytes(settings: Settings) -> float:
    """What docs/operations.md says that Qwen1.5-0.5B takes with these settings."""
    return settings.workers * (WEIGHTS_GB[settings.weights] + settings.kv_tokens * 192 * 1024 / 1e9 + 0.5)


def graceful_timeout(settings: Settings) -> float:
    """As in gunicorn.conf.py."""
    return int(settings.deadline_s) + 5


def unit(key: str) -> str:
    """The value of a key of the systemd unit that is there once."""
    (value,) = re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod specification of the Kubernetes files with each of its containers."""
    for resource in RESOURCES.values():
        pod = resource.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", []):
            yield pod, container


# ---- Formats ----


def check_compose(document: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "compose.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_compose_yaml_is_a_compose_file(tmp_path: Path) -> None:
    done = check_compose(COMPOSE, tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("service", list(COMPOSE["services"]))
def test_a_typo_in_compose_yaml_would_be_found(service: str, tmp_path: Path) -> None:
    broken = copy.deepcopy(COMPOSE)
    broken["services"][service]["read_onyl"] = broken["services"][service].pop("read_only")
    done = check_compose(broken, tmp_path)
    assert done.returncode != 0 and "read_onyl" in done.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", list(RESOURCES))
def test_a_kubernetes_resource_has_known_keys_of_the_right_type_only(name: str, version: str) -> None:
    kubernetes_validate.validate(RESOURCES[name], version, strict=True)


TYPOS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Deployment/qwen-allinone": lambda d: d["spec"]["template"]["spec"]["containers"][0].update(readynessProbe={}),
    "Job/qwen-allinone-download": lambda d: d["spec"].update(backofLimit=1),
    "Service/qwen-allinone": lambda d: d["spec"]["ports"][0].update(port="80"),
    "HorizontalPodAutoscaler/qwen-allinone": lambda d: d["spec"].update(minReplica=2),
    "PodDisruptionBudget/qwen-allinone": lambda d: d["spec"].update(minimumAvailable=1),
    "NetworkPolicy/qwen-allinone": lambda d: d["spec"]["egress"][0].update(port=[]),
    "PersistentVolumeClaim/qwen-allinone-models": lambda d: d["spec"].update(accessModes="ReadWriteMany"),
    "ConfigMap/qwen-allinone": lambda d: d["data"].update(QAIO_WORKERS=1),
}


@pytest.mark.parametrize("name", list(RESOURCES))
def test_a_typo_in_a_kubernetes_resource_would_be_found(name: str) -> None:
    broken = copy.deepcopy(RESOURCES[name])
    TYPOS[name](broken)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


# ---- Settings ----


@pytest.mark.parametrize("given", [example(), CONFIG], ids=["example.env", "config.yaml"])
def test_settings_in_deploy_are_ones_the_service_takes(given: dict[str, str]) -> None:
    settings = Settings.load(given)
    assert settings.weights == "fp16"


def test_nginx_is_given_a_value_for_each_name_it_asks_for_and_no_other() -> None:
    asked = re.findall(r"\$\{(PROXY_[A-Z_]+)\}", (DEPLOY / "nginx.conf.template").read_text(encoding="utf-8"))
    assert set(asked) == set(proxy_settings())


def test_the_command_in_the_template_fills_it_in(tmp_path: Path) -> None:
    if shutil.which("envsubst") is None:
        pytest.skip("envsubst is not installed (Debian: apt-get install gettext-base)")
    template = (DEPLOY / "nginx.conf.template").read_text(encoding="utf-8")
    command = "\n".join(line.removeprefix("#   ") for line in template.splitlines() if line.startswith("#   "))
    target = tmp_path / "nginx.conf"
    command = command.replace("/etc/nginx/nginx.conf", shlex.quote(str(target)))
    subprocess.run(["sh", "-eu", "-c", command], cwd=DEPLOY.parent, check=True)
    assert target.read_text(encoding="utf-8") == rendered()


def test_nginx_keeps_to_the_service_s_limits() -> None:
    settings = Settings.load(example())
    assert int(proxy_settings()["PROXY_MAX_BODY_BYTES"]) == settings.max_body_bytes
    assert int(proxy_settings()["PROXY_MAX_FILE_BYTES"]) == settings.batch_file_mb * 1_000_000 + 65_536
    assert int(proxy_settings()["PROXY_READ_TIMEOUT_S"]) > graceful_timeout(settings)


def test_every_place_waits_longer_for_a_stop_than_gunicorn_does() -> None:
    for settings in (Settings.load(example()), Settings.load(CONFIG), Settings()):
        grace = graceful_timeout(settings)
        assert int(COMPOSE["services"]["qwen"]["stop_grace_period"].removesuffix("s")) > grace
        assert int(COMPOSE["services"]["nginx"]["stop_grace_period"].removesuffix("s")) > grace
        assert int(unit("TimeoutStopSec")) > grace
        pod = DEPLOYMENT["spec"]["template"]["spec"]
        pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
        assert pod["terminationGracePeriodSeconds"] > pause + grace


def compose_gb(name: str, setting: str) -> float:
    return int(COMPOSE["services"][name][setting].removesuffix("m")) * 1.0486e-3


def temporary_gb(name: str) -> float:
    """What may be in /tmp, which is memory."""
    (mount,) = COMPOSE["services"][name]["tmpfs"]
    return int(mount.rpartition("size=")[2].removesuffix("m")) * 1.0486e-3


@pytest.mark.parametrize("name", ["qwen", "nginx"])
def test_two_uploads_at_a_time_find_room(name: str) -> None:
    assert temporary_gb(name) > 2 * (Settings.load(example()).batch_file_mb + 1) / 1000 + 0.05
    assert compose_gb(name, "mem_limit") > temporary_gb(name) + 0.2


def test_memory_limits_hold_what_the_settings_take() -> None:
    compose, kubernetes = Settings.load(example()), Settings.load(CONFIG)
    assert gigabytes(compose) < compose_gb("qwen", "mem_limit") - temporary_gb("qwen")
    assert gigabytes(compose) < int(unit("MemoryMax").removesuffix("G")) * 1.073
    resources = DEPLOYMENT["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert gigabytes(kubernetes) < int(resources["limits"]["memory"].removesuffix("Gi")) * 1.073
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert int(resources["requests"]["cpu"]) == kubernetes.threads


# ---- Rights ----


@pytest.mark.parametrize("name", list(COMPOSE["services"]))
def test_a_compose_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True and service["init"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert {"mem_limit", "pids_limit", "healthcheck", "restart"} <= set(service)
    assert ":" in service["image"] or name == "qwen"  # a version, not whatever is newest


def test_only_nginx_is_reachable_from_outside() -> None:
    ports = {name: service.get("ports", []) for name, service in COMPOSE["services"].items()}
    assert all(port.startswith("127.0.0.1:") for name in ports if name != "nginx" for port in ports[name])
    assert COMPOSE["networks"][COMPOSE["services"]["valkey"]["networks"][0]]["internal"] is True


@pytest.mark.parametrize(("pod", "container"), list(containers()), ids=["deployment", "job"])
def test_a_pod_has_no_more_rights_than_it_needs(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True and security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/models", "/tmp"}
    assert "memory" in container["resources"]["limits"]


def test_the_images_folders_are_writable_for_any_user_of_group_0() -> None:
    """As OpenShift runs images: a number it picks for each project, and group 0."""
    assert "chown 10001:0 /models /data /keys" in DOCKERFILE
    modes = dict(reversed(pair.split()) for pair in re.findall(r"chmod (\d+ /\w+)", DOCKERFILE))
    assert modes.keys() == {"/models", "/data", "/keys"}
    for mode in modes.values():
        assert int(mode, 8) & 0o070 == 0o070


def test_what_the_image_writes_lies_on_volumes_under_compose() -> None:
    folders = {volume.split(":")[1] for volume in COMPOSE["services"]["qwen"]["volumes"]}
    written = re.findall(r"QAIO_\w+=(/\w+)/", DOCKERFILE)
    assert "/data" in written and set(written) <= folders


def test_the_command_that_makes_keys_is_in_the_image() -> None:
    """Compose's own steps call it by its name; the package is not installed there."""
    steps = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert "qwen qwen-allinone keys new" in steps and "> /usr/local/bin/qwen-allinone" in DOCKERFILE


def test_what_another_stage_made_is_copied_within_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEPLOY))
    build = importlib.import_module("dockerfile_in_chroot").Image(tmp_path, {})
    build.workdir = "/app"
    (tmp_path / "made.so").write_text("native")
    build.carry_out("COPY", "--from=native /made.so ./package/")
    assert (tmp_path / "app/package/made.so").read_text() == "native"


def test_nobody_is_let_in_without_a_key_where_other_machines_can_reach_the_service() -> None:
    compose = {**example(), **COMPOSE["services"]["qwen"]["environment"]}
    assert f"{Path(compose['QAIO_API_KEYS_FILE']).parent}" in [
        volume.split(":")[1] for volume in COMPOSE["services"]["qwen"]["volumes"]
    ]
    pod = DEPLOYMENT["spec"]["template"]["spec"]
    (keys,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "keys"]
    assert str(Path(CONFIG["QAIO_API_KEYS_FILE"]).parent) == keys["mountPath"]
    (secret,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "keys"]
    assert not secret.get("optional"), "a pod without keys would let everybody in"
    for given in (compose, CONFIG):
        settings = Settings.load(given)
        assert settings.api_keys_file and settings.rate_requests and settings.rate_tokens and settings.trusted_proxies


def test_health_checks_follow_the_settings_and_go_through_no_proxy() -> None:
    check = ["python", "-m", "qwen_allinone.serving.health"]
    assert json.dumps(check) in DOCKERFILE.split("HEALTHCHECK")[1]
    assert COMPOSE["services"]["qwen"]["healthcheck"]["test"] == ["CMD", *check]
    assert "--noproxy" in COMPOSE["services"]["nginx"]["healthcheck"]["test"]


def test_the_image_runs_as_the_user_the_others_name() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == [COMPOSE["services"]["qwen"]["user"]]


# ---- Names ----


def test_kubernetes_resources_mean_the_same_pods() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert RESOURCES["Service/qwen-allinone"]["spec"]["selector"] == labels
    assert RESOURCES["PodDisruptionBudget/qwen-allinone"]["spec"]["selector"]["matchLabels"] == labels
    assert RESOURCES["NetworkPolicy/qwen-allinone"]["spec"]["podSelector"]["matchLabels"] == labels
    target = RESOURCES["HorizontalPodAutoscaler/qwen-allinone"]["spec"]["scaleTargetRef"]
    assert f"{target['kind']}/{target['name']}" in RESOURCES
    download = RESOURCES["Job/qwen-allinone-download"]["spec"]["template"]["metadata"]["labels"]
    assert download.items() != labels.items()  # else it would be served to, and cut off from the hub


def test_the_job_downloads_the_revision_that_pods_will_look_for(monkeypatch: pytest.MonkeyPatch) -> None:
    python, option, program = RESOURCES["Job/qwen-allinone-download"]["spec"]["template"]["spec"]["containers"][0][
        "command"
    ]
    assert (python, option) == ("python", "-c")
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr("qwen_allinone.model.checkpoint.find", lambda name, revision: asked.append((name, revision)))
    for given in (CONFIG, CONFIG | {"QAIO_MODEL_REVISION": "0123abc"}):
        monkeypatch.delenv("QAIO_MODEL_REVISION", raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        exec(program, {})
        settings = Settings.load(given)
        assert asked.pop() == (settings.model, settings.model_revision)


def test_what_pods_refer_to_is_there() -> None:
    for pod, container in containers():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
        assert f"PersistentVolumeClaim/{claim}" in RESOURCES
        for source in container["envFrom"]:
            assert (
                source.get("secretRef", {}).get("optional")
                or f"ConfigMap/{source['configMapRef']['name']}" in RESOURCES
            )
    ports = {port["name"] for port in DEPLOYMENT["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in RESOURCES["Service/qwen-allinone"]["spec"]["ports"]} <= ports
