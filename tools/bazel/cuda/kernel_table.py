#!/usr/bin/env python3
"""The table of kernels: what the compiler made of each, per architecture, from ptxas's reports and the machine code.

  kernel_table.py --compiler VERSION --launches FILE [--nvdisasm PROGRAM] (--check | --write) PAGE FILES...

FILES are the *.ptxas.txt and *.ARCHITECTURE.cubin of the compiles (nvcc.sh). PAGE is the committed table: its text up to
the line `Compiler:` is written by hand, the rest by --write. --check compares: under the same compiler a worse row, a spill
or a missing row fails (exit 1); under another these are warnings. Without nvdisasm the columns that come from the machine
code are not compared, and PAGE is not written.
"""

import argparse
import collections
import os
import re
import subprocess
import sys

Multiprocessor = collections.namedtuple("Multiprocessor", "warps blocks registers shared reserved")

# Per multiprocessor: resident warps and blocks, registers, bytes of shared memory, and bytes of it that each block loses.
# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; cuda_occupancy.h of the toolkit.
MULTIPROCESSORS = {
    "80": Multiprocessor(64, 32, 65536, 164 << 10, 1024),
    "86": Multiprocessor(48, 16, 65536, 100 << 10, 1024),
    "89": Multiprocessor(48, 24, 65536, 100 << 10, 1024),
    "90": Multiprocessor(64, 32, 65536, 228 << 10, 1024),
    "100": Multiprocessor(64, 32, 65536, 228 << 10, 1024),
    "120": Multiprocessor(48, 24, 65536, 100 << 10, 1024),
}

COLUMNS = ["file", "kernel", "sm", "registers", "spilled", "stack", "threads", "shared", "occupancy", "tensor", "loads", "stores"]
FROM_MACHINE_CODE = ["tensor", "loads", "stores"]
TENSOR_INSTRUCTION = re.compile(r"^(H|I|D|B|Q|HG|IG|QG|BG|O)MMA$|^UTC\w*MMA$")


def short_names(mangled):
    """Mangled name -> the kernel's name with its template's arguments, without namespaces, result and parameters."""
    mangled = sorted(mangled)
    demangled = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    names = {}
    for symbol, name in zip(mangled, demangled.splitlines()):
        name = re.sub(r"\(anonymous namespace\)::|\b\w+::", "", name)
        name = re.sub(r"^void ", "", name)
        names[symbol] = re.sub(r"\([^()]*\)$", "", name).replace("(int)", "").replace("(bool)1", "true").replace("(bool)0", "false")
    return names


def source_of(path):
    """`norm` of .../norm.pic.ptxas.txt and .../norm.pic.90.cubin."""
    return os.path.basename(path).split(".")[0]


def read_reports(paths):
    """(source, mangled name, architecture) -> registers, bytes spilled, bytes of stack, bytes of static shared memory."""
    found = {}
    for path in paths:
        with open(path) as file:
            text = file.read()
        for match in re.finditer(
            r"Compiling entry function '(\S+)' for 'sm_(\w+)'\n.*\n"
            r"\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n.*Used (\d+) registers(.*)",
            text,
        ):
            name, arch, stack, stores, loads, registers, rest = match.groups()
            shared = re.search(r"(\d+) bytes smem", rest)
            found[source_of(path), name, arch] = {
                "registers": int(registers),
                "spilled": int(stores) + int(loads),
                "stack": int(stack),
                "shared": int(shared.group(1)) if shared else 0,
            }
    return found


