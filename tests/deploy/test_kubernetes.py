"""Manifests of deploy/kubernetes: each is valid, hardened, and names only what exists beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import jsonschema
import kubernetes_validate
import pytest

from tests.deploy.custom_kinds import CUSTOM_KINDS
from tests.deploy.rendered import (
    OVERLAYS,
    REAL,
    Manifest,
    containers,
    needs_kustomize,
    of_kind,
    overlay,
    pods,
    ports,
    rendered,
    selected,
)

pytestmark = [needs_kustomize, pytest.mark.parametrize("name", OVERLAYS)]
VERSIONS = (
    "1.30.0",
    kubernetes_validate.latest_version(),
)  # the oldest with `preStop: sleep`, and the newest


def check(manifest: Manifest) -> None:
    if manifest["kind"] in CUSTOM_KINDS:
        jsonschema.validate(manifest, CUSTOM_KINDS[manifest["kind"]])
        return
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_every_manifest_is_valid(name: str) -> None:
    manifests = overlay(name)
    assert len({(each["kind"], each["metadata"]["name"]) for each in manifests}) == len(manifests)
    for manifest in manifests:
        check(manifest)


def test_a_misspelt_field_is_refused(name: str) -> None:
    """In every kind, at the top and below: the judges are strict."""
    for manifest in overlay(name):
        wrong = copy.deepcopy(manifest)
        wrong["spce"] = {}
        with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
            check(wrong)


def test_every_pod_is_hardened_and_bounded(name: str) -> None:
    for pod in pods(overlay(name)).values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False, "variables of Services stand beside settings"
        own = spec["securityContext"]
        assert own["runAsNonRoot"] is True and own["runAsUser"] > 0 and own["runAsGroup"] > 0
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any(spec.get(each) for each in ("hostNetwork", "hostPID", "hostIPC"))
    for _, container in containers(overlay(name)):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
        assert "cpu" not in container["resources"]["limits"], "a throttled process misses its lease"
    (namespace,) = of_kind(overlay(name), "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert all(
        each["metadata"]["namespace"] == namespace["metadata"]["name"]
        for each in overlay(name)
        if each is not namespace and each["kind"] != "Namespace"
    )


def test_every_volume_has_an_end_and_is_there(name: str) -> None:
    manifests = overlay(name)
    for pod, container in containers(manifests):
        volumes = {each["name"]: each for each in pods(manifests)[pod]["spec"].get("volumes", ())}
        assert {each["name"] for each in container.get("volumeMounts", ())} == set(volumes)
        for volume in volumes.values():
            assert volume.get("emptyDir", {"sizeLimit": True})["sizeLimit"]
            if "configMap" in volume:
                assert volume["configMap"]["name"] in of_kind(manifests, "ConfigMap")
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets(manifests)
        for source in container.get("envFrom", ()):
            assert source["configMapRef"]["name"] in of_kind(manifests, "ConfigMap")


def secrets(manifests: list[Manifest]) -> set[str]:
    made = of_kind(manifests, "ExternalSecret").values()
    return {*of_kind(manifests, "Secret"), *(each["spec"]["target"]["name"] for each in made)}


def test_services_reach_pods_at_their_ports(name: str) -> None:
    manifests = overlay(name)
    for service in of_kind(manifests, "Service").values():
        (pod,) = selected(manifests, service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports(manifests, pod)


def test_probes_ask_at_ports_of_their_container(name: str) -> None:
    for pod, container in containers(overlay(name)):
        known = {port["name"] for port in container.get("ports", ())}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container.get(kind, {})
            asked = probe.get("httpGet") or probe.get("tcpSocket")
            assert asked is None or asked["port"] in known, (pod, kind)


def test_whatever_names_a_workload_names_one_that_exists(name: str) -> None:
    manifests = overlay(name)
    for budget in of_kind(manifests, "PodDisruptionBudget").values():
        assert len(selected(manifests, budget["spec"]["selector"]["matchLabels"])) == 1
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler").values():
        target = scaler["spec"]["scaleTargetRef"]
        assert "replicas" not in of_kind(manifests, target["kind"])[target["name"]]["spec"], (
            "it would be reset"
        )
    for monitor in of_kind(manifests, "ServiceMonitor").values():
        found = [
            each
            for each in of_kind(manifests, "Service").values()
            if monitor["spec"]["selector"]["matchLabels"].items()
            <= each["metadata"].get("labels", {}).items()
        ]
        (service,) = found
        assert {each["port"] for each in monitor["spec"]["endpoints"]} <= {
            port["name"] for port in service["spec"]["ports"]
        }
    for route in of_kind(manifests, "HTTPRoute").values():
        for reference in route["spec"]["rules"][0]["backendRefs"]:
            service = of_kind(manifests, "Service")[reference["name"]]
            assert reference["port"] in [port["port"] for port in service["spec"]["ports"]]


def let_in(manifests: list[Manifest]) -> Iterator[tuple[str, int]]:
    """Yield the pods and ports that policies open."""
    for policy in of_kind(manifests, "NetworkPolicy").values():
        labels = policy["spec"]["podSelector"].get("matchLabels", {})
        for rule in policy["spec"].get("ingress", ()):
            for port in rule.get("ports", ()):
                for pod in selected(manifests, labels):
                    yield pod, port["port"]


def test_policies_open_the_ports_that_pods_have_and_no_others(name: str) -> None:
    manifests = overlay(name)
    assert of_kind(manifests, "NetworkPolicy")["default-deny"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    ours = {pod for pod in pods(manifests) if pod.startswith("slipway-")}
    assert set(let_in(manifests)) == {(pod, port) for pod in ours for port in ports(manifests, pod).values()}


def test_ingress_in_place_of_the_route_is_valid_and_leads_to_nginx(name: str) -> None:
    (ingress,) = rendered("ingress")
    check(ingress)
    path = ingress["spec"]["rules"][0]["http"]["paths"][0]
    wanted = path["backend"]["service"]
    service = of_kind(overlay(name), "Service")[wanted["name"]]
    assert wanted["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]


def test_a_disruption_leaves_one(name: str) -> None:
    manifests = overlay(name)
    least = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"]["minReplicas"]
        for each in of_kind(manifests, "HorizontalPodAutoscaler").values()
    }
    for budget in of_kind(manifests, "PodDisruptionBudget").values():
        (pod,) = selected(manifests, budget["spec"]["selector"]["matchLabels"])
        count = least.get(pod) or of_kind(manifests, "Deployment")[pod]["spec"]["replicas"]
        assert count - budget["spec"]["maxUnavailable"] >= (name in REAL), pod
