# What the packing scripts share: which libraries a program takes along, with their notices. Sourced.

# What belongs to glibc, and so to the system that the program runs on.
readonly glibc='^(ld-linux.*|libc|libm|libpthread|libdl|librt|libresolv|libutil|libanl|libmvec|linux-vdso)\.so'
# What comes with the driver and with CUDA's libraries, half a gigabyte and more; never taken along.
readonly cuda='^lib(cuda|cudart|cublas|cublasLt|cudnn[a-z_]*|nccl|nvJitLink|nvrtc[a-z-]*)\.so'

# The shared libraries that the program files need, as paths: those that are neither glibc's nor CUDA's, and glibc's.
libraries_of() {
  all_libraries "$@" | while read -r path; do
    [[ $(basename "$path") =~ $glibc|$cuda ]] || echo "$path"
  done
}
glibc_of() {
  all_libraries "$@" | while read -r path; do
    if [[ $(basename "$path") =~ $glibc ]]; then echo "$path"; fi
  done
}
all_libraries() {
  local resolved file
  resolved=$(for file; do ldd "$file"; done)
  if grep 'not found' <<<"$resolved" >&2; then
    echo "bundle: libraries missing" >&2
    return 1
  fi
  # The loader stands there by its path alone.
  awk '$2 == "=>" {print $3} $1 ~ /^\// {print $1}' <<<"$resolved" | sort -u
}

# Copies libraries, named on standard input, to folder $1, and Debian's notices of their packages to folder $2.
pack_libraries() {
  local folder=$1 licenses=$2 path real package notice
  mkdir -p "$folder" "$licenses"
  while read -r path; do
    cp -L "$path" "$folder/"
    real=$(readlink -f "$path")
    package=$({ dpkg -S "$real" || dpkg -S "${real#/usr}"; } 2>/dev/null | head -n 1 | cut -d: -f1) || true
    notice=/usr/share/doc/$package/copyright
    if [[ -n $package && -f $notice ]]; then
      cp -L "$notice" "$licenses/$package"
    else
      echo "bundle: no copyright notice found for $path" >&2
    fi
  done
}

# Where the user wants it: $1, relative to where they stand.
absolute() {
  local where=$1
  [[ $where == /* ]] || where=${BUILD_WORKING_DIRECTORY:-$PWD}/$where
  realpath -m -- "$where"
}

# Writes folder $1 as the archive $2, the same bytes for the same content.
archive() {
  local folder=$1 archive=$2 time=$3
  mkdir -p "$(dirname "$archive")"
  tar -C "$(dirname "$folder")" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$time" -cf - "$(basename "$folder")" |
    gzip -9n >"$archive.part"
  mv "$archive.part" "$archive"
}
