"""The manifests of ops/kubernetes fit the schemas of Kubernetes, name only commands, settings and
secrets that exist, and run without root.

The schemas come with kubernetes-validate; that of KEDA's ScaledObject does not, so its fields are
compared with those that KEDA documents, and its names with the settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
from pydantic import SecretStr
from ruamel.yaml import YAML

from core.settings import Settings
from testing.process import ROOT
from tests.demo.commands import check_command

FOLDER = ROOT / "ops" / "kubernetes"
KUBERNETES = "1.33"
SECRETS = "/run/secrets/eddyline/"


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """(Kind/name, document) of every manifest that `kubectl apply -k` would send."""
    yaml = YAML(typ="safe", pure=True)
    for file in yaml.load(FOLDER / "kustomization.yaml")["resources"]:
        for document in yaml.load_all(FOLDER / file):
            yield f"{document['kind']}/{document['metadata']['name']}", document


DOCUMENTS = dict(documents())
SCALED = {name: document for name, document in DOCUMENTS.items() if "ScaledObject" in name}
KEDA_FIELDS = {
    "spec": {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "cooldownPeriod", "triggers"},
    "trigger": {"type", "metadata", "authenticationRef"},
    "kafka": {"bootstrapServers", "consumerGroup", "topic", "lagThreshold", "sasl", "tls"},
}
"""Of https://keda.sh/docs/latest/reference/scaledobject-spec and .../scalers/apache-kafka, those
that we may need.
"""
SETTINGS: dict[str, str] = DOCUMENTS["ConfigMap/eddyline-settings"]["data"]


def pod_of(document: dict[str, Any]) -> dict[str, Any] | None:
    """The pod's spec of a Deployment, a Job or a CronJob."""
    spec = document.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    pod: dict[str, Any] | None = spec.get("template", {}).get("spec")
    return pod


PODS = {name: pod for name, document in DOCUMENTS.items() if (pod := pod_of(document))}


def test_every_file_is_applied() -> None:
    yaml = YAML(typ="safe", pure=True)
    applied = yaml.load(FOLDER / "kustomization.yaml")["resources"]
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(applied)


@pytest.mark.parametrize("name", sorted(set(DOCUMENTS) - set(SCALED)))
def test_a_manifest_fits_the_schema_of_kubernetes(name: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[name], KUBERNETES, strict=True)


def test_the_schema_refuses_a_misspelt_field() -> None:
    broken = {**DOCUMENTS["Deployment/eddyline-api"], "sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", sorted(PODS))
def test_every_command_exists_and_runs_without_root(name: str) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]
    check_command(container["command"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001  # the user of the Dockerfile
    assert pod["automountServiceAccountToken"] is False
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"]["drop"] == ["ALL"]
    assert container["resources"]["requests"]
    assert container["resources"]["limits"]["memory"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", sorted(name for name in PODS if name.startswith("Deployment/")))
def test_every_process_that_stays_up_has_probes_on_a_port_it_opens(name: str) -> None:
    (container,) = PODS[name]["containers"]
    (port,) = container["ports"]
    environment = SETTINGS | {entry["name"]: entry["value"] for entry in container.get("env", [])}
    opened = environment["API_PORT" if port["name"] == "http" else "METRICS_PORT"]
    assert port["containerPort"] == int(opened)
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
    labels = DOCUMENTS[name]["spec"]["template"]["metadata"]["labels"]
    assert DOCUMENTS[name]["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_every_variable_is_a_setting_and_every_secret_a_file() -> None:
    fields = {name.upper(): field for name, field in Settings.model_fields.items()}
    secrets = {name for name, field in fields.items() if "SecretStr" in str(field.annotation)}
    passed = dict(SETTINGS)
    for pod in PODS.values():
        (container,) = pod["containers"]
        passed |= {entry["name"]: entry["value"] for entry in container.get("env", [])}
    files = {name: value for name, value in passed.items() if name.endswith("_FILE")}
    assert set(passed) - set(files) <= set(fields) - secrets
    assert {name.removesuffix("_FILE") for name in files} <= secrets
    created = re.findall(r"--from-literal=([a-z-]+)=", (FOLDER / "README.md").read_text())
    assert {SECRETS + key for key in created} == set(files.values())
    values = {name.lower(): value for name, value in passed.items() if name not in files}
    Settings(redis_url=SecretStr("redis://localhost"), **values)  # type: ignore[arg-type]


def test_keda_watches_the_groups_and_topics_that_we_read() -> None:
    settings = Settings()
    expected = {
        "ScaledObject/eddyline-ingest": (settings.ingest_group, settings.interactions_topic),
        "ScaledObject/eddyline-live": (settings.live_group, settings.model_updates_topic),
    }
    watched = {}
    for name, document in SCALED.items():
        spec = document["spec"]
        assert f"Deployment/{spec['scaleTargetRef']['name']}" in DOCUMENTS
        assert spec["maxReplicaCount"] <= settings.topic_partitions
        (trigger,) = spec["triggers"]
        kafka = trigger["metadata"]
        assert kafka["bootstrapServers"] == SETTINGS["KAFKA_BOOTSTRAP_SERVERS"]
        watched[name] = (kafka["consumerGroup"], kafka["topic"])
    assert watched == expected


@pytest.mark.parametrize("name", sorted(SCALED))
def test_keda_knows_every_field_of_a_trigger_by_lag(name: str) -> None:
    spec = SCALED[name]["spec"]
    (trigger,) = spec["triggers"]
    assert SCALED[name]["apiVersion"] == "keda.sh/v1alpha1"
    assert set(spec) <= KEDA_FIELDS["spec"]
    assert set(trigger) <= KEDA_FIELDS["trigger"]
    assert trigger["type"] == "kafka"
    assert set(trigger["metadata"]) <= KEDA_FIELDS["kafka"]
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]


def test_a_drained_node_takes_one_pod_at_a_time_of_each_process_that_has_several() -> None:
    scaled = {document["spec"]["scaleTargetRef"]["name"] for document in SCALED.values()}
    for name in {*scaled, "eddyline-api"}:
        budget = DOCUMENTS[f"PodDisruptionBudget/{name}"]["spec"]
        pod = DOCUMENTS[f"Deployment/{name}"]["spec"]["template"]["metadata"]["labels"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= pod.items()


@pytest.mark.parametrize("name", sorted(PODS))
def test_every_pod_is_reached_and_reaches_only_by_a_network_policy(name: str) -> None:
    spec = DOCUMENTS[name]["spec"]
    template = spec.get("jobTemplate", {}).get("spec", spec)["template"]
    policy = DOCUMENTS["NetworkPolicy/eddyline"]["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_the_api_gets_requests_only_while_it_is_ready() -> None:
    (container,) = PODS["Deployment/eddyline-api"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}


def test_a_process_that_is_scaled_sets_no_replicas() -> None:
    """Otherwise every apply would reset what the autoscaler chose."""
    scaled = {document["spec"]["scaleTargetRef"]["name"] for document in SCALED.values()}
    scaled.add(DOCUMENTS["HorizontalPodAutoscaler/eddyline-api"]["spec"]["scaleTargetRef"]["name"])
    for name in scaled:
        assert "replicas" not in DOCUMENTS[f"Deployment/{name}"]["spec"]
