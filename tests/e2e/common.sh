# What the end-to-end tests have in common; each sources it with the program's path as its first argument, and then stands in
# an empty folder of its own.
set -u

sluice=$PWD/$1
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/e2e.XXXXXX")
cd "$work" || exit 1
failures=0

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# expect WORDS FILE: the file has a line that matches.
expect() {
  local words=$1 file=$2
  grep -qE -- "$words" "$file" || fail "no \"$words\" in $file: $(tail -n 40 "$file")"
}

# make_texts FOLDER: two files of 40 lines to train on and to hold out.
make_texts() {
  local i
  mkdir -p "$1"
  for i in $(seq 1 40); do
    echo "line $i: the quick brown fox jumps over the lazy dog $((i * i)) times and rests."
  done | tee "$1/a.txt" >"$1/b.txt"
}

# The last command of a test.
finish() {
  ((failures == 0)) && echo "all as it should be"
  exit $((failures > 0))
}
