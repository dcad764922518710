#!/usr/bin/env python3
"""PyTorch beside Sluice: GPT-2 124M trained on this machine's CPU by both, in turn, from the same weights on the same text.

    python3 tools/bench/pytorch_gpt2.py [--rows pipeline-bf16,one-f32] [--sluice PROGRAM] [--json FILE]      (--help has more)

Needs PyTorch 2.6 or later (the processor build is enough), NumPy and a compiler for torch.compile; it is no part of the build or
the tests. docs/benchmarks/pytorch-cpu.md defines the rows and the numbers.
"""
import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import re
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile

try:
    import numpy as np

    import sluice_start
except ImportError:
    sys.exit("this needs NumPy and PyTorch in the Python that runs it: pip install numpy torch")

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WARM_UP = 2


@dataclasses.dataclass
class Layout:
    """Each rank is a process of PyTorch's; of Sluice's too where there are replicas, else all ranks are threads of one."""
    stages: int
    replicas: int
    threads: int  # of each rank


LAYOUTS = {"pipeline": Layout(2, 1, 1), "one": Layout(1, 1, 2), "replicas": Layout(1, 2, 1), "both": Layout(2, 2, 1)}
ROWS = [f"{layout}-{precision}" for layout in LAYOUTS for precision in ("f32", "bf16")]
JOB = {
    "sizes": {"layers": 12, "channels": 768, "heads": 12, "positions": 1024, "vocabulary": 50257},
    "batch": 16, "micro_batches": 8, "sequence": 256, "seed": 1,
    "optimizer": {"learning_rate": 3e-4, "minimum_learning_rate": 3e-4, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8,
                  "weight_decay": 0.1, "clip_norm": 1.0},
}
QUICK = {"sizes": {"layers": 2, "channels": 64, "heads": 2, "positions": 64, "vocabulary": 512},
         "batch": 4, "micro_batches": 4, "sequence": 64}


@dataclasses.dataclass
class Setting:
    """What the processes of one PyTorch run are told."""
    job: dict
    weights: str    # folder of the initial weights
    meeting: str    # file over which they find each other
    precision: str  # f32, bf16 or autocast
    compiled: bool
    cut: int        # blocks before the cut of a pipeline; of one process: None
    stages: int
    replicas: int
    threads: int


def environment():
    """Without what tunes libraries: Sluice needs none of it (and OMP_PROC_BIND would leave it one processor)."""
    tuning = ("OPENBLAS", "GOMP", "KMP", "OMP", "MKL", "MALLOC")
    return {name: value for name, value in os.environ.items() if not name.startswith(tuning)}


def pytorch_environment(threads):
    """Its best: the heap keeps its pages, which each step's gradients and activations would otherwise take anew."""
    return environment() | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OMP_PROC_BIND": "true",
                   "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "GLOO_SOCKET_IFNAME": "lo"}


