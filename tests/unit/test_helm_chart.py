"""The chart in deploy/helm gives what deploy/kubernetes gives, does what its values say, and refuses what no pod would start with.

By real Helm, of each major version that is found; without one what needs it is skipped.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from qwen_allinone import __version__
from qwen_allinone.settings import Settings
from tests.support.kubernetes import CHART, VERSIONS, WHY_NO_HELM, Resources, by_name, helms, manifests, run_helm

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = (CHART / "values.schema.json").read_text(encoding="utf-8")
# What tells releases apart and changes with what is in them: the manifests are one release and have none of it.
ADDED = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
    "checksum/settings",
}
COLLECTOR = {"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"protocol": "TCP", "port": 4318}]}
DOCUMENTED = re.search(
    r"^# mine.yaml\n(.*?)^```", (CHART.parents[2] / "docs/operations.md").read_text("utf-8"), re.M | re.S
)
assert DOCUMENTED is not None
# Values files that people may have.
FILES: dict[str, dict[str, Any]] = {
    "none": {},
    "docs/operations.md's": yaml.safe_load(DOCUMENTED[1]),
    "one pod with the demo model": {
        "model": {"name": "demo", "volume": {"enabled": False}},
        "autoscaling": {"enabled": False},
        "disruptionBudget": {"enabled": False},
        "replicas": 1,
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
        "settings": {"QAIO_THREADS": 1, "QAIO_WEIGHTS": "fp32", "QAIO_TRUSTED_PROXIES": None},
    },
    "large, with its databases": {
        "fullnameOverride": "llm",
        "image": {"repository": "registry.example.com:5000/ml/qwen-allinone", "tag": "0.2.0", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "model": {
            "name": "Qwen/Qwen1.5-1.8B",
            "volume": {"size": "20Gi", "storageClass": "nfs"},
            "download": {"resources": {"limits": {"memory": "2Gi"}}},
        },
        "autoscaling": {"min": 3, "max": 20, "waiting": "500m"},
        "resources": {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "8Gi"}},
        "keys": {"existingSecret": "llm-callers"},
        "tokensSecret": "hub",
        "redis": {"existingSecret": "valkey", "key": "uri", "podLabels": {"app": "redis"}, "port": 6380},
        "postgresql": {"existingSecret": "pg", "key": "uri", "port": 5433},
        "ingress": {"enabled": True, "className": "nginx", "host": "llm.example.com", "tlsSecret": "llm-tls"},
        "networkPolicy": {"namespaces": ["ingress", "1234"], "extraEgress": [COLLECTOR]},
        "settings": {
            "QAIO_MODEL_REVISION": "0123abc",
            "QAIO_THREADS": 4,
            "QAIO_DEADLINE_S": 300,
            "QAIO_RATE_TOKENS": 100_000_000,
            "QAIO_PROMPTS_MAY_LOSE": 0.125,
            "QAIO_MEMORY": True,
            "QAIO_FIT": "off",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://192.0.2.7:4318",
        },
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "llm", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"podAntiAffinity": {}},
        "extraVolumes": [{"name": "alerts", "configMap": {"name": "alerts"}}],
        "extraVolumeMounts": [{"name": "alerts", "mountPath": "/alerts", "readOnly": True}],
    },
    "OpenShift, no keys, a claim of its own": {
        "keys": {"enabled": False},
        "model": {"volume": {"existingClaim": "models"}, "download": {"enabled": False}},
        "networkPolicy": {"dns": {"namespace": "openshift-dns", "podLabels": {"dns.operator.openshift.io/daemonset-dns": "default"}}},
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
    },
    "open inside the cluster": {"networkPolicy": {"enabled": False}, "settings": {"QAIO_GRACE_S": 7.5}},
}  # fmt: skip


@pytest.fixture(params=helms() or [None], ids=lambda helm: Path(helm).name if helm else "helm")
def helm(request: pytest.FixtureRequest) -> str:
    """Path of the program; each version that is there in turn."""
    if request.param is None:
        pytest.skip(WHY_NO_HELM)
    return str(request.param)


@cache
def _rendered(helm: str, values: str, release: str, options: tuple[str, ...]) -> str:
    done = run_helm(helm, "template", *options, release, values=json.loads(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(helm: str, values: dict[str, Any], release: str = "qwen-allinone", *options: str) -> Resources:
    """What `helm template` makes of the chart, with the job under a name without its hash."""
    found = by_name(_rendered(helm, json.dumps(values), release, options))
    return {re.sub(r"(-download)-[0-9a-f]{8}$", r"\1", name): resource for name, resource in found.items()}


def refused(helm: str, values: dict[str, Any]) -> str:
    """What Helm says of values that it does not take."""
    done = run_helm(helm, "template", "qwen-allinone", values=values)
    assert done.returncode != 0 and not done.stdout, done.stdout
    return done.stderr


def plain(found: Any) -> Any:
    """`found` without what only a chart has."""
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items() if key not in ADDED}
    return [plain(value) for value in found] if isinstance(found, list) else found


def pods(resources: Resources) -> Iterator[dict[str, Any]]:
    """The specification of the pods of each resource that makes some."""
    for resource in resources.values():
        if resource["kind"] in ("Deployment", "Job"):
            yield resource["spec"]["template"]["spec"]


def only(resources: Resources, kind: str) -> dict[str, Any]:
    """The one resource of that kind."""
    (found,) = [resource for resource in resources.values() if resource["kind"] == kind]
    return found


def server(resources: Resources) -> dict[str, Any]:
    """The container that serves."""
    (container,) = only(resources, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)


# ---- The same as the manifests ----


def test_without_values_the_chart_gives_what_the_manifests_give(helm: str) -> None:
    made, wanted = rendered(helm, {}), manifests()
    assert made.keys() == wanted.keys()
    for name, resource in wanted.items():
        mine = plain(made[name])
        mine["metadata"]["name"] = name.partition("/")[2]
        assert mine == resource, name


def test_a_change_of_one_of_them_would_be_found(helm: str) -> None:
    made = plain(rendered(helm, {"settings": {"QAIO_SLOTS": 9}}))
    assert made["ConfigMap/qwen-allinone"] != manifests()["ConfigMap/qwen-allinone"]
    assert made["Service/qwen-allinone"] == manifests()["Service/qwen-allinone"]


def test_the_chart_is_of_the_project_s_version_and_for_the_kubernetes_that_is_checked() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == __version__
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"


# ---- With values ----


@pytest.mark.parametrize("name", FILES)
def test_helm_s_strict_lint_finds_nothing(helm: str, name: str) -> None:
    done = run_helm(helm, "lint", "--strict", values=FILES[name])
    assert done.returncode == 0 and "1 chart(s) linted, 0 chart(s) failed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_resources_have_known_keys_of_the_right_type_only(helm: str, name: str, version: str) -> None:
    for resource in rendered(helm, FILES[name], "qwen-allinone", "--kube-version", version).values():
        kubernetes_validate.validate(resource, version, strict=True)


def test_an_older_kubernetes_is_refused(helm: str) -> None:
    done = run_helm(helm, "template", "--kube-version", "1.29.0", "qwen-allinone", values={})
    assert done.returncode != 0 and "kubeVersion: >=1.30.0-0" in done.stderr


@pytest.mark.parametrize("name", FILES)
def test_the_service_takes_the_settings(helm: str, name: str) -> None:
    given = only(rendered(helm, FILES[name]), "ConfigMap")["data"]
    assert all(isinstance(value, str) for value in given.values())
    settings = Settings.load({key: value for key, value in given.items() if key.startswith("QAIO_")})
    for key, value in FILES[name].get("settings", {}).items():
        if key == "QAIO_TRUSTED_PROXIES":
            assert ",".join(map(str, settings.trusted_proxies)) == (value or "")
        elif key.startswith("QAIO_"):
            assert getattr(settings, key.removeprefix("QAIO_").lower()) == value
        else:
            assert given[key] == value


@pytest.mark.parametrize("name", FILES)
def test_every_pod_is_locked_down_and_finds_what_it_refers_to(helm: str, name: str) -> None:
    resources = rendered(helm, FILES[name])
    for pod in pods(resources):
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert f"ConfigMap/{container['envFrom'][0]['configMapRef']['name']}" in resources
    kept = only(resources, "ConfigMap")["data"].get("QAIO_API_KEYS_FILE")
    mounted = {mount["mountPath"] for mount in server(resources)["volumeMounts"]}
    assert (str(Path(kept).parent) in mounted) if kept else ("/etc/qwen-allinone" not in mounted)


@pytest.mark.parametrize("name", FILES)
def test_a_pod_gets_longer_to_stop_than_gunicorn_takes(helm: str, name: str) -> None:
    resources = rendered(helm, FILES[name])
    given = only(resources, "ConfigMap")["data"]
    settings = Settings.load({key: value for key, value in given.items() if key.startswith("QAIO_")})
    pause = int(server(resources)["lifecycle"]["preStop"]["exec"]["command"][1])
    spare = only(resources, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert 5 < spare - pause - settings.stop_s - 2 < 30


def test_values_reach_where_they_belong(helm: str) -> None:
    resources = rendered(helm, FILES["large, with its databases"])
    deployment, container = only(resources, "Deployment"), server(resources)
    job = only(resources, "Job")["spec"]["template"]["spec"]
    assert {pod["containers"][0]["image"] for pod in pods(resources)} == {
        "registry.example.com:5000/ml/qwen-allinone:0.2.0"
    }
    assert all(pod["nodeSelector"] and pod["tolerations"] and pod["imagePullSecrets"] for pod in pods(resources))
    assert container["resources"] == FILES["large, with its databases"]["resources"]
    assert job["containers"][0]["resources"]["limits"] == {"memory": "2Gi"}
    environment = {variable["name"]: variable.get("valueFrom") for variable in container["env"]}
    assert environment["QAIO_REDIS_URL"] == {"secretKeyRef": {"name": "valkey", "key": "uri"}}
    assert environment["QAIO_STATE_URL"] == {"secretKeyRef": {"name": "pg", "key": "uri"}}
    assert container["envFrom"][1]["secretRef"] == {"name": "hub", "optional": True}
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["keys"]["secret"]["secretName"] == "llm-callers"
    claim = only(resources, "PersistentVolumeClaim")
    assert claim["spec"]["storageClassName"] == "nfs" and claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    scaled = only(resources, "HorizontalPodAutoscaler")["spec"]
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (3, 20)
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"] == "llm"
    assert scaled["metrics"][0]["pods"]["target"]["averageValue"] == "500m"


def test_the_network_policy_lets_through_to_what_is_used_and_no_further(helm: str) -> None:
    spec = only(rendered(helm, FILES["large, with its databases"]), "NetworkPolicy")["spec"]
    callers = [peer["namespaceSelector"]["matchLabels"] for peer in spec["ingress"][0]["from"]]
    assert callers == [{"kubernetes.io/metadata.name": "ingress"}, {"kubernetes.io/metadata.name": "1234"}]
    dns, redis, postgresql, collector = spec["egress"]
    assert dns["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    assert redis["to"] == [{"podSelector": {"matchLabels": {"app": "redis"}}}] and redis["ports"][0]["port"] == 6380
    assert postgresql["to"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "postgresql"}}}]
    assert postgresql["ports"][0]["port"] == 5433 and collector == COLLECTOR


def test_the_ingress_leads_to_the_service_and_keeps_to_the_settings(helm: str) -> None:
    resources = rendered(helm, {"ingress": {"enabled": True, "host": "llm.example.com", "tlsSecret": "llm-tls"}})
    ingress = only(resources, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    service = resources[f"Service/{backend['name']}"]
    assert backend["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]
    assert ingress["spec"]["tls"] == [{"hosts": [rule["host"]], "secretName": "llm-tls"}]
    settings = Settings.load(only(resources, "ConfigMap")["data"])
    said = {key.rpartition("/")[2]: value for key, value in ingress["metadata"]["annotations"].items()}
    assert said["proxy-buffering"] == "off" and int(said["proxy-read-timeout"]) > settings.stop_s
    assert int(said["proxy-body-size"]) == settings.max_body_bytes


def test_without_autoscaler_the_deployment_says_how_many(helm: str) -> None:
    resources = rendered(helm, FILES["one pod with the demo model"])
    assert only(resources, "Deployment")["spec"]["replicas"] == 1
    kinds = {resource["kind"] for resource in resources.values()}
    assert kinds == {"ConfigMap", "Deployment", "Service", "NetworkPolicy"}
    assert "/models" not in {mount["mountPath"] for mount in server(resources)["volumeMounts"]}


def test_two_releases_in_one_namespace_have_nothing_in_common(helm: str) -> None:
    one, other = rendered(helm, {}, "shop"), rendered(helm, {}, "desk")
    assert not one.keys() & other.keys()
    pod = only(other, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        only(one, "Deployment")["spec"]["selector"]["matchLabels"],
        only(one, "Service")["spec"]["selector"],
        only(one, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(one, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= only(one, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
        assert not selector.items() <= pod
        assert not selector.items() <= only(one, "Job")["spec"]["template"]["metadata"]["labels"].items()


def test_changed_settings_roll_the_pods_and_make_another_job(helm: str) -> None:
    def marks(values: dict[str, Any]) -> tuple[str, str]:
        resources = rendered(helm, values)
        annotations = only(resources, "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return annotations["checksum/settings"], only(resources, "Job")["metadata"]["name"]

    before, again = marks({}), marks({"replicas": 7})
    assert before == again
    for changed in ({"settings": {"QAIO_SLOTS": 9}}, {"model": {"name": "Qwen/Qwen1.5-1.8B"}}):
        assert not set(marks(changed)) & set(before)
    newer = marks({"image": {"tag": "0.2.0"}})
    assert newer[0] == before[0] and newer[1] != before[1]


def test_a_long_name_leaves_room_for_the_job_s(helm: str) -> None:
    for resource in rendered(helm, {}, "a-release-whose-name-is-as-long-as-helm-allows-it-to").values():
        assert len(resource["metadata"]["name"]) <= 63


# ---- Every value does something ----

INGRESS = {"ingress": {"enabled": True, "host": "a.example.com"}}
POSTGRESQL = {"postgresql": {"existingSecret": "pg"}}
# A value's path: another value for it, and what must be said besides for it to count.
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "fullnameOverride": ("llm", {}),
    "image.repository": ("llm", {}),
    "image.tag": ("0.2.0", {}),
    "image.pullPolicy": ("Never", {}),
    "imagePullSecrets": ([{"name": "registry"}], {}),
    "model.name": ("demo", {}),
    "model.volume.enabled": (False, {}),
    "model.volume.existingClaim": ("mine", {}),
    "model.volume.size": ("6Gi", {}),
    "model.volume.storageClass": ("nfs", {}),
    "model.download.enabled": (False, {}),
    "model.download.resources": ({"limits": {"memory": "2Gi"}}, {}),
    "replicas": (3, {"autoscaling": {"enabled": False}}),
    "autoscaling.enabled": (False, {}),
    "autoscaling.min": (1, {}),
    "autoscaling.max": (9, {}),
    "autoscaling.waiting": (3, {}),
    "resources": ({"limits": {"memory": "4Gi"}}, {}),
    "keys.enabled": (False, {}),
    "keys.existingSecret": ("mine", {}),
    "tokensSecret": ("mine", {}),
    "redis.existingSecret": ("mine", {}),
    "redis.key": ("uri", {"redis": {"existingSecret": "mine"}}),
    "redis.podLabels": ({"app": "redis"}, {}),
    "redis.port": (6380, {}),
    "postgresql.existingSecret": ("mine", {}),
    "postgresql.key": ("uri", POSTGRESQL),
    "postgresql.podLabels": ({"app": "pg"}, POSTGRESQL),
    "postgresql.port": (5433, POSTGRESQL),
    "settings": ({"QAIO_SLOTS": 9}, {}),
    "service.port": (8080, {}),
    "ingress.enabled": (False, INGRESS),
    "ingress.className": ("nginx", INGRESS),
    "ingress.host": ("b.example.com", INGRESS),
    "ingress.tlsSecret": ("tls", INGRESS),
    "ingress.annotations": ({"a/b": "c"}, INGRESS),
    "networkPolicy.enabled": (False, {}),
    "networkPolicy.namespaces": (["traefik"], {}),
    "networkPolicy.dns.namespace": ("dns", {}),
    "networkPolicy.dns.podLabels": ({"app": "dns"}, {}),
    "networkPolicy.extraEgress": ([COLLECTOR], {}),
    "disruptionBudget.enabled": (False, {}),
    "disruptionBudget.minAvailable": ("50%", {}),
    "podSecurityContext": ({"runAsUser": 10002}, {}),
    "nodeSelector": ({"disk": "1"}, {}),
    "tolerations": ([{"operator": "Exists"}], {}),
    "affinity": ({"podAffinity": {}}, {}),
    "extraVolumes": ([{"name": "alerts", "emptyDir": {}}], {}),
    "extraVolumeMounts": ([{"name": "tmp", "mountPath": "/alerts"}], {}),
}
# Maps that are handed on as they are.
WHOLE = {"resources", "settings", "annotations", "podLabels", "podSecurityContext", "nodeSelector", "affinity"}


def leaves(values: dict[str, Any], above: str = "") -> Iterator[str]:
    """The path of each value in `values`."""
    for name, value in values.items():
        if isinstance(value, dict) and name not in WHOLE:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield above + name


def with_value(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `values` with `value` at `path`."""
    copied = copy.deepcopy(values)
    place = copied
    *above, name = path.split(".")
    for part in above:
        place = place.setdefault(part, {})
    place[name] = value
    return copied


