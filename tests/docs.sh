#!/bin/sh
# jobs/README.md is what the program says of its keys, and every example job is accepted by the program's parser.
# src/kernels/ERRORS.md lies within the bounds that tests/unit/kernels/test_conv_errors.c holds.
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
# The table of errors, in 1e-7: no number is beyond the bounds of the test.
limits=$(sed -n 's/^static const double LIMITS\[DIRECTIONS\] = {\(.*\), \(.*\), .*};/\1 \2/p' tests/unit/kernels/test_conv_errors.c)
awk -F'|' -v limits="$limits" '
    BEGIN { split(limits, limit, " ") }
    /^\| / && $0 !~ /algorithm/ {
        rows++
        for (k = NF - 3; k < NF; k++) {
            n = split($k, value, "/")
            for (i = 1; i <= n; i++)
                if (value[i] !~ /^ *-? *$/ && value[i] * 1e-7 > limit[k == NF - 3 ? 1 : 2]) {
                    print "docs: src/kernels/ERRORS.md:" FNR ": " value[i] " is beyond the bound of the test"
                    bad = 1
                }
        }
    }
    END {
        if (rows < 60) print "docs: src/kernels/ERRORS.md has " rows + 0 " rows"
        exit bad || rows < 60
    }' src/kernels/ERRORS.md >&2
echo "docs: ok"
