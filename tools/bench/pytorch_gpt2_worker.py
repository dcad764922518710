"""One process of PyTorch training a GPT-2, a stage of a pipeline or the whole model. Started by pytorch_gpt2.py.

    python3 pytorch_gpt2_worker.py SETTING      (JSON: the fields of Setting in pytorch_gpt2.py, and this process's rank)

Reads a number of steps per line of standard input, trains them, and answers with a line of JSON: [[loss, seconds], ...]. A
step's seconds count from the end of the step before, with its optimizer. The losses are null but on the last stages. Ranks are
counted stage by stage, then replica by replica; replicas are DistributedDataParallel, around each stage of a pipeline.

bf16 means what it means in Sluice: master weights, moments and the sums of gradients in f32; weights are rounded to bf16 once a
step but for the norms', activations are bf16. "autocast" is PyTorch's own way to the same: f32 modules, casts kept for the step.
"""
import contextlib
import ctypes
import json
import os
import signal
import sys
import time

import numpy as np

SETTING = json.loads(sys.argv[1])
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with the program that reads the answers
os.sched_setaffinity(0, SETTING["processors"])  # before PyTorch starts threads

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

import sluice_start


class Attention(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        rows, sequence, channels = x.shape
        q, k, v = (part.view(rows, sequence, self.heads, -1).transpose(1, 2) for part in self.c_attn(x).split(channels, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(rows, sequence, channels))


class Mlp(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(channels), Attention(channels, heads)
        self.ln_2, self.mlp = nn.LayerNorm(channels), Mlp(channels)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt2(nn.Module):
    """Blocks first ... last-1 of a GPT-2, with the embedding before block 0 and the head after the end. Sluice's names."""

    def __init__(self, sizes, first, last):
        super().__init__()
        channels = sizes["channels"]
        self.embeds, self.ends = first == 0, last == sizes["layers"]
        if self.embeds:
            self.wpe = nn.Embedding(sizes["positions"], channels)
        if self.embeds or self.ends:
            self.wte = nn.Embedding(sizes["vocabulary"], channels)
        self.h = nn.ModuleDict({str(i): Block(channels, sizes["heads"]) for i in range(first, last)})
        if self.ends:
            self.ln_f = nn.LayerNorm(channels)

    def forward(self, x):
        if self.embeds:
            x = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        for block in self.h.values():
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight) if self.ends else x


class Optimizer:
    """Rounds the model, and does clipping and fused AdamW on f32 weights; the gradients of a shared one are summed over stages."""

    def __init__(self, model, computes, hyper, shared, stages):
        start = [parameter.detach().clone() for parameter in model.parameters()]
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.to(computes)
        self.parameters = list(model.parameters())
        self.masters = [p if p.dtype == torch.float32 else nn.Parameter(s) for p, s in zip(self.parameters, start)]
        for parameter, master in zip(self.parameters, self.masters):
            if master is not parameter:
                parameter.register_post_accumulate_grad_hook(lambda p, master=master: self.accumulate(p, master))
        self.shared = [m for p, m in zip(self.parameters, self.masters) if p is shared]
        counted_elsewhere = {id(m) for m in self.shared} if dist.get_rank(stages) > 0 else set()
        self.counted = [m for m in self.masters if id(m) not in counted_elsewhere]
        self.clip, self.stages = hyper["clip_norm"], stages
        groups = [{"params": [m for m in self.masters if m.dim() > 1], "weight_decay": hyper["weight_decay"]},
                  {"params": [m for m in self.masters if m.dim() == 1], "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(groups, lr=hyper["learning_rate"], betas=(hyper["beta1"], hyper["beta2"]),
                                       eps=hyper["epsilon"], fused=True)

    @staticmethod
    def accumulate(parameter, master):
        if master.grad is None:
            master.grad = parameter.grad.float()
        else:
            master.grad.add_(parameter.grad)
        parameter.grad = None

    @torch.no_grad()
    def step(self):
        for master in self.shared:
            dist.all_reduce(master.grad, group=self.stages)
        square = get_total_norm([m.grad for m in self.counted]) ** 2
        if dist.get_world_size(self.stages) > 1:
            dist.all_reduce(square, group=self.stages)
        clip_grads_with_norm_(self.masters, self.clip, square.sqrt())
        self.adamw.step()
        self.adamw.zero_grad()
        for parameter, master in zip(self.parameters, self.masters):
            if parameter is not master:
                parameter.copy_(master)


class Trainer:
    def __init__(self, setting):
        self.job, self.stages, self.replicas = setting["job"], setting["stages"], setting["replicas"]
        self.replica, self.stage = divmod(setting["rank"], self.stages)
        self.micro_batches = self.job["micro_batches"] // self.replicas
        self.stage_group, self.replica_group = self.groups()
        layers = self.job["sizes"]["layers"]
        borders = [0, setting["cut"], layers] if self.stages == 2 else [0, layers]
        self.model = Gpt2(self.job["sizes"], borders[self.stage], borders[self.stage + 1])
        self.load(setting["weights"])
        self.computes = torch.bfloat16 if setting["precision"] == "bf16" else torch.float32
        self.autocast = setting["precision"] == "autocast"
        shared = self.model.wte.weight if self.stages == 2 else None
        self.optimizer = Optimizer(self.model, self.computes, self.job["optimizer"], shared, self.stage_group)
        self.run = torch.compile(self.model, dynamic=False) if setting["compiled"] else self.model
        self.lose = torch.compile(self.loss, dynamic=False) if setting["compiled"] else self.loss
        if self.replicas > 1:
            self.run = DistributedDataParallel(self.run, process_group=self.replica_group, gradient_as_bucket_view=True)
        self.pipeline = self.make_pipeline() if self.stages == 2 else None
        text = sluice_start.read_text(self.job["text"])
        self.batches = sluice_start.Batches(text, self.job["batch"], self.job["sequence"], self.job["seed"])
        self.steps = 0

    def groups(self):
        """The stages of this replica, and the replicas of this stage. All ranks make all groups."""
        ranks = [[replica * self.stages + stage for stage in range(self.stages)] for replica in range(self.replicas)]
        stages, replicas = [dist.new_group(row) for row in ranks], [dist.new_group(list(row)) for row in zip(*ranks)]
        return stages[self.replica], replicas[self.stage]

    def load(self, folder):
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(torch.from_numpy(np.load(f"{folder}/{name}.npy")))

    def loss(self, logits, targets):
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()) / self.micro_batches

    def make_pipeline(self):
        """Example inputs say what is sent, so that no stage has to find out."""
        rows = self.job["batch"] // self.job["micro_batches"]
        sent = torch.bfloat16 if self.autocast and self.stage == 1 else self.computes
        tokens = torch.zeros(rows, self.job["sequence"], dtype=torch.int64)
        hidden = torch.zeros(rows, self.job["sequence"], self.job["sizes"]["channels"], dtype=self.computes)
        logits = torch.zeros(rows, self.job["sequence"], self.job["sizes"]["vocabulary"], dtype=sent)
        ends = (tokens, hidden) if self.stage == 0 else (hidden.requires_grad_(), logits)
        stage = PipelineStage(self.run, self.stage, self.stages, torch.device("cpu"), input_args=(ends[0],),
                              output_args=(ends[1].requires_grad_(),), group=self.stage_group)
        return Schedule1F1B(stage, self.micro_batches, loss_fn=self.lose, scale_grads=False)

    def gradients(self, tokens, targets):
        """Of this replica's part of the step; returns its mean loss, or nothing but on the last stage."""
        if self.pipeline and self.stage == 0:
            self.pipeline.step(tokens)
            return None
        losses = []
        if self.pipeline:
            self.pipeline.step(target=targets, losses=losses)
        else:
            for x, y in zip(tokens.chunk(self.micro_batches), targets.chunk(self.micro_batches)):
                waits = self.replicas > 1 and len(losses) + 1 < self.micro_batches  # with the exchange for the last one
                with self.run.no_sync() if waits else contextlib.nullcontext():
                    losses.append(self.lose(self.run(x), y))
                    losses[-1].backward()
        return sum(loss.item() for loss in losses)

    def train(self, steps):
        batches = [[torch.from_numpy(array) for array in self.batches.step(self.steps + i)] for i in range(steps)]
        self.steps += steps
        results = []
        dist.barrier()
        began = time.perf_counter()
        for tokens, targets in batches:
            with torch.autocast("cpu", torch.bfloat16) if self.autocast else contextlib.nullcontext():
                loss = self.gradients(tokens.chunk(self.replicas)[self.replica], targets.chunk(self.replicas)[self.replica])
            self.optimizer.step()
            ended = time.perf_counter()
            results.append([loss, ended - began])
            began = ended
        return self.with_all_replicas(results)

    def with_all_replicas(self, results):
        if self.replicas == 1 or results[0][0] is None:
            return results
        losses = torch.tensor([loss for loss, _ in results], dtype=torch.float64)
        dist.all_reduce(losses, group=self.replica_group)
        return [[loss / self.replicas, seconds] for loss, (_, seconds) in zip(losses.tolist(), results)]


def main():
    torch.set_num_threads(SETTING["threads"])
    dist.init_process_group("gloo", init_method=f"file://{SETTING['meeting']}", rank=SETTING["rank"],
                            world_size=SETTING["stages"] * SETTING["replicas"])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    trainer = Trainer(SETTING)
    for line in sys.stdin:
        print(json.dumps(trainer.train(int(line))), file=answers, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
