#!/bin/bash
# Compares large networks with Keras: tests/parity/run.sh [NETWORK]...     (vgg16 resnet50 inceptionv3)
# THAW_KERAS names a Python that has Keras 3 and TensorFlow (default: python3); without them this says so and ends with 77.
# Needs about 3 GB of temporary disk space and 4 GB of memory. Run by tests/run.sh --tier long.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${THAW_KERAS:-python3}
if ! TF_CPP_MIN_LOG_LEVEL=3 "$python" -c 'import keras; assert int(keras.__version__.split(".")[0]) >= 3' 2>/dev/null; then
    echo "no Keras 3 for $python: comparison of large networks skipped (set THAW_KERAS)"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- vgg16 resnet50 inceptionv3
status=0
for net in "$@"; do
    "$python" "$here/make_networks.py" "$work" "$net" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
    "${PYTHON:-python3}" "$here/compare_networks.py" "$work" "$net" || status=1
    rm -f "$work"/*.h5
done
exit $status
