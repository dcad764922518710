#!/bin/bash
# no_dependency.sh TARGET FILE: fails if FILE names anything, which TARGET then must not depend on.
if [[ ! -f $2 ]]; then
  echo "no query result at $2"
  exit 1
fi
if [[ -s $2 ]]; then
  echo "$1 must not depend on:"
  cat "$2"
  exit 1
fi