def test_each_value_is_among_those_that_are_changed_here() -> None:
    assert set(leaves(VALUES)) == set(OTHERS)


@pytest.mark.parametrize(
    "helm", [pytest.param(helm, id=Path(helm).name) for helm in helms()[-1:]] or [None], indirect=True
)
@pytest.mark.parametrize("path", OTHERS)
def test_a_changed_value_changes_what_is_made(helm: str, path: str) -> None:
    """By the newest Helm alone: the templates are the same for all."""
    value, besides = OTHERS[path]
    assert rendered(helm, with_value(besides, path, value)) != rendered(helm, besides)


# ---- Wrong values ----

# Values, and what Helm must name of them; it words the rest as its version does.
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"replica": 3}, ["replica"]),
    ({"image": {"tag": 1.0}}, ["tag", "string"]),
    ({"image": {"repository": "qwen allinone"}}, ["repository", "pattern"]),
    ({"image": None}, ["image"]),
    ({"model": {"volume": {"size": "5 GB"}}}, ["size", "pattern"]),
    ({"resources": {"limit": {"memory": "3Gi"}}}, ["resources", "limit"]),
    ({"keys": {"enabled": "no"}}, ["keys", "boolean"]),
    ({"redis": {"url": "redis://valkey"}}, ["redis", "url"]),
    ({"redis": {"existingSecret": "redis://:password@valkey:6379"}}, ["existingSecret", "pattern"]),
    ({"service": {"port": 70000}}, ["port", "65"]),
    ({"networkPolicy": {"namespaces": []}}, ["namespaces", "1"]),
    ({"disruptionBudget": {"minAvailable": "half"}}, ["minAvailable"]),
    ({"settings": {"QAIO_WEIGTHS": "fp16"}}, ["settings", "QAIO_WEIGTHS", "not allowed"]),
    ({"settings": {"QAIO_WEIGHTS": "fp8"}}, ["QAIO_WEIGHTS", "fp32", "fp16", "int8"]),
    ({"settings": {"QAIO_SLOTS": 65}}, ["QAIO_SLOTS", "64"]),
    ({"settings": {"QAIO_SLOTS": "8"}}, ["QAIO_SLOTS", "integer"]),
    ({"settings": {"QAIO_SLOTS": 1.5}}, ["QAIO_SLOTS", "integer"]),
    ({"settings": {"QAIO_DEADLINE_S": 0}}, ["QAIO_DEADLINE_S", "0"]),
    ({"settings": {"QAIO_MEMORY": "yes"}}, ["QAIO_MEMORY", "boolean"]),
    # What somebody writes who leaves out the quotes of "off".
    ({"settings": {"QAIO_FIT": False}}, ["QAIO_FIT", "gold", "contextual", "off"]),
]


