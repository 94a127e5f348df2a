"""What many hosts would cost, on paper, and the same model against virtual devices of this machine.

    python -m benchmarks.scaling [--rounds N] [--networks NAME,...] [--json FILE]

A step of N hosts takes F B / (N R) + 2 (N - 1) / N P / W + 2 (N - 1) L seconds: F FLOPs an example
(matrix products of loss and gradient, from the jaxpr) of a batch of B, at R FLOP/s a host; and the
all-reduce in a ring of P bytes of gradients over links of W bytes/s and L seconds of latency
(Patarasuk and Yuan 2009). Nothing is hidden behind anything else, so this is the worse case.

N virtual devices share the cores, so the products take as long as on one; each device makes Adam's
update for itself and one more part of the ring goes through memory: T(N) is a line. It is drawn
through 1 and 2 devices, as was meant at first, and through 2 and 4, which was seen to fit better.
"""

import argparse
import json
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import vae_jax
from benchmarks import limits, machine
from benchmarks.workloads import WORKLOADS, Workload, load_images, make_state

NETWORKS = {
    "default": Workload("784-400-400-40", 40, (400, 400)),
    "conv": WORKLOADS["conv"],
    "big": Workload("784-1024-1024-1024-64", 64, (1024, 1024, 1024)),
}
BATCH_SIZE = 256  # of the simulation
STEPS = 8  # of a timed call
NUM_DEVICES = (1, 2, 4, 8)
HOSTS = (2, 8, 64)
EFFICIENCY = 0.9
ACCELERATOR = 1e14  # FLOP/s that a step sustains: assumed


class Link(NamedTuple):
    """A link of each host, as assumed: bytes per second one way, seconds of latency."""

    name: str
    bandwidth: float
    latency: float


LINKS = (
    Link("Ethernet, 10 Gbit/s", 1.25e9, 50e-6),
    Link("Ethernet, 100 Gbit/s", 12.5e9, 20e-6),
    Link("400 Gbit/s", 50e9, 5e-6),
    Link("NVLink class, 450 GB/s", 450e9, 2e-6),
)


def allreduce_seconds(num_hosts: int, num_bytes: float, link: Link) -> float:
    """Of a ring: every host sends 2 (N - 1) pieces of one N-th."""
    rounds = 2 * (num_hosts - 1)
    return rounds * (num_bytes / num_hosts / link.bandwidth + link.latency)


def efficiency(seconds_of_host: float, num_hosts: int, num_bytes: float, link: Link) -> float:
    """The part of a step that is spent on the host's examples."""
    return seconds_of_host / (seconds_of_host + allreduce_seconds(num_hosts, num_bytes, link))


def batch_per_host(
    flops_per_example: float, rate: float, num_hosts: int, num_bytes: float, link: Link
) -> int:
    """The least one at which the hosts stay EFFICIENCY efficient."""
    needed = EFFICIENCY / (1 - EFFICIENCY) * allreduce_seconds(num_hosts, num_bytes, link)
    return int(np.ceil(needed * rate / flops_per_example))


def count(network: Workload) -> dict[str, int]:
    """FLOPs of an example, and the bytes of a step, as if nothing but arrays at rest moved."""
    state, loss, _ = make_state(network, "float32")
    batch = vae_jax.Batch(jnp.zeros((BATCH_SIZE, *network.image_shape), jnp.uint8))
    products = limits.step_products(loss, state.params, batch)
    parameters = limits.num_bytes(state.params)
    return {
        "flops_per_example": sum(p.flops for p in products) // BATCH_SIZE,
        "parameter_bytes": parameters,
        # Adam reads parameters, gradient and two moments, and writes all but the gradient.
        "update_bytes": 7 * parameters,
        "example_bytes": int(np.prod(network.image_shape)),
    }


