"""The machines of a cluster that was joined, as Ray tells of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """A living node.

    Attributes:
        name: its address.
        cpus: CPUs that it offers to trials.
        gpus: likewise.
        gpu_type: the GPU's kind, such as "A10G"; "" without one.
        memory_bytes: memory that it offers.
    """

    name: str
    cpus: float
    gpus: float
    gpu_type: str
    memory_bytes: float


def living_nodes() -> list[Node]:
    """Nodes of the cluster, by name. Ray must have been joined."""
    import ray

    kind = "accelerator_type:"
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            types = [name.removeprefix(kind) for name in resources if name.startswith(kind)]
            found.append(
                Node(
                    name=node["NodeManagerAddress"],
                    cpus=resources.get("CPU", 0.0),
                    gpus=resources.get("GPU", 0.0),
                    gpu_type=types[0] if types else "",
                    memory_bytes=resources.get("memory", 0.0),
                )
            )
    return sorted(found, key=lambda node: node.name)