@pytest.mark.parametrize(("values", "named"), WRONG, ids=[json.dumps(values) for values, _ in WRONG])
def test_the_schema_refuses_and_names_a_wrong_value(helm: str, values: dict[str, Any], named: list[str]) -> None:
    said = refused(helm, values)
    assert "values don't meet the specifications of the schema(s)" in said
    (line,) = [line for line in said.splitlines() if all(word in line for word in named)][:1] or [said]
    assert line != said, f"no line names all of {named}: {said}"


@pytest.mark.parametrize(
    ("values", "instead"),
    [
        ({"settings": {"QAIO_MODEL": "demo"}}, "settings.QAIO_MODEL cannot be set there: say model.name"),
        ({"settings": {"QAIO_API_KEYS_FILE": "/keys"}}, "say keys.enabled"),
        ({"settings": {"QAIO_REDIS_URL": "redis://:secret@valkey"}}, "redis.existingSecret"),
        ({"settings": {"QAIO_STATE_URL": "postgresql://u:secret@pg/q"}}, "postgresql.existingSecret"),
        ({"settings": {"HF_TOKEN": "hf_secret"}}, "tokensSecret"),
        ({"settings": {"QAIO_PORT": 80}}, "service.port"),
        ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.host"),
        ({"autoscaling": {"min": 9}}, "autoscaling.min=9 is more than autoscaling.max=8"),
    ],
)
def test_what_would_be_said_twice_or_seen_by_all_is_refused(helm: str, values: dict[str, Any], instead: str) -> None:
    said = refused(helm, values)
    assert instead in said and "secret@" not in said and "hf_secret" not in said


