"""One round of Flower's SecAgg+: what `secure_aggregation.py --flower` runs in an environment of Flower's own.

Flower's own workflow (the server) and client mod (each device) exchange their messages in this process; nothing trains.
Prints what the round cost as one JSON object, under the names of `secure_aggregation.py`. The graph and threshold are
those that it is told, which hold against a curious server, the only one that Flower's protocol is for; 10 % drop out
after they shared their secrets. Bytes are those of the protobuf messages. Everything else is Flower's default: numbers
are clipped at 8 and rounded to 22 bits in a ring of 32, each sent as 64, and weighted. Its masks come from a generator
with a 32-bit seed.
"""

import argparse
import json
import logging
import resource
import statistics
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.common import recorddict_compat as compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["main"]

CONFIGS = "secaggplus_configs"
DROPPED = 10  # per cent


class Fleet:
    """What Flower's workflow takes for the network: devices in this process, and what they cost."""

    def __init__(self, devices: int, numbers: int) -> None:
        self.update = np.random.default_rng(0).uniform(-1, 1, numbers).astype(np.float32)
        self.contexts = {i: Context(0, i, {}, RecordDict(), {}) for i in range(1, devices + 1)}
        self.device_s = dict.fromkeys(self.contexts, 0.0)
        self.up, self.down = dict.fromkeys(self.contexts, 0), dict.fromkeys(self.contexts, 0)
        self.other_s = 0.0  # of the measurement itself

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Let each device answer, but those that drop out before they mask."""
        del timeout
        answers = []
        for message in messages:
            node = message.metadata.dst_node_id
            stage = message.content.config_records[CONFIGS]["stage"]
            if node % DROPPED or stage in ("setup", "share_keys"):
                answers.append(self._answer(node, message))
        return answers

    def _answer(self, node: int, message: Message) -> Message:
        from flwr.common.serde import recorddict_to_proto

        start = time.process_time()
        copied = Message(
            RecordDict(dict(message.content.items())), dst_node_id=node, message_type="train", group_id="1"
        )
        content = copied.content.config_records[CONFIGS]
        copied.content.config_records[CONFIGS] = type(content)(dict(content.items()))
        self.down[node] += len(recorddict_to_proto(copied.content).SerializeToString())
        began = time.process_time()
        answer = secaggplus_mod(copied, self.contexts[node], self._fit)
        ended = time.process_time()
        self.device_s[node] += ended - began
        self.up[node] += len(recorddict_to_proto(answer.content).SerializeToString())
        self.other_s += time.process_time() - ended + began - start
        return answer

    def _fit(self, message: Message, context: Context) -> Message:
        del context
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.update]), 1_000, {})
        return Message(compat.fitres_to_recorddict(result, False), reply_to=message)


class Strategy:
    """Takes every device, and keeps the mean."""

    def __init__(self, nodes: Iterable[int]) -> None:
        self.nodes, self.mean = list(nodes), np.zeros(0)

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> list[Any]:
        """Everybody."""
        del server_round, parameters, client_manager
        return [(SimpleNamespace(node_id=n), FitIns(ndarrays_to_parameters([]), {})) for n in self.nodes]

    def aggregate_fit(self, server_round: int, results: list[Any], failures: list[Any]) -> tuple[None, dict[str, Any]]:
        """What the workflow found."""
        del server_round, failures
        self.mean = parameters_to_ndarrays(results[0][1].parameters)[0]
        return None, {}


def main() -> None:
    """Print the figures of one round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("devices", "numbers", "neighbours", "threshold"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
    print(json.dumps(measure(options.devices, options.numbers, options.neighbours, options.threshold)))


def measure(devices: int, numbers: int, k: int, t: int) -> dict[str, Any]:
    """One round."""
    from flwr.app import ArrayRecord, ConfigRecord

    fleet = Fleet(devices, numbers)
    strategy = Strategy(fleet.contexts)
    state = RecordDict({"config": ConfigRecord({"current_round": 1}), "parameters": ArrayRecord()})
    context = LegacyContext(Context(0, 0, {}, state, {}), strategy=strategy)
    start, began = time.process_time(), time.perf_counter()
    SecAggPlusWorkflow(k + 1 - k % 2, t)(fleet, context)  # an odd number, itself among them
    wall, spent = time.perf_counter() - began, time.process_time() - start
    if np.abs(strategy.mean - fleet.update).max() > 1e-3:
        raise SystemExit("the mean is wrong")
    stayed = [s for node, s in fleet.device_s.items() if node % DROPPED]
    return {
        "server_s": spent - sum(fleet.device_s.values()) - fleet.other_s,
        "parts_s": [],
        "device_s": statistics.median(stayed),
        "most_s": max(stayed),
        "up_mb": max(fleet.up.values()) / 1e6,
        "down_mb": max(fleet.down.values()) / 1e6,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "wall_s": wall,
    }


if __name__ == "__main__":
    main()
