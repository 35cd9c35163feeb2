"""The cluster files: Ray's own schema takes them, and they are pinned, private and asleep when idle."""

import copy
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "clusters").glob("*.yaml"))
NODES_BY_SSH = ("local", "aws")


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / "clusters" / f"{name}.yaml").read_text())


def text(name: str) -> str:
    return (ROOT / "clusters" / f"{name}.yaml").read_text()


def starts(config: dict) -> list[str]:
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def test_the_three_are_there():
    assert [path.stem for path in FILES] == ["aws", "laptop", "local"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rays_own_schema_takes_it(path):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(path.read_text())
    assert config["cluster_name"] == f"fer-ray-{path.stem}", "the schema passes over a missing name"
    validate_config(prepare_config(copy.deepcopy(config)))
    wrong = copy.deepcopy(config) | {"max_worker": 1}
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_versions_are_pinned_within_those_of_the_project(path):
    pins = set(re.findall(r"\b([a-z]+)==([0-9.]+)", path.read_text()))
    known = requirements()
    assert "ray" in dict(pins)
    assert len(dict(pins)) == len(pins), "two versions of one package"
    for name, version in pins:
        assert known[name].specifier.contains(version), f"{name}=={version} is outside {known[name]}"


def test_all_pin_the_same_versions():
    assert re.findall(r"pip install .*\n.*==.*", text("local")) == re.findall(r"pip install .*\n.*==.*", text("aws"))
    assert len({tuple(sorted(set(re.findall(r"ray==[0-9.]+", path.read_text())))) for path in FILES}) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tokens_are_on_and_the_dashboard_is_private(path):
    config = read(path.stem)
    assert starts(config)
    for command in starts(config):
        assert "RAY_AUTH_MODE=token" in command.split("ray start")[0]
    (head,) = (command for command in starts(config) if "--head" in command)
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in path.read_text()


@pytest.mark.parametrize("name", NODES_BY_SSH)
def test_nodes_get_the_token_and_the_package(name):
    mounts = read(name)["file_mounts"]
    assert mounts["~/.ray/auth_token"] == "~/.ray/auth_token"
    sources = [source.removeprefix("./") for source in mounts.values() if source.startswith("./")]
    assert {"fer_ray", "analysis", "search_spaces", "pyproject.toml"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert "chmod 600 ~/.ray/auth_token" in read(name)["setup_commands"]


def test_a_laptop_listens_on_loopback_only_and_ends_nobody_elses_ray():
    config = read("laptop")
    (command,) = starts(config)
    assert "--node-ip-address=127.0.0.1" in command
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0" in command
    for name in ("laptop", "local"):
        assert not any("ray stop" in command for command in starts(read(name)))


def test_amazon_scales_to_zero_with_an_on_demand_head_and_spot_workers():
    config = read("aws")
    head = config["available_node_types"][config["head_node_type"]]
    (worker,) = (kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"])
    assert worker["min_workers"] == 0 < worker["max_workers"] <= config["max_workers"]
    assert worker["resources"]["GPU"] == 1
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"]["CPU"] == 0
    assert config["idle_timeout_minutes"] <= 10
    assert config["provider"]["cache_stopped_nodes"] is False
    assert "IpPermissions" not in config["provider"]["security_group"], "ssh and the cluster itself are Ray's default"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_commands_stand_above_and_their_flags_exist(path):
    from fer_ray.sweep import parser

    above = path.read_text().split("cluster_name:")[0]
    for command in (f"ray up clusters/{path.name}", "ray job submit", f"ray down clusters/{path.name}"):
        assert command in above
    known = {option for action in parser()._actions for option in action.option_strings}
    sweep = re.search(r"python -m fer_ray\.sweep (--space ratios.*?)\(one line\)", above, re.DOTALL)[1]
    assert set(re.findall(r"--[a-z-]+", sweep)) <= known
