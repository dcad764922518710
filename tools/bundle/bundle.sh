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
readonly user_directory=${BUILD_WORKING_DIRECTORY:-$PWD} workspace=${BUILD_WORKSPACE_DIRECTORY:-}

# What belongs to glibc, and so to the system that the archive is unpacked on.
readonly glibc='^(ld-linux.*|libc|libm|libpthread|libdl|librt|libresolv|libutil|libanl|libmvec|linux-vdso)\.so'

version=$("$program" --version | awk '{print $NF}')
system=$(. /etc/os-release && echo "$ID${VERSION_ID:-}")
name=sluice-$version-$system-$(uname -m)
[[ $where == /* ]] || where=$user_directory/$where
[[ $where == *.tar.gz ]] || where=$where/$name.tar.gz
where=$(realpath -m -- "$where")

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
readonly root=$scratch/$name
mkdir -p "$root/lib" "$root/licenses"

# The shared libraries that the program file $1 needs, as paths.
libraries_of() {
  local resolved
  resolved=$(ldd "$1")
  if grep 'not found' <<<"$resolved" >&2; then
    echo "bundle: libraries missing" >&2
    return 1
  fi
  awk '$2 == "=>" {print $3}' <<<"$resolved" | while read -r path; do
    [[ $(basename "$path") =~ $glibc ]] || echo "$path"
  done
}

cp -L "$program" "$root/lib/sluice"
chmod 755 "$root/lib/sluice"
cp -L "$license" "$root/LICENSE"
libraries=$(libraries_of "$program")
while read -r path; do
  cp -L "$path" "$root/lib/"
  # Debian's notice of the package that the library comes from.
  real=$(readlink -f "$path")
  package=$({ dpkg -S "$real" || dpkg -S "${real#/usr}"; } 2>/dev/null | head -n 1 | cut -d: -f1) || true
  notice=/usr/share/doc/$package/copyright
  if [[ -n $package && -f $notice ]]; then
    cp -L "$notice" "$root/licenses/$package"
  else
    echo "bundle: no copyright notice found for $path" >&2
  fi
done <<<"$libraries"

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
mkdir -p "$(dirname "$where")"
tar -C "$scratch" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(stat -Lc %Y "$program")" -cf - "$name" |
  gzip -9n >"$where.part"
mv "$where.part" "$where"
echo "$where ($(du -h "$where" | cut -f1))"
