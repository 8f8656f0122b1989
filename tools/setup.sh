# Sourced by ./quickstart and ./run-tests: installs what is missing, configures and builds build/release once.
# Needs: $root (the repository), $install (yes/no), $torch (a LibTorch folder or empty), $want_tests (yes/no). $want_fuzzers=yes: clang too, no LibTorch.

say() { printf '\033[1m== %s\033[0m\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 2; }

packages=(g++ cmake ninja-build ccache pkg-config nlohmann-json3-dev libspdlog-dev libcli11-dev libsqlite3-dev sqlite3
          libboost-dev libssl-dev libsndfile1-dev libsamplerate0-dev zlib1g-dev libopenblas-dev
          libmimalloc-dev)
test_packages=(libgtest-dev libgmock-dev iproute2 python3-numpy python3-yaml slurm-wlm munge)
fuzz_packages=(clang libclang-rt-14-dev libgtest-dev libgmock-dev)

install_packages() {
  local wanted=("${packages[@]}") missing=() sudo=""
  if [ "${want_fuzzers:-no}" = yes ]; then
    wanted+=("${fuzz_packages[@]}")
  elif [ -z "$torch" ] && [ "${want_torch:-yes}" = yes ]; then
    wanted+=(libtorch-dev libgloo-dev)  # of one date: Gloo must be that of LibTorch
  fi
  if [ "$want_tests" = yes ]; then
    wanted+=("${test_packages[@]}")
    # Debian's own Python with its PyTorch: the peer of the TorchScript and cross-check tests.
    [ -n "$torch" ] || [ "${want_torch:-yes}" = no ] || wanted+=(python3-torch)
  fi
  command -v dpkg-query >/dev/null || { say "not a Debian system: packages are left to you"; return; }
  for package in "${wanted[@]}"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || { say "packages: all there"; return; }
  if [ "$install" = no ]; then
    die "these packages are missing and --no-install was given: ${missing[*]}"
  fi
  [ "$(id -u)" = 0 ] || sudo=sudo
  [ -z "$sudo" ] || command -v sudo >/dev/null || die "not root and no sudo; install as root: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$root/build/apt.log" 2>&1 ||
    { tail -n 20 "$root/build/apt.log" >&2; die "apt-get failed (the whole log: build/apt.log)"; }
}

build() {
  local options=(-DFUSION_TESTS=$([ "$want_tests" = yes ] && echo ON || echo OFF))
  [ -z "$torch" ] || options+=("-DCMAKE_PREFIX_PATH=$torch")
  # A build folder that has the tests keeps them: quickstart after run-tests builds nothing.
  if [ "$want_tests" != yes ] && [ -f "$root/build/release/CMakeCache.txt" ]; then options=("${options[@]:1}"); fi
  local stamp="$root/build/release/.configured" line="${options[*]-} $(cksum <"$root/CMakeLists.txt")"
  if [ ! -f "$root/build/release/build.ninja" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$line" ]; then
    say "configuring build/release"
    (cd "$root" && cmake --preset release ${options[@]+"${options[@]}"}) >"$root/build/configure.log" 2>&1 ||
      { tail -n 30 "$root/build/configure.log" >&2; die "configuring failed (the whole log: build/configure.log)"; }
    printf '%s' "$line" >"$stamp"
  fi
  say "building (nothing happens where all is built)"
  ninja -C "$root/build/release" || die "the build failed; the compiler's words stand above"
}

# build_preset asan [TARGET...]: a build folder of its own, configured as CMakePresets.json says.
build_preset() {
  local preset=$1
  shift
  say "building build/$preset (nothing happens where all is built)"
  (cd "$root" && cmake --preset "$preset") >"$root/build/configure-$preset.log" 2>&1 ||
    { tail -n 30 "$root/build/configure-$preset.log" >&2; die "configuring failed (the whole log: build/configure-$preset.log)"; }
  ninja -C "$root/build/$preset" "$@" || die "the build failed; the compiler's words stand above"
}

setup() {
  mkdir -p "$root/build"
  install_packages
  build
}
