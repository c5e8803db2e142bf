"""The manifests of examples/cluster are what Ray and its autoscaler for Kubernetes take."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

pytest.importorskip("ray", reason="ray is not installed")
import ray
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

HERE = Path(__file__).parent.parent / "examples" / "cluster"
SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())


def manifest(name):
    return yaml.safe_load((HERE / name).read_text())


def test_ray_up_takes_its_manifest():
    jsonschema.validate(manifest("ray-up.yaml"), SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest("ray-up.yaml"), "worker_ips": []}, SCHEMA)


def test_the_autoscaler_makes_of_the_cluster_on_kubernetes_what_the_command_asks_for():
    cluster = manifest("kuberay.yaml")
    made = _derive_autoscaling_config_from_ray_cr(cluster)
    jsonschema.validate(made, SCHEMA)
    head, gpu = made["available_node_types"]["headgroup"], made["available_node_types"]["gpu"]
    assert head["resources"]["CPU"] == 0  # no worker is placed beside the driver
    assert (gpu["resources"]["GPU"], gpu["min_workers"], gpu["max_workers"]) == (1, 0, 16)
    assert cluster["spec"]["rayVersion"] == ray.__version__