def measure_here(network: Workload) -> dict[str, float]:
    """Seconds per step on all devices of this process."""
    state, loss, optimizer = make_state(network, "float32")
    num = len(jax.devices())
    mesh = jax.make_mesh((num,), ("data",), (AxisType.Auto,))
    sharding = vae_jax.state_sharding(state, mesh)
    images, _ = load_images(BATCH_SIZE * STEPS)
    images = images.reshape(-1, *network.image_shape)
    dataset = jax.device_put(vae_jax.Batch(images), NamedSharding(mesh, PartitionSpec()))
    order = jax.device_put(
        np.arange(len(images), dtype=np.int32).reshape(STEPS, BATCH_SIZE),
        NamedSharding(mesh, PartitionSpec(None, "data")),
    )
    train_epoch = vae_jax.make_train_epoch(loss, optimizer, sharding=sharding)
    state = jax.device_put(state, sharding)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        state, metrics = train_epoch(state, dataset, order)
        jax.block_until_ready(metrics.loss)
        times.append((time.perf_counter() - start) / STEPS)
    return {"seconds_per_step": min(times[1:]), "loss": float(metrics.loss[-1])}


def measure(name: str, num_devices: int) -> dict[str, float]:
    """The same in a process with so many virtual devices."""
    return machine.on_virtual_devices(num_devices, "benchmarks.scaling", f"--measure={name}")


def predict(seconds: dict[int, float], of: tuple[int, int], num_devices: int) -> float:
    """Seconds of a step on N virtual devices, on the line through two numbers of them."""
    slope = (seconds[of[1]] - seconds[of[0]]) / (of[1] - of[0])
    return seconds[of[0]] + (num_devices - of[0]) * slope


def benchmark(names: list[str], rounds: int) -> dict[str, Any]:
    rows, paper = [], []
    for name in names:
        counted = count(NETWORKS[name])
        runs: dict[int, list[dict[str, float]]] = {num: [] for num in NUM_DEVICES}
        for _ in range(rounds):
            for num in NUM_DEVICES:
                runs[num].append(measure(name, num))
                print(f"{name}, {num} devices: {runs[num][-1]}", flush=True)
        # The least: what else the machine does only adds.
        seconds = {num: min(run["seconds_per_step"] for run in runs[num]) for num in NUM_DEVICES}
        rate = counted["flops_per_example"] * BATCH_SIZE / seconds[1]
        rows.append(
            {
                "network": name,
                "description": NETWORKS[name].description,
                **counted,
                "flops_per_second": rate,
                "devices": [
                    {
                        "num_devices": num,
                        "seconds_per_step": seconds[num],
                        "from_1_and_2": predict(seconds, (1, 2), num),
                        "from_2_and_4": predict(seconds, (2, 4), num),
                        "loss": runs[num][0]["loss"],
                    }
                    for num in NUM_DEVICES
                ],
            }
        )
        for link in LINKS:
            for host, of_host in ("this machine", rate), ("accelerator", ACCELERATOR):
                needed = [
                    batch_per_host(
                        counted["flops_per_example"], of_host, n, counted["parameter_bytes"], link
                    )
                    for n in HOSTS
                ]
                paper.append(
                    {
                        "network": name,
                        "host": host,
                        "link": link._asdict(),
                        "num_hosts": HOSTS,
                        "batch_per_host": needed,
                    }
                )
    return {
        "benchmark": "scaling",
        **machine.describe(),
        "batch_size": BATCH_SIZE,
        "rounds": rounds,
        "efficiency": EFFICIENCY,
        "accelerator_flops_per_second": ACCELERATOR,
        "rows": rows,
        "paper": paper,
    }


def print_table(result: dict[str, Any]) -> None:
    print(f"{'':10}{'devices':>8}{'ms/step':>9}{'from 1, 2':>11}{'from 2, 4':>11}")
    for row in result["rows"]:
        for of in row["devices"]:
            print(
                f"{row['network']:10}{of['num_devices']:8}{1e3 * of['seconds_per_step']:9.2f}"
                f"{1e3 * of['from_1_and_2']:11.2f}{1e3 * of['from_2_and_4']:11.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--rounds", type=machine.positive, default=3, help="processes of each; 3")
    parser.add_argument("--networks", default=",".join(NETWORKS), help=f"of {', '.join(NETWORKS)}")
    parser.add_argument(
        "--json", type=machine.result_file, help="where the results go; else nowhere"
    )
    parser.add_argument("--measure", choices=NETWORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_here(NETWORKS[options.measure])))
        return
    names = options.networks.split(",")
    if unknown := sorted(set(names) - set(NETWORKS)):
        parser.error(f"{', '.join(unknown)} not known: choose from {', '.join(NETWORKS)}")
    result = benchmark(names, options.rounds)
    print_table(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    machine.run(main)
