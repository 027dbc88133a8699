"""A Ray cluster of three simulated nodes on this machine, on its loopback address; nodes are killed and added."""

import os
import subprocess
import sys
from typing import Any

LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # by the usual 15, workers would nearly stand still
}
"""The environment of Ray on this machine, beside other work."""
STORE = 80_000_000
"""Bytes of a node's object store: the least that Ray takes, about."""
NODES = """
import sys
from ray.cluster_utils import Cluster

def added(**more):
    for attempt in range(10):  # on a busy machine a node may take longer to start than Ray waits for it
        try:
            return cluster.add_node(**options, **more)
        except Exception as error:
            print(f"A node did not start in time: {error}", file=sys.stderr)
    raise SystemExit("No node starts.")

options = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": int(sys.argv[1])}
cluster = Cluster()
added(include_dashboard=False)
nodes = [added() for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    word, *numbers = line.split()
    if word == "add":
        nodes.append(added())
        print("added", flush=True)
    if word == "kill":
        cluster.remove_node(nodes.pop(int(numbers[0])), allow_graceful=False)
        print("killed", flush=True)
cluster.shutdown()
"""


class Cluster:
    """Three nodes of one processor, in a process; the first one, with Ray's own services, is never killed."""

    def __init__(self) -> None:
        """Start the nodes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        command = (sys.executable, "-c", NODES, str(STORE))
        self._process: Any = subprocess.Popen(command, text=True, env={**os.environ, **LOOPBACK}, **pipes)
        self.address = self._process.stdout.readline().strip()

    def kill_a_node(self, number: int = -1) -> None:
        """Kill a node with its workers: the first (0) or the second (1, -1) of the two without Ray's own services."""
        self._order(f"kill {number}", "killed")

    def add_a_node(self) -> None:
        """Start a node in the place of a killed one."""
        self._order("add", "added")

    def stop(self) -> None:
        """End all nodes."""
        self._process.communicate()
        if self._process.returncode != 0:
            raise RuntimeError(f"The nodes ended with {self._process.returncode}.")

    def _order(self, words: str, expected: str) -> None:
        """Have the process do something, and wait until it has."""
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
        if (answer := str(self._process.stdout.readline().strip())) != expected:
            raise RuntimeError(f"The nodes answer {answer!r} to {words!r}.")