def width(instruction):
    """Bytes that one thread moves by this instruction (LDG.E.128.CONSTANT, ...)."""
    for suffix, size in (("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1)):
        if suffix in instruction.split("."):
            return size
    return 4


def counts(widths):
    """`16:4 4:1`: four instructions of 16 bytes and one of 4."""
    return " ".join("%d:%d" % (size, widths[size]) for size in sorted(widths, reverse=True)) or "-"


def read_machine_code(nvdisasm, paths):
    """(source, mangled name, architecture) -> tensor-core instructions; global loads and stores by their width in bytes."""
    found = {}
    for path in paths:
        arch = path.rsplit(".", 2)[1]
        text = subprocess.run([nvdisasm, "-c", "-ndf", path], capture_output=True, text=True, check=True).stdout
        for section in re.split(r"^\s*\.section\s+\.text\.", text, flags=re.MULTILINE)[1:]:
            name = section.split(",", 1)[0]
            instructions = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", section, flags=re.MULTILINE)
            tensor, loads, stores = collections.Counter(), collections.Counter(), collections.Counter()
            for instruction in instructions:
                operation = instruction.split(".")[0]
                if TENSOR_INSTRUCTION.match(operation):
                    tensor[operation] += 1
                elif operation in ("LDG", "LDGSTS", "LD"):
                    loads[width(instruction)] += 1
                elif operation in ("STG", "ST"):
                    stores[width(instruction)] += 1
            found[source_of(path), name, arch] = {
                "tensor": " ".join("%s:%d" % item for item in sorted(tensor.items())) or "-",
                "loads": counts(loads),
                "stores": counts(stores),
            }
    return found


def read_launches(path):
    """[(pattern, threads in a block, bytes of dynamic shared memory)]"""
    launches = []
    with open(path) as file:
        for line in file:
            fields = line.split("#")[0].split(None, 2)
            if fields:
                launches.append((re.compile(fields[2].strip()), int(fields[0]), int(fields[1])))
    return launches


def occupancy(arch, registers, threads, shared):
    """Resident warps in percent of those that a multiprocessor has room for; "-" for an architecture not known here."""
    limits = MULTIPROCESSORS.get(arch.rstrip("af"))
    if limits is None:
        return "-"
    warps = -(-threads // 32)
    # Registers are given to a warp in units of 256, and to a block's warps in fours.
    per_warp = -(-registers * 32 // 256) * 256
    by_registers = limits.registers // per_warp // 4 * 4 // warps
    by_shared = limits.shared // (-(-shared // 128) * 128 + limits.reserved)
    blocks = min(limits.blocks, limits.warps // warps, by_registers, by_shared)
    return "%d %%" % (100 * blocks * warps // limits.warps)


def make_rows(reports, machine_code, launches):
    """(source, kernel, architecture) -> row; what could not be made a row of, as text."""
    names, rows, problems = short_names({symbol for _, symbol, _ in reports}), {}, []
    for (source, symbol, arch), report in reports.items():
        name = names[symbol]
        launch = next((each for each in launches if each[0].fullmatch(name)), None)
        if launch is None:
            problems.append("%s: the list of launches has no line for it" % name)
            continue
        row = dict(report, file=source, kernel=name, sm=arch, threads=launch[1], shared=report["shared"] + launch[2])
        row["occupancy"] = occupancy(arch, row["registers"], row["threads"], row["shared"])
        row.update(machine_code.get((source, symbol, arch), dict.fromkeys(FROM_MACHINE_CODE, "?")))
        rows[source, name, arch] = {column: str(row[column]) for column in COLUMNS}
    return rows, problems


def table_text(rows, compiler):
    """The page from the line `Compiler:` on."""
    lines = ["Compiler: %s" % compiler, "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for key in sorted(rows, key=lambda key: (key[0], key[1], int(re.match(r"\d+", key[2]).group()))):
        lines.append("| " + " | ".join(rows[key][column] for column in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def parse_page(text):
    """A page: what was written by hand, the compiler's version, the rows."""
    by_hand, _, table = text.partition("Compiler: ")
    lines, rows = table.splitlines(), {}
    for line in lines[1:]:
        fields = line.strip("| ").split(" | ")
        if len(fields) == len(COLUMNS) and fields != COLUMNS:
            row = dict(zip(COLUMNS, fields))
            rows[row["file"], row["kernel"], row["sm"]] = row
    return by_hand, lines[0] if lines else "none", rows


def wide_share(text):
    """Share of the instructions that move 16 bytes."""
    widths = dict((int(part) for part in pair.split(":")) for pair in text.split() if ":" in pair)
    return widths.get(16, 0) / max(1, sum(widths.values()))


def worse_in(old, new):
    """The columns in which a row is worse than it was."""
    worse = [column for column in ("registers", "spilled", "stack", "shared") if int(new[column]) > int(old[column])]
    if "-" not in (old["occupancy"], new["occupancy"]) and int(new["occupancy"][:-2]) < int(old["occupancy"][:-2]):
        worse.append("occupancy")
    if "?" not in (old["tensor"], new["tensor"]):
        worse += ["tensor"] if old["tensor"] != "-" and new["tensor"] == "-" else []
        worse += [column for column in ("loads", "stores") if wide_share(new[column]) < wide_share(old[column])]
    return worse


def compare(committed, rows):
    """What fails, and what is only worth saying, as two lists of lines. Architectures that were not built are left out."""
    failures, remarks = [], []
    for key, row in rows.items():
        where = "%s: %s, sm_%s" % key
        if int(row["spilled"]):
            failures.append("%s: spills %s bytes of registers" % (where, row["spilled"]))
        if key not in committed:
            failures.append("%s: not in the table" % where)
            continue
        old = committed[key]
        worse = worse_in(old, row)
        if worse:
            failures.append("%s: worse: %s" % (where, ", ".join("%s %s, was %s" % (c, row[c], old[c]) for c in worse)))
        elif any(row[column] not in (old[column], "?") for column in COLUMNS):
            remarks.append("%s: differs from the table, and is no worse" % where)
    built = {arch for _, _, arch in rows}
    gone = sorted(key for key in set(committed) - set(rows) if key[2] in built)
    return failures + ["%s: %s, sm_%s: in the table, and no longer there" % key for key in gone], remarks


def check(page, rows, problems, compiler, has_machine_code):
    """Prints what is wrong; the exit status."""
    _, committed_compiler, committed = parse_page(page)
    failures, remarks = compare(committed, rows)
    failures = problems + failures
    if not has_machine_code:
        print("no nvdisasm: tensor-core instructions and widths are not compared (tools/bazel/cuda/wheels.sh gets it)")
    if committed_compiler != compiler:
        print("the table is of %s, this compiler is %s: all that follows is a warning" % (committed_compiler, compiler))
        failures, remarks = [], failures + remarks
    print("".join(line + "\n" for line in ["warning: " + remark for remark in remarks] + failures), end="")
    print("%d kernels and architectures, %d worse or missing" % (len(rows), len(failures)))
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--launches", required=True)
    parser.add_argument("--nvdisasm", default="")
    parser.add_argument("--check", metavar="PAGE")
    parser.add_argument("--write", metavar="PAGE")
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()

    reports = read_reports([path for path in options.files if path.endswith(".ptxas.txt")])
    cubins = [path for path in options.files if path.endswith(".cubin")]
    machine_code = read_machine_code(options.nvdisasm, cubins) if options.nvdisasm else {}
    rows, problems = make_rows(reports, machine_code, read_launches(options.launches))
    with open(options.check or options.write) as file:
        page = file.read()
    if options.check:
        return check(page, rows, problems, options.compiler, bool(options.nvdisasm))
    if problems or not options.nvdisasm:
        print("not written:", *(problems or ["no nvdisasm; tools/bazel/cuda/wheels.sh gets it"]), sep="\n", file=sys.stderr)
        return 1
    with open(options.write, "w") as file:
        file.write(parse_page(page)[0] + table_text(rows, options.compiler))
    return 0


if __name__ == "__main__":
    sys.exit(main())
