#!/bin/bash
# From nothing to a fine-tuned network on Debian 12:     jobs/quickstart.sh [--packages [NAME]...]
# Installs packages where they are missing (as root, or with sudo where that asks nothing), builds thaw, and fine-tunes on
# two ranks a network that knows the digits 0 to 4 so that it knows 5 to 9 (jobs/quickstart/job.yaml).
#   --packages      installs packages (and those named) and ends
#   THAW_BUILD      build folder (default: build)
set -eu
cd "$(dirname "$0")/.."
build=${THAW_BUILD:-build}
packages="build-essential cmake pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libopenblas-dev libyaml-dev libcjson-dev
libjpeg62-turbo-dev libstb-dev libxxhash-dev librandom123-dev"

# Prints those of the packages given that are not installed. Where there is no dpkg, nothing is known and nothing missing.
missing_of() {
    command -v dpkg-query >/dev/null || return 0
    for package in "$@"; do
        # shellcheck disable=SC2016
        case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in
        "install ok installed") ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

install_packages() {
    local missing become=env log
    # shellcheck disable=SC2086
    missing=$(missing_of $packages)
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            echo "These packages are missing, and only an administrator can install them:" >&2
            echo "  apt-get install --no-install-recommends $missing" >&2
            exit 69
        fi
        become="sudo -n env"
    fi
    echo "Installing: $missing"
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    if ! { $become DEBIAN_FRONTEND=noninteractive apt-get update -q &&
        $become DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } \
        >"$log" 2>&1 </dev/null; then
        tail -20 "$log" >&2
        rm -f "$log"
        echo "The packages cannot be installed (see above)." >&2
        exit 69
    fi
    rm -f "$log"
}

build_thaw() {
    local log
    log=$(mktemp)
    echo "Building $build/thaw"
    if [ -f "$build/CMakeCache.txt" ] && ! cmake -B "$build" . >/dev/null 2>&1; then
        rm -rf "$build" # made for another place or with other tools
    fi
    if ! { { [ -f "$build/CMakeCache.txt" ] || cmake -B "$build" -DTHAW_TESTS=OFF .; } &&
        cmake --build "$build" --target thaw -j "$(nproc)"; } >"$log" 2>&1; then
        tail -30 "$log" >&2
        rm -f "$log"
        echo "The build failed (see above)." >&2
        exit 70
    fi
    rm -f "$log"
}

train() {
    local root="" cores
    [ "$(id -u)" -ne 0 ] || root=--allow-run-as-root
    cores=$(($(nproc) / 2))
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > 0 ? cores : 1))}"
    # Containers forbid one process to read another's memory; Open MPI then complains on every start.
    export OMPI_MCA_btl_vader_single_copy_mechanism=none
    echo "Training on two ranks: mpirun -n 2 $build/thaw train jobs/quickstart/job.yaml"
    # shellcheck disable=SC2086
    mpirun -n 2 $root --oversubscribe --bind-to none "$build/thaw" train jobs/quickstart/job.yaml --resume never
}

# What history.csv and log.jsonl of the run folder say, stage by stage.
report() {
    echo
    echo "What was learned (accuracy on images of digits that training has not seen):"
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
        !($column["stage"] in epochs) { order[++n] = $column["stage"] }
        { epochs[$column["stage"]]++; last[$column["stage"]] = $column["val_accuracy"] }
        END { for (i = 1; i <= n; i++)
            printf "  stage %-10s %5.1f %% after %d epochs\n", order[i], 100 * last[order[i]], epochs[order[i]] }' \
        "$1/history.csv"
    echo "What freezing saved (gradients that each rank exchanged, and what training everything would have exchanged):"
    awk 'function value(key) {
            if (!match($0, "\"" key "\": *")) return ""
            rest = substr($0, RSTART + RLENGTH)
            match(rest, /^("[^"]*"|[^,}]*)/)
            rest = substr(rest, 1, RLENGTH)
            gsub(/"/, "", rest)
            return rest
        }
        value("event") == "epoch" {
            stage = value("stage")
            if (!(stage in sent)) order[++n] = stage
            sent[stage] += value("exchanged_bytes")
            full[stage] += value("exchanged_bytes_if_unfrozen")
        }
        END { for (i = 1; i <= n; i++) printf "  stage %-10s %8.2f MB instead of %8.2f MB (%.1f times less)\n", order[i],
            sent[order[i]] / 1e6, full[order[i]] / 1e6, full[order[i]] / (sent[order[i]] ? sent[order[i]] : 1) }' \
        "$1/log.jsonl"
    echo "Where the model is: $1/model.h5 (Keras loads it), $1/best.h5 (the best epoch)"
}

case ${1:-} in
"") ;;
--packages)
    shift
    packages="$packages $*"
    install_packages
    exit 0
    ;;
-h | --help)
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
*)
    echo "jobs/quickstart.sh: unknown option $1; see --help" >&2
    exit 64
    ;;
esac
install_packages
build_thaw
train
report runs/quickstart
