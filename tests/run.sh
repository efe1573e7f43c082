#!/bin/bash
# Installs what tests need, builds thaw, runs every test:     tests/run.sh [--tier default|long]
# Parts: gcc build with warnings as errors, ctest, tests/*.sh, the Python tests of tests/{cli,mpi,parity,cluster}, unit
# tests under AddressSanitizer and UndefinedBehaviorSanitizer, a clang build with warnings as errors, a build with MPICH and
# its collectives; the long tier adds more repetitions, more tests with MPICH, and the comparison of large networks with
# Keras (where a Keras is: THAW_KERAS).
# One line per part, logs in build/test-logs; the last line is "N passed, M failed". Exit status 0: nothing failed.
set -u
cd "$(dirname "$0")/.." || exit 1
tier=default
while [ $# -gt 0 ]; do
    case $1 in
    --tier)
        tier=${2:-}
        shift
        ;;
    --tier=*) tier=${1#--tier=} ;;
    -h | --help)
        sed -n '2,7s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "tests/run.sh: unknown option $1; see --help" >&2
        exit 64
        ;;
    esac
    shift
done
case $tier in
default | long) ;;
*)
    echo "tests/run.sh: --tier is default or long" >&2
    exit 64
    ;;
esac
export THAW_TIER=$tier THAW_BIN=$PWD/build/thaw
logs=build/test-logs
passed=0 failed=0
jobs=$(nproc)

# part NAME SECONDS COMMAND...: runs a part with a time limit, and counts it by what its log says: ctest's summary, the
# harness's "N passed, M failed, K skipped", or else the exit status as one test (77: skipped).
part() {
    local name=$1 limit=$2 log began status good=0 bad=0 note="" counts
    shift 2
    log=$logs/$(printf '%s' "$name" | tr -c 'a-zA-Z0-9_\n' '-').log
    began=$SECONDS
    timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null
    status=$?
    counts=$(sed -n 's/^[0-9]*% tests passed, \([0-9]*\) tests\{0,1\} failed out of \([0-9]*\)$/\1 \2 ctest/p
                     s/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$log" | tail -1)
    case $counts in
    *ctest)
        counts=${counts% ctest}
        bad=${counts% *}
        good=$((${counts#* } - bad))
        ;;
    *" "*)
        good=${counts%% *}
        bad=${counts#* }
        bad=${bad% *}
        [ "${counts##* }" = 0 ] || note=" (${counts##* } skipped)"
        ;;
    *)
        if [ $status -eq 77 ]; then
            note=" (skipped: $(tail -1 "$log"))"
        elif [ $status -eq 0 ]; then
            good=1
        fi
        ;;
    esac
    if [ $status -ne 0 ] && [ $status -ne 77 ] && [ "$bad" -eq 0 ]; then
        bad=1
    fi
    [ $status -ne 124 ] && [ $status -ne 137 ] || note="$note (no end within $limit s)"
    passed=$((passed + good))
    failed=$((failed + bad))
    printf '%-6s %-40s %3d passed, %d failed%s, %d s\n' "$([ "$bad" -eq 0 ] && echo ok || echo FAILED)" "$name" \
        "$good" "$bad" "$note" $((SECONDS - began))
    if [ "$bad" -ne 0 ]; then
        grep -E '^(FAIL|ERROR|AssertionError)|Failed|\*\*\*|error:|^\[ +FAILED' "$log" | head -40
        echo "       ... end of $log:"
        tail -n 25 "$log" | sed 's/^/       /'
        return 1
    fi
}

# build FOLDER OPTION...: configures and builds all targets (called by name).
# shellcheck disable=SC2317
build() {
    local folder=$1
    shift
    cmake -B "$folder" "$@" . && cmake --build "$folder" -j "$jobs"
}

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit $?
}

need="libcmocka-dev python3 python3-numpy python3-h5py python3-pil iproute2 curl"
# shellcheck disable=SC2086
jobs/quickstart.sh --packages $need clang libomp-dev libsimgrid-dev || jobs/quickstart.sh --packages $need clang libomp-dev ||
    jobs/quickstart.sh --packages $need || {
    echo "0 passed, 1 failed"
    exit 1
}
jobs/quickstart.sh --packages mpich libmpich-dev # beside Open MPI, which stays the default
# A build folder of another place or with other tools is made anew.
for folder in build build-asan build-clang build-mpich; do
    cache=$folder/CMakeCache.txt
    [ ! -f $cache ] || grep -qx "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" $cache || rm -rf $folder
done
# The first Python that has what the tests need.
for python in "${PYTHON:-}" python3 /usr/bin/python3; do
    [ -z "$python" ] || ! "$python" -c 'import numpy, h5py, PIL' 2>/dev/null || break
done
export PYTHON=$python
mkdir -p $logs
rm -f $logs/*.log
export -f build
export jobs

# shellcheck disable=SC2016
part "build (warnings are errors)" 600 bash -c 'build build -DTHAW_TESTS=ON -DTHAW_WERROR=ON' || finish
part "ctest" 600 ctest --test-dir build --output-on-failure --timeout 300
for script in tests/*.sh; do
    [ "$script" = tests/run.sh ] || part "$script" 120 bash "$script"
done
limit=300
[ "$tier" = default ] || limit=1800
for script in tests/cli/test_*.py tests/mpi/test_*.py tests/parity/test_*.py tests/cluster/test_*.py; do
    [ ! -f "$script" ] || part "$script" "$limit" "$PYTHON" "$script"
done
part "build with sanitizers" 600 bash -c \
    'build build-asan -DTHAW_MPI=OFF -DTHAW_SANITIZE=ON -DTHAW_TESTS=ON -DCMAKE_BUILD_TYPE=Debug' &&
    part "ctest with sanitizers" 600 ctest --test-dir build-asan --output-on-failure --timeout 300 -j "$jobs"
if command -v clang >/dev/null; then
    part "build with clang (warnings are errors)" 600 bash -c \
        'build build-clang -DCMAKE_C_COMPILER=clang -DTHAW_WERROR=ON -DTHAW_TESTS=ON'
else
    echo "skip   build with clang: no clang"
fi
# The same on another MPI, where it could be installed.
if command -v mpicc.mpich >/dev/null && command -v mpirun.mpich >/dev/null; then
    # shellcheck disable=SC2016
    if part "build with MPICH (warnings are errors)" 600 bash -c 'cmake -B build-mpich -DTHAW_MPI=mpich -DTHAW_WERROR=ON . &&
        cmake --build build-mpich -j "$jobs" --target thaw comm_program exchange_program'; then
        names=comm # ranks of MPICH never sleep while they wait: more of them than cores take minutes
        [ "$tier" = default ] || names="comm exchange ranks"
        for name in $names; do
            part "tests/mpi/test_$name.py with MPICH" "$limit" env THAW_BIN="$PWD/build-mpich/thaw" "$PYTHON" "tests/mpi/test_$name.py"
        done
    fi
else
    echo "skip   build with MPICH: no mpich"
fi
if [ "$tier" = long ]; then
    part "bare system" 3600 bash tests/cli/bare_system.sh
    part "large networks against Keras" 3600 tests/parity/run.sh
fi
finish
