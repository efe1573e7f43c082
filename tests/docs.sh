#!/bin/sh
# jobs/README.md is what the program says of its keys, and every example job is accepted by the program's parser.
#   tests/docs.sh [THAW]          THAW: the executable, default build/thaw
#   tests/docs.sh --write [THAW]  writes jobs/README.md anew
set -eu
cd "$(dirname "$0")/.."
write=no
if [ "${1:-}" = --write ]; then
    write=yes
    shift
fi
thaw=${1:-build/thaw}
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
"$thaw" help job --markdown >"$fresh"
if [ "$write" = yes ]; then
    cat "$fresh" >jobs/README.md
elif ! diff -u jobs/README.md "$fresh"; then
    echo "docs: jobs/README.md differs from 'thaw help job --markdown': run tests/docs.sh --write $thaw" >&2
    exit 1
fi
# Every key named in the table is explained by the plain manual too.
"$thaw" help job >"$fresh"
sed -n 's/^| `\([a-z][^`]*\)` | .* | .* | .* |$/\1/p' jobs/README.md | while read -r key; do
    grep -qxF "$key" "$fresh" || { echo "docs: 'thaw help job' does not mention $key" >&2; exit 1; }
done
echo "docs: ok"
