#!/usr/bin/env python3
"""What the table of kernels says and when its check fails, on reports made up here."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.getcwd(), "tools/bazel/cuda"))
import kernel_table

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6sluice4cuda12_GLOBAL__N_14CopyIfLi4EEEvNS0_4ArgsE' for 'sm_90'
ptxas info    : Function properties for _ZN6sluice4cuda12_GLOBAL__N_14CopyIfLi4EEEvNS0_4ArgsE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 128 bytes smem
ptxas info    : Compile time = 1.094 ms
"""

ROW = dict(
    zip(
        kernel_table.COLUMNS,
        ["copy", "Copy<float, 4>", "90", "40", "0", "0", "128", "2048", "75 %", "HMMA:2", "16:3 4:1", "16:1"],
    )
)


def check(old, new):
    """The check's failures and remarks where the table says `old` and the compile gave `new`."""
    page = kernel_table.table_text({("copy", "Copy<float, 4>", "90"): dict(ROW, **old)}, "nvcc 13.0.88")
    committed = kernel_table.parse_page(page)[2]
    return kernel_table.compare(committed, {("copy", "Copy<float, 4>", "90"): dict(ROW, **new)})


class KernelTableTest(unittest.TestCase):
    def test_row_from_a_report(self):
        path = os.path.join(os.environ["TEST_TMPDIR"], "copy.pic.ptxas.txt")
        with open(path, "w") as file:
            file.write(REPORT)
        launches = [(kernel_table.re.compile("Copy<.*>"), 128, 1920)]
        rows, problems = kernel_table.make_rows(kernel_table.read_reports([path]), {}, launches)
        self.assertEqual(problems, [])
        expected = dict(ROW, tensor="?", loads="?", stores="?")
        self.assertEqual(rows, {("copy", "Copy<float, 4>", "90"): expected})

    def test_kernel_without_a_launch_is_named(self):
        report = {("copy", "_ZN6sluice4cuda4CopyEv", "90"): {}}
        self.assertIn("Copy", kernel_table.make_rows(report, {}, [])[1][0])

    def test_occupancy(self):
        # By hand from the limits: warps of a block x blocks, of 64 warps.
        self.assertEqual(kernel_table.occupancy("90", 32, 256, 0), "100 %")
        self.assertEqual(kernel_table.occupancy("90", 255, 256, 0), "12 %")  # one block of 8 warps by registers
        self.assertEqual(kernel_table.occupancy("90", 40, 128, 0), "75 %")  # 65536 / 1280 = 51, in fours 48 warps
        self.assertEqual(kernel_table.occupancy("80", 128, 128, 80 << 10), "12 %")  # two blocks of 4 warps by shared memory
        self.assertEqual(kernel_table.occupancy("90", 16, 32, 0), "50 %")  # 32 blocks of a warp
        self.assertEqual(kernel_table.occupancy("999", 16, 32, 0), "-")

    def test_width_of_instructions(self):
        widths = {"LDG.E.128.CONSTANT": 16, "LDG.E.64": 8, "LDG.E": 4, "LDG.E.U16": 2, "LDGSTS.E.BYPASS.128": 16}
        for instruction, size in widths.items():
            self.assertEqual(kernel_table.width(instruction), size)

    def test_page_is_read_as_written(self):
        rows = {("copy", "Copy<float, 4>", "90"): ROW}
        self.assertEqual(
            kernel_table.parse_page("by hand\n" + kernel_table.table_text(rows, "nvcc 1")), ("by hand\n", "nvcc 1", rows)
        )

    def test_same_row_passes(self):
        self.assertEqual(check({}, {}), ([], []))

    def test_each_worse_column_fails(self):
        worse = [("registers", "41"), ("stack", "8"), ("shared", "4096"), ("occupancy", "62 %"), ("tensor", "-")]
        worse += [("loads", "16:3 4:2"), ("stores", "4:4")]
        for column, value in worse:
            failures, _ = check({}, {column: value})
            self.assertEqual(len(failures), 1, column)
            self.assertIn("%s %s, was %s" % (column, value, ROW[column]), failures[0])

    def test_spill_fails_even_where_the_table_has_it(self):
        self.assertIn("spills 16 bytes", check({"spilled": "16"}, {"spilled": "16"})[0][0])

    def test_better_row_is_a_remark(self):
        failures, remarks = check({}, {"registers": "32", "occupancy": "100 %"})
        self.assertEqual((failures, len(remarks)), ([], 1))

    def test_without_machine_code_only_the_reports_columns_count(self):
        self.assertEqual(check({}, {"tensor": "?", "loads": "?", "stores": "?"}), ([], []))

    def test_kernels_come_and_go_with_the_table(self):
        rows = {("copy", "Copy<float, 4>", "90"): ROW}
        other = {("copy", "Copy<float, 8>", "90"): ROW}
        failures = kernel_table.compare(rows, other)[0]
        self.assertIn("not in the table", failures[0])
        self.assertIn("no longer there", failures[1])
        # An architecture that was not built says nothing of its rows.
        both = {("copy", "Copy<float, 4>", "80"): ROW, ("copy", "Copy<float, 4>", "90"): ROW}
        self.assertEqual(kernel_table.compare(both, rows)[0], [])

    def test_another_compiler_only_warns(self):
        page = kernel_table.table_text({("copy", "Copy<float, 4>", "90"): ROW}, "nvcc 13.0.88")
        rows = {("copy", "Copy<float, 4>", "90"): dict(ROW, registers="255")}
        self.assertEqual(kernel_table.check(page, rows, [], "nvcc 13.0.88", True), 1)
        self.assertEqual(kernel_table.check(page, rows, [], "nvcc 13.1.1", True), 0)


if __name__ == "__main__":
    unittest.main()
