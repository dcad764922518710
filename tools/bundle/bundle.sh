#!/bin/bash
# Packs the program so that it runs on another machine of the same system without Bazel or any -dev package:
#   bazel run //tools/bundle [-- WHERE]
# WHERE is a folder (default: the one you stand in) or a name ending in .tar.gz. The archive holds the program, every
# shared library it needs but the C library's own, their copyright notices, the example jobs with their text, LICENSE and
# a README.
#
# Called by its BUILD rule as: bundle.sh PROGRAM LICENSE [WHERE]
set -euo pipefail

readonly program=$1 license=$2
where=${3:-.}
readonly workspace=${BUILD_WORKSPACE_DIRECTORY:-}
source tools/bundle/packing.sh

version=$("$program" --version | awk '{print $NF}')
system=$(. /etc/os-release && echo "$ID${VERSION_ID:-}")
name=sluice-$version-$system-$(uname -m)
[[ $where == *.tar.gz ]] || where=$where/$name.tar.gz
where=$(absolute "$where")

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
readonly root=$scratch/$name
mkdir -p "$root/lib"

cp -L "$program" "$root/lib/sluice"
chmod 755 "$root/lib/sluice"
cp -L "$license" "$root/LICENSE"
libraries=$(libraries_of "$program")
pack_libraries "$root/lib" "$root/licenses" <<<"$libraries"

cat >"$root/sluice" <<'LAUNCHER'
#!/bin/bash
# Runs the program with the libraries beside it.
here=$(dirname -- "$(readlink -f -- "$0")")
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec -a "$0" "$here/lib/sluice" "$@"
LAUNCHER
chmod 755 "$root/sluice"

if compgen -G "$workspace/examples/*.textproto" >/dev/null; then
  mkdir -p "$root/examples"
  cp "$workspace"/examples/*.textproto "$root/examples/"
  if [[ -d $workspace/examples/data/kjv ]]; then
    mkdir "$root/examples/data"
    cp -r "$workspace/examples/data/kjv" "$root/examples/data/"
  fi
fi

cat >"$root/README" <<README
Sluice $version, built for $system on $(uname -m).

Trains a neural network that is cut across devices. Nothing to install: lib/ holds every library that is needed beyond
the C library (glibc $(getconf GNU_LIBC_VERSION | awk '{print $2}') or newer).

  ./sluice --help
  ./sluice plan examples/NAME.textproto     what would happen
  ./sluice train examples/NAME.textproto    train

Licence: Apache-2.0 (LICENSE). licenses/ holds the notices of the libraries in lib/.
README

# What was packed must start with what was packed.
env -i PATH="$PATH" "$root/sluice" --version >/dev/null
archive "$root" "$where" "$(stat -Lc %Y "$program")"
echo "$where ($(du -h "$where" | cut -f1))"
