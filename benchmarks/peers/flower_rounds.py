"""FedAvg with Flower's simulation: a unit is one round. Runs in its own environment.

Two Ray workers with one core each; no evaluation.
"""

import logging
import os
import sys
import traceback
from collections.abc import Iterable
from typing import NoReturn

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "600")  # of a busy machine

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks import tasks
from benchmarks.peers import dense, flower_client
from benchmarks.speaker import Speaker

WORKERS = 2
FOREVER = 10**9


class Strict(FedAvg):
    """Goes on only if every client has answered; the library counts failures alone."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The mean of what the clients sent."""
        replies = list(replies)
        for reply in replies:
            if reply.has_error():
                fail(f"round {server_round}: {reply.error.reason}")
        if len(replies) != self.min_train_nodes:
            fail(f"round {server_round}: {len(replies)} clients answered")
        return super().aggregate_train(server_round, replies)


def fail(reason: str) -> NoReturn:
    """Ends the process, whose threads would keep it alive."""
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


def main(name: str) -> None:
    """Works on a task for as long as it is asked to."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    task = tasks.TASKS[name]
    server = ServerApp()
    speaker = Speaker("flwr", "ray")

    @server.main()
    def rounds(grid: Grid, context: Context) -> None:
        strategy = Strict(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_evaluate_nodes=0,
            min_train_nodes=task.clients,
            min_available_nodes=task.clients,
        )
        strategy.start(
            grid,
            ArrayRecord(dense.first(task)),
            num_rounds=FOREVER,
            train_config=ConfigRecord({"task": name}),
            evaluate_fn=lambda number, arrays: speaker.tick() if number else None,
        )

    try:
        simulate(server, task)
    except Exception:
        traceback.print_exc()
        fail("the simulation ended")


def simulate(server: ServerApp, task: tasks.Task) -> None:
    """Runs the server and its clients in this process and its workers."""
    run_simulation(
        server,
        flower_client.app,
        num_supernodes=task.clients,
        backend_config={
            "init_args": {
                "num_cpus": WORKERS,
                "include_dashboard": False,
                "log_to_driver": False,
                "_node_ip_address": "127.0.0.1",
            },
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main(sys.argv[1])
