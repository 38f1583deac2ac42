"""FedAvg with pfl on PyTorch: a unit is one round. Runs in its own environment.

    python -m benchmarks.peers.pfl_rounds TASK [PROCESSES]

One thread per process. No evaluation after the first round, which belongs to the
warm-up. With two processes, each trains half of the clients; the first one reports and
the other one waits for it in their all-reduce.
"""

import os
import socket
import subprocess
import sys

import numpy as np
import pfl.internal.ops.pytorch_ops  # noqa: F401  chooses PyTorch
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data import FederatedDataset
from pfl.data.dataset import Dataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import nn

from benchmarks import tasks
from benchmarks.speaker import Speaker

FOREVER = 10**9


class Ticks(TrainingProcessCallback):
    """Tells the suite that a round is over."""

    def __init__(self, speaker: Speaker | None) -> None:
        self._speaker = speaker

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        """Called at the end of each round; never stops the training by itself."""
        if self._speaker is not None:
            self._speaker.tick()
        return False, Metrics()


class Network(nn.Module):
    """A net with the two methods that pfl asks for."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def loss(self, inputs, targets, eval=False):
        """Mean cross-entropy of a batch."""
        return nn.functional.cross_entropy(self.layers(inputs), targets)

    def metrics(self, inputs, targets, eval=True):
        """Asked for where pfl evaluates; nothing is."""
        return {}


def main(name: str, processes: int) -> None:
    """Works on a task for as long as it is asked to."""
    torch.set_num_threads(1)
    if processes > 1 and "RANK" not in os.environ:
        _start_others(name, processes)
    first = os.environ.get("RANK", "0") == "0"
    task = tasks.TASKS[name]
    net = Network(layers(task))
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), 1.0))
    clients = federation(task)
    algorithm = FederatedAveraging()
    speaker = Speaker("pfl", "torch") if first else None
    algorithm.run(
        NNAlgorithmParams(
            central_num_iterations=FOREVER,
            evaluation_frequency=FOREVER,
            train_cohort_size=task.clients,
            val_cohort_size=0,
        ),
        SimulatedBackend(training_data=clients, val_data=clients),
        model,
        NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=tasks.LEARNING_RATE,
            local_batch_size=task.batch,
        ),
        NNEvalHyperParams(local_batch_size=None),
        [Ticks(speaker)],
        send_metrics_to_platform=False,  # which would print metrics in each round
    )


def federation(task: tasks.Task) -> FederatedDataset:
    """All clients; tensors made once, and put into a new order in each round."""
    images, labels = tasks.data(task)
    inputs = tasks.as_floats(images).transpose(0, 1, 4, 2, 3)
    x = torch.from_numpy(np.ascontiguousarray(inputs))
    y = torch.from_numpy(labels.astype(np.int64))
    rng = torch.Generator().manual_seed(0)

    def client(user: int) -> Dataset:
        order = torch.randperm(task.samples, generator=rng)
        return Dataset((x[user, order], y[user, order]))

    return FederatedDataset(client, MinimizeReuseUserSampler(list(range(task.clients))))


def layers(task: tasks.Task) -> nn.Sequential:
    """The net of a task, for images `[batch, channels, height, width]`."""
    inputs = int(np.prod(task.shape))
    if task.net == "logistic":
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, task.classes))
    if task.net == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs, tasks.HIDDEN),
            nn.ReLU(),
            nn.Linear(tasks.HIDDEN, task.classes),
        )
    side = (task.shape[0] - 4) // 2
    return nn.Sequential(
        nn.Conv2d(task.shape[2], 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(side * side * 64, 128),
        nn.ReLU(),
        nn.Linear(128, task.classes),
    )


def _start_others(name: str, processes: int) -> None:
    """Starts the other processes, with the variables that `torchrun` sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "TORCHELASTIC_RUN_ID": "benchmark",
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    os.environ.update(shared, RANK="0", LOCAL_RANK="0")
    for rank in range(1, processes):
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, name, str(processes)],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
