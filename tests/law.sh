#!/bin/bash
# Checks the laws of the source tree: tests/law.sh
#   who may include whom; which third-party header belongs where; unique file names; file and line lengths; no output, exit,
#   unchecked memory or files below src/app and mpi/; public headers that compile alone.
# Prints one line per violation; exit status 1 if there is any.
set -u
cd "$(dirname "$0")/.." || exit 1
found=$(mktemp)
trap 'rm -f "$found"' EXIT

say() {
    printf '%s\n' "$*" >>"$found"
}

# MODULE: folders it may include from (besides itself), and public headers.
law() {
    case $1 in
    src/base) allowed="base/ thaw/status.h" ;;
    src/job) allowed="base/ job/ thaw/status.h" ;;
    src/data) allowed="base/ data/ thaw/status.h thaw/data.h" ;;
    src/kernels) allowed="base/ kernels/ thaw/status.h thaw/model.h" ;;
    src/graph) allowed="base/ kernels/ graph/ job/freeze_spec.h thaw/status.h thaw/model.h thaw/plan.h thaw/comm.h" ;;
    src/models) allowed="base/ graph/ models/ thaw/status.h thaw/model.h" ;;
    src/formats) allowed="base/ graph/ formats/ thaw/status.h thaw/model.h" ;;
    src/train) allowed="base/ job/ data/ kernels/ graph/ models/ formats/ train/ thaw/" ;;
    src/app) allowed="base/ job/ data/ kernels/ graph/ models/ formats/ train/ app/ thaw/" ;;
    mpi) allowed="base/ mpi/ exchange.h thaw/status.h thaw/comm.h" ;;
    include/thaw) allowed="thaw/" ;;
    esac
}

for module in src/base src/job src/data src/kernels src/graph src/models src/formats src/train src/app mpi include/thaw; do
    [ -d $module ] || continue
    law $module
    while IFS=: read -r file line text; do
        header=$(printf '%s' "$text" | sed 's/.*"\(.*\)".*/\1/')
        ok=no
        for prefix in $allowed; do
            case $header in
            "$prefix"*) ok=yes ;;
            esac
        done
        # A header beside the file, without a folder.
        [ "$ok" = yes ] || [ ! -f "$(dirname "$file")/$header" ] || ok=yes
        [ "$ok" = yes ] || say "$file:$line: $module must not include $header"
    done < <(grep -rn --include='*.[ch]' '^ *# *include *"' $module)
done

# Third-party headers and where they belong (extended regular expressions of header and of file).
while read -r header place; do
    while IFS=: read -r file line _; do
        [[ $file =~ $place ]] || say "$file:$line: $header belongs into $place only"
    done < <(grep -rnE --include='*.[ch]' "^ *# *include *[<\"]$header" src mpi include)
done <<'END'
mpi\.h ^mpi/
hdf5 ^src/(formats|data)/
cblas\.h ^src/kernels/
stb_image ^src/data/
jpeglib\.h ^src/data/
yaml\.h ^src/job/
cjson/ ^src/(formats|app|train|data)/
Random123 ^src/base/
xxhash\.h ^src/base/
omp\.h ^src/(base|kernels)/
END
[ "$(grep -rlE --include='*.[ch]' '^ *# *include *[<"]stb' src mpi include | wc -l)" -le 1 ] ||
    say "stb_image.h is included by more than one file"

# Names, lengths.
find src mpi include tests -name '*.[ch]' -printf '%f\n' | sort | uniq -d | while read -r name; do
    say "$name: two files have this name: $(find src mpi include tests -name "$name" | tr '\n' ' ')"
done
while read -r file; do
    awk -v f="$file" 'length > 130 { print f ":" FNR ": " length " characters" }
        END { if (FNR > 800) print f ": " FNR " lines" }' "$file" >>"$found"
done < <(find src mpi include tests -name '*.[ch]')

# Below app/ and mpi/ nobody prints, ends the program, or goes around base/memory.h and base/io.h.
below=$(find src -name '*.c' -not -path 'src/app/*')
forbid() { # REGEX EXCEPT_PATH WHY
    # shellcheck disable=SC2086
    grep -nE "(^|[^A-Za-z0-9_>.])($1) *\(" $below /dev/null | grep -vE "$2" | grep -vE '^[^:]*:[0-9]+: *(/?\*|//)' |
        while IFS=: read -r file line _; do say "$file:$line: $3"; done
}
if [ -n "$below" ]; then
    forbid 'printf|puts|putchar|fputs|perror|vprintf' '^$' "no output below app/: use thaw_info, thaw_warn"
    forbid 'exit|abort|_exit|_Exit|quick_exit' '^$' "no end of the program below app/ and mpi/: return a status"
    forbid 'malloc|calloc|realloc|aligned_alloc|posix_memalign' '^src/base/memory' "memory goes through base/memory.h"
    forbid 'fopen|open|openat|creat|rename|unlink|mkdir|opendir' '^src/base/(io|path)' "files go through base/io.h"
    forbid 'clock_gettime|gettimeofday|time' '^src/base/' "time goes through base/clock.h"
    forbid 'rand|srand|random|drand48' '^src/base/random' "random draws go through base/random.h"
fi

# Public headers compile alone, as C.
for header in include/thaw/*.h; do
    printf '#include "thaw/%s"\n' "$(basename "$header")" |
        cc -std=c11 -Wall -Wextra -Werror -fsyntax-only -Iinclude -x c - 2>/dev/null || say "$header: does not compile alone"
done

sort -u "$found"
n=$(sort -u "$found" | wc -l)
echo "law: $n violation(s)"
[ "$n" -eq 0 ]