class Processes:
    """The processes of one PyTorch run; they wait between rounds. Leaving the context ends them."""

    def __init__(self, setting, timeout):
        self.setting, self.timeout, self.children = setting, timeout, []

    def __enter__(self):
        """Each a process group, ended with its compilers; one session with Sluice, as Linux may share out time by session."""
        processors = sorted(os.sched_getaffinity(0))
        for rank in range(self.setting.stages * self.setting.replicas):
            mine = [processors[(rank * self.setting.threads + i) % len(processors)] for i in range(self.setting.threads)]
            arguments = dataclasses.asdict(self.setting) | {"rank": rank, "processors": mine}
            errors = open(f"{self.setting.meeting}.{rank}.txt", "w+")
            self.children.append((subprocess.Popen(
                [sys.executable, str(HERE / "pytorch_gpt2_worker.py"), json.dumps(arguments)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, text=True, preexec_fn=os.setpgrp,
                env=pytorch_environment(self.setting.threads)), errors))
        return self

    def __exit__(self, *_):
        for child, errors in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # with the compilers that it started
            child.wait()
            child.stdout.close()
            errors.close()

    def train(self, steps):
        """[(loss, seconds)] of the next steps."""
        for child, _ in self.children:
            with contextlib.suppress(BrokenPipeError):  # its end shows below
                child.stdin.write(f"{steps}\n")
                child.stdin.flush()
        return [self.answer(child) for child, _ in self.children][-1]

    def answer(self, child):
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            line = child.stdout.readline() if selector.select(self.timeout) else None
        if line:
            return json.loads(line)
        what = "a process of PyTorch's ended" if line == "" else f"no answer from PyTorch within {self.timeout:.0f} s"
        sys.exit(f"{what}; the last words:\n" + "\n".join(self.last_words(errors) for _, errors in self.children))

    @staticmethod
    def last_words(errors):
        errors.seek(0)
        return errors.read()[-2000:]


class Sluice:
    """Each round is a run of its own, from the beginning; its first steps don't count."""

    def __init__(self, program, folder, job, options):
        self.program, self.options = program, options
        self.metrics, self.job = f"{folder}/metrics.json", f"{folder}/job.textproto"
        sizes = " ".join(f"{name}: {value}" for name, value in job["sizes"].items())
        optimizer = " ".join(f"{name}: {value}" for name, value in job["optimizer"].items())
        pathlib.Path(self.job).write_text(
            f'model {{ family: "gpt2" {sizes} }}\ndata {{ text: "{job["text"]}" }}\n'
            f'training {{ batch: {job["batch"]} micro_batches: {job["micro_batches"]} sequence: {job["sequence"]} '
            f'seed: {job["seed"]} }}\noptimizer {{ {optimizer} }}\noutput {{ metrics: "{self.metrics}" }}\n')

    def run(self, verb, row, arguments=(), changes=()):
        layout, precision = row.split("-")
        place = LAYOUTS[layout]
        changes = [f"training.precision={precision}", f"layout.pp={place.stages}", f"layout.dp={place.replicas}",
                   f"layout.threads_per_rank={place.threads}",
                   f"schedule.name={self.options.schedule if place.stages > 1 else '1f1b'}", *changes]
        command = [self.program, verb, self.job, *arguments] + [word for change in changes for word in ("--set", change)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=self.options.timeout, env=environment())
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        return done.stdout

    def train(self, row, steps):
        place, changes = LAYOUTS[row.split("-")[0]], [f"training.steps={steps}"]
        if place.replicas > 1:
            self.run("launch", row, ["--processes", str(place.stages * place.replicas)], changes)
        else:
            self.run("train", row, changes=changes)
        lines = map(json.loads, pathlib.Path(self.metrics).read_text().splitlines())
        return [[line["loss"], line["step_seconds"]] for line in lines]

    def floor_seconds(self, row):
        """Of `sluice bench`: the matrix products of a step at their best rates."""
        found = re.search(r"^floor\s+([0-9.]+) ms", self.run("bench", row, arguments=["--steps", "1"]), re.M)
        return float(found.group(1)) / 1e3 if found else None


class Comparison:
    def __init__(self, options, job, folder):
        self.options, self.job, self.folder = options, job, folder
        self.sluice = Sluice(options.sluice, folder, job, options)
        self.cuts, self.runs = {}, 0

    def write_weights(self):
        sizes = self.job["sizes"]
        for name, shape, init in sluice_start.gpt2_specs(sizes["layers"], sizes["channels"], sizes["positions"],
                                                         sizes["vocabulary"]):
            np.save(f"{self.folder}/{name}.npy", sluice_start.initial(self.job["seed"], name, shape, init))

    def processes(self, row, variant, cut):
        layout, precision = row.split("-")
        place = LAYOUTS[layout]
        self.runs += 1
        if precision == "bf16" and ("autocast" in variant or place.replicas > 1):  # so that DDP's sums are of f32
            precision = "autocast"
        return Processes(Setting(job=self.job, weights=self.folder, meeting=f"{self.folder}/meeting{self.runs}",
                                 precision=precision, compiled="compiled" in variant, cut=cut, **dataclasses.asdict(place)),
                         self.options.timeout)

    def seconds_with(self, row, cut):
        with self.processes(row, self.options.variants[0], cut) as processes:
            processes.train(WARM_UP)
            seconds = min(seconds for _, seconds in processes.train(self.options.steps))
        print(f"  {row}, {self.options.variants[0]}, cut {self.cut_name(cut)}: {seconds * 1e3:.0f} ms", flush=True)
        return seconds

    def cut_name(self, cut):
        return f"{cut}+{self.job['sizes']['layers'] - cut}"

    def best_cut(self, row):
        """From where both stages have as many FLOPs in their products, downhill."""
        sizes = self.job["sizes"]
        if LAYOUTS[row.split("-")[0]].stages == 1:
            return None
        if self.options.cut:
            return self.options.cut
        head = sizes["vocabulary"] / (12 * sizes["channels"])  # in blocks
        cut = min(sizes["layers"] - 1, round((sizes["layers"] + head) / 2))
        tried = {cut: self.seconds_with(row, cut)}
        for way in (-1, 1):
            while 0 < cut + way < sizes["layers"]:
                if cut + way not in tried:
                    tried[cut + way] = self.seconds_with(row, cut + way)
                if tried[cut + way] >= tried[cut]:
                    break
                cut += way
        return cut

    def compare(self, row):
        """Name -> the seconds of its measured steps, and its losses from the first step to the end of the first round."""
        cut = self.cuts[row] = self.best_cut(row)
        rounds = {"sluice": []} | {variant: [] for variant in self.options.variants}
        with contextlib.ExitStack() as stack:
            running = {v: stack.enter_context(self.processes(row, v, cut)) for v in self.options.variants}
            first = {name: process.train(WARM_UP) for name, process in running.items()}
            for _ in range(self.options.rounds):
                steps = self.sluice.train(row, WARM_UP + self.options.steps)
                first["sluice"] = steps
                rounds["sluice"].append(steps[WARM_UP:])
                for name, process in running.items():
                    rounds[name].append(process.train(self.options.steps))
        for name in running:
            first[name] = first[name] + rounds[name][0]
        return {name: {"step_seconds": [seconds for steps in rounds[name] for _, seconds in steps],
                       "losses": [loss for loss, _ in first[name]]} for name in rounds}

    def report(self, row):
        measured = self.compare(row)
        floor = self.sluice.floor_seconds(row) if self.options.floor else None
        ours = statistics.median(measured["sluice"]["step_seconds"])
        for name, run in measured.items():
            run["median"] = statistics.median(run["step_seconds"])
            run["times_sluice"] = run["median"] / ours
            run["loss_difference"] = max(abs(a - b) for a, b in zip(run["losses"], measured["sluice"]["losses"]))
            title = f"{name}, cut {self.cut_name(self.cuts[row])}" if self.cuts[row] and name != "sluice" else name
            self.print_run(row, title, run, floor)
        for name, run in measured.items():
            print(f"    losses, {name}: " + " ".join(f"{loss:.6f}" for loss in run["losses"]), flush=True)
        return {"blocks_before_cut": self.cuts[row], "floor_seconds": floor, "runs": measured}

    def print_run(self, row, title, run, floor):
        tokens = self.job["batch"] * self.job["sequence"]
        milliseconds = [1e3 * seconds for seconds in (run["median"], min(run["step_seconds"]), max(run["step_seconds"]))]
        print(f"{row:<15}{title:<26}" + "".join(f"{value:9.1f}" for value in milliseconds) +
              f"{tokens / run['median']:10.0f}{run['times_sluice']:8.2f}{run['loss_difference']:12.1e}" +
              (f"{100 * floor / run['median']:8.1f} %" if floor else ""), flush=True)


def processor():
    found = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else "unknown"


def versions(program):
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{sys.executable} has no PyTorch: pip install torch (the processor build is enough)")
    if tuple(int(n) for n in re.findall(r"\d+", torch)[:2]) < (2, 6):
        sys.exit(f"PyTorch {torch} is too old: 2.6 is the first whose AdamW and pipelining do what is compared here")
    try:
        sluice = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"cannot run {program}: {error}; build it with ./bazelw build //:sluice, or name it with --sluice")
    return {"torch": torch, "numpy": np.__version__, "python": sys.version.split()[0], "sluice": sluice}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")
    parser.add_argument("--rows", type=words, default=ROWS, help="of " + ",".join(ROWS))
    parser.add_argument("--variants", type=words, default=["eager", "compiled"],
                        help="of eager,compiled,eager-autocast,compiled-autocast; the first one chooses the cut")
    parser.add_argument("--sluice", default=str(ROOT / "bazel-bin/sluice"), help="the program")
    parser.add_argument("--schedule", default="1f1b", help="of Sluice's pipeline; PyTorch's is always 1f1b")
    parser.add_argument("--text", default=str(ROOT / "examples/data/kjv"), help="a file, or a folder of files")
    parser.add_argument("--cut", type=int, default=0, help="blocks on PyTorch's first stage; left out: the best is looked for")
    parser.add_argument("--layers", type=int, default=JOB["sizes"]["layers"],
                        help="of the model; fewer where PyTorch's four processes (4 GB each) don't fit in memory")
    parser.add_argument("--rounds", type=int, default=3, help="in which all take their turn")
    parser.add_argument("--steps", type=int, default=3, help="of each in a round")
    parser.add_argument("--floor", action="store_true", help="run sluice bench too, for the shares of its floor")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for a round of one of them")
    parser.add_argument("--json", help="file for everything measured")
    parser.add_argument("--quick", action="store_true", help="a small model and one step: does it run?")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if unknown := set(options.variants) - {"eager", "compiled", "eager-autocast", "compiled-autocast"}:
        parser.error(f"no such variant: {', '.join(sorted(unknown))}")
    if not pathlib.Path(options.text).exists():
        parser.error(f"{options.text} is missing; ./bazelw makes the example's text, or name another with --text")
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("this needs two processors")
    return options


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that nothing is left behind
    options = parse()
    job = JOB | {"text": str(pathlib.Path(options.text).resolve())}
    job["sizes"] = JOB["sizes"] | {"layers": options.layers}
    if options.quick:
        job, options.rounds, options.steps = job | QUICK, 1, 1
    used = versions(options.sluice)
    machine = {"processor": processor(), "processors": len(os.sched_getaffinity(0)), "date": datetime.date.today().isoformat()}
    print(f"PyTorch {used['torch']}, {used['sluice']}; {machine['processor']}, {machine['date']}")
    print(f"{'row':<15}{'who':<26}{'step, ms':>9}{'min':>9}{'max':>9}{'tokens/s':>10}{'times':>8}{'losses':>12}"
          + ("  of floor" if options.floor else ""))
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(options, job, folder)
        comparison.write_weights()
        results = {row: comparison.report(row) for row in options.rows}
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"versions": used, "machine": machine, "job": job, "rows": results},
                                                         indent=1) + "\n")


if __name__ == "__main__":
    main()
