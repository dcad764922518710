#!/usr/bin/env python3
"""Schedules in PyTorch's Python beside ours: seconds to generate, lower (sends and receives) and simulate the same one.

    bazel build -c opt //tools/bench:schedules
    python3 tools/bench/pytorch_schedules.py $(bazel info bazel-bin)/tools/bench/schedules [RANKS CHUNKS MICRO_BATCHES]

Needs PyTorch (2.6 or later, the processor build is enough) and no GPU; it is no part of the build or the tests. PyTorch's
time is that of its own classes and functions: the schedule's constructor (the orders of all ranks), _add_send_recv and
_simulate_comms_compute. Ours is what the program prints for generate, lower, verify and simulate together: its
verifier proves more than PyTorch's simulator, and its simulator works with times where PyTorch's counts ticks.
"""
import re
import subprocess
import sys
import time

import torch
from torch.distributed.pipelining import schedules
from torch.distributed.pipelining.stage import _PipelineStageBase

NAMES = {
    "interleaved_1f1b": "ScheduleInterleaved1F1B",
    "interleaved_zb": "ScheduleInterleavedZeroBubble",
    "looped_bfs": "ScheduleLoopedBFS",
}


class Stage(_PipelineStageBase):
    """What a schedule's constructor asks of a stage, without a model."""

    def __init__(self, index, stages, ranks):
        self.stage_index, self.num_stages, self.group_size, self.group_rank = index, stages, ranks, index % ranks
        self.submod = self.group = None
        self.has_backward = True
        self.stage_index_to_group_rank = {s: s % ranks for s in range(stages)}


Stage.__abstractmethods__ = frozenset()  # what runs a stage is not asked for here


def pytorch_seconds(name, ranks, chunks, micro_batches):
    stages = ranks * chunks
    rank_of_stage = {s: s % ranks for s in range(stages)}
    mine = [Stage(chunk * ranks, stages, ranks) for chunk in range(chunks)]
    begin = time.process_time()
    schedule = getattr(schedules, NAMES[name])(mine, micro_batches, loss_fn=lambda output, target: output)
    orders = {rank: [a for a in actions if a is not None] for rank, actions in schedule.pipeline_order.items()}
    generated = time.process_time()
    lowered = schedules._add_send_recv(orders, lambda stage: rank_of_stage[stage], stages)
    sent = time.process_time()
    schedules._simulate_comms_compute({r: list(a) for r, a in lowered.items()}, lambda stage: rank_of_stage[stage], stages)
    return generated - begin, sent - generated, time.process_time() - sent


def our_seconds(program, name, ranks, chunks, micro_batches):
    text = subprocess.run([program, name, str(ranks), str(chunks), str(micro_batches)], check=True, capture_output=True,
                          text=True).stdout
    return float(re.search(r"^\s*all\s+([0-9.]+) s", text, re.M).group(1))


def main():
    if len(sys.argv) not in (2, 5):
        sys.exit(__doc__)
    program = sys.argv[1]
    setting = [int(word) for word in sys.argv[2:]] or [32, 2, 256]
    print(f"PyTorch {torch.__version__}; p={setting[0]} v={setting[1]} m={setting[2]}; processor seconds")
    print(f"{'schedule':<18}{'generate':>10}{'lower':>10}{'simulate':>10}{'PyTorch':>10}{'ours':>10}{'ratio':>8}")
    for name in NAMES:
        parts = pytorch_seconds(name, *setting)
        ours = min(our_seconds(program, name, *setting) for _ in range(3))
        print(f"{name:<18}" + "".join(f"{part:10.3f}" for part in parts) +
              f"{sum(parts):10.3f}{ours:10.4f}{sum(parts) / ours:8.0f}")


if __name__ == "__main__":
    main()