def test_the_schema_knows_the_settings_of_today() -> None:
    spec = importlib.util.spec_from_file_location("settings_schema", CHART.parent / "settings_schema.py")
    assert spec is not None and spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert writer.written(SCHEMA) == SCHEMA, "run: python deploy/helm/settings_schema.py"
    known = json.loads(SCHEMA)["properties"]["settings"]
    assert list(known["properties"]) == Settings.names() and known["additionalProperties"] is False


# ---- What is said after an installation ----


def notes(helm: str, values: dict[str, Any]) -> str:
    done = run_helm(helm, "install", "--dry-run=client", "--namespace", "shop", "qwen-allinone", values=values)
    if "Kubernetes cluster unreachable" in done.stderr:
        pytest.skip("Helm 3 asks a cluster before it says the notes, dry run or not")
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


def test_the_notes_say_how_to_make_keys_and_what_to_try(helm: str) -> None:
    said = notes(helm, {})
    assert "create secret generic qwen-allinone-keys --from-file=keys" in said
    assert "port-forward service/qwen-allinone 5000:80" in said and "component=download" in said
    assert '-H "Authorization: Bearer $KEY"' in said and "Without redis.existingSecret" in said
    (sent,) = re.findall(r"curl -X POST localhost:5000/chat .* -d '(.*)'", said)
    assert json.loads(sent) == {"text": "今天很开心"}


def test_the_notes_warn_of_what_was_turned_off(helm: str) -> None:
    said = notes(helm, {"keys": {"enabled": False}, "networkPolicy": {"enabled": False}, "redis": {"existingSecret": "valkey"}} | INGRESS)  # fmt: skip
    assert "whoever reaches the pods may call" in said and "Bearer" not in said
    assert "Without networkPolicy" in said and "QAIO_TRUSTED_PROXIES" in said
    assert "Without redis" not in said and "https://a.example.com/" in said
