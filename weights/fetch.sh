#!/bin/sh
# Official weights of a built-in network:     weights/fetch.sh [--manifest FILE] NAME top|notop [DIR]
# Downloads into DIR (default: $THAW_WEIGHTS, else ./weights) with curl or wget. An interrupted download stays as FILE.part
# and goes on where it stopped; size and md5 are checked before the file takes its name. Prints where the file is.
#   --manifest FILE  lines "name top|notop file size md5 address" (default: manifest beside this script)
#   --report         why it failed on standard output, in one line (for `thaw fetch`)
# Exit status: 0 done, 64 usage, 65 wrong content, 66 no manifest, 69 no network or no tool, 73, 74 cannot write.
set -u
LC_ALL=C
export LC_ALL
manifest=$(dirname "$0")/manifest
report=no
while [ $# -gt 0 ]; do
    case $1 in
    --manifest)
        manifest=${2:-}
        shift
        ;;
    --report) report=yes ;;
    -h | --help)
        sed -n '2,7s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) break ;;
    esac
    shift
done

# fail STATUS WORDS: one line, and the end.
fail() {
    code=$1
    shift
    if [ $report = yes ]; then
        printf '%s\n' "$*"
    else
        printf 'fetch.sh: %s\n' "$*" >&2
    fi
    exit "$code"
}

case $# in
2 | 3) ;;
*) fail 64 "expected NAME top|notop [DIR]; see fetch.sh --help" ;;
esac
name=$1 kind=$2 folder=${3:-${THAW_WEIGHTS:-weights}}
case $kind in
top | notop) ;;
*) fail 64 "expected top or notop, found '$kind'" ;;
esac
[ -r "$manifest" ] || fail 66 "$manifest does not exist or cannot be read"
case $name in
inception_v3) name=inceptionv3 ;;
esac
entry=$(awk -v name="$name" -v kind="$kind" \
    '!/^#/ && NF == 6 && $1 == name && $2 == kind { print $3, $4, $5, $6; exit }' "$manifest")
[ -n "$entry" ] || fail 64 "no official weights are known for '$name' ($kind); there are: $(awk '!/^#/ && NF == 6 {
    if (!($1 in seen)) printf "%s%s", n++ ? ", " : "", $1; seen[$1] = 1 }' "$manifest")"
# shellcheck disable=SC2086
set -- $entry
file=$1 size=$2 md5=$3 address=$4
case $file in
*/* | .*) fail 65 "$manifest: '$file' is no plain file name" ;;
esac
case $size in
*[!0-9]* | '') fail 65 "$manifest: '$size' is no size in bytes" ;;
esac
target=$folder/$file
part=$target.part

size_of() {
    if [ -f "$1" ]; then
        echo $(($(wc -c <"$1")))
    else
        echo 0
    fi
}

md5_of() {
    if command -v md5sum >/dev/null 2>&1; then
        md5sum <"$1" | cut -d ' ' -f 1
    else
        openssl md5 <"$1" | sed 's/.*[ =]//'
    fi
}

if [ -e "$target" ]; then
    if [ "$(size_of "$target")" = "$size" ] && [ "$(md5_of "$target")" = "$md5" ]; then
        echo "$target is already there, its checksum is right"
        exit 0
    fi
    fail 65 "$target is there but is not the official file (expected $size bytes with md5 $md5); move it away and run again"
fi
mkdir -p "$folder" 2>/dev/null || fail 73 "folder $folder cannot be created"
[ -w "$folder" ] || fail 73 "folder $folder cannot be written to"

# Fetches $address to $part, behind the bytes that are there. A connection that stalls for a minute is given up.
download() {
    if command -v curl >/dev/null 2>&1; then
        if [ -t 2 ]; then quiet=--progress-bar; else quiet=-sS; fi
        curl $quiet -fL --retry 3 --connect-timeout 30 --speed-limit 1000 --speed-time 60 -C - -o "$part" -- "$address" >&2
    elif command -v wget >/dev/null 2>&1; then
        if [ -t 2 ]; then quiet=--show-progress; else quiet=--no-verbose; fi
        wget -q $quiet --tries=3 --timeout=60 -c -O "$part" -- "$address" >&2
    else
        fail 69 "neither curl nor wget is here; install one, or download $address as $target yourself"
    fi
}

have=$(size_of "$part")
if [ "$have" -gt "$size" ]; then
    rm -f "$part"
    have=0
fi
if [ "$have" -lt "$size" ]; then
    if [ "$have" -gt 0 ]; then
        echo "$file: going on at byte $have of $size" >&2
    else
        echo "$file: $size bytes from $address" >&2
    fi
    download
    code=$?
    if [ $code -eq 33 ] && command -v curl >/dev/null 2>&1; then # the server cannot go on in the middle
        echo "$file: the server does not resume; from the start" >&2
        rm -f "$part"
        download
        code=$?
    fi
    have=$(size_of "$part")
    if [ $code -eq 23 ] && command -v curl >/dev/null 2>&1; then
        fail 74 "$part cannot be written; free space and run again to go on at byte $have"
    fi
    if [ $code -eq 3 ] && ! command -v curl >/dev/null 2>&1; then
        fail 74 "$part cannot be written; free space and run again to go on at byte $have"
    fi
    if [ $code -ne 0 ] && [ "$have" -ne "$size" ]; then
        [ "$have" -gt 0 ] || rm -f "$part"
        fail 69 "$address cannot be fetched (status $code, $have of $size bytes); run again to go on, set https_proxy if" \
            "there is a proxy, or on a machine with internet download it and copy it to $target"
    fi
fi
if [ "$have" -lt "$size" ]; then
    fail 69 "$part has $have of $size bytes: the connection was cut; run again to go on"
fi
if [ "$have" -gt "$size" ]; then
    rm -f "$part"
    fail 65 "$address gave $have bytes, expected $size; the part file is deleted, check the manifest and run again"
fi
found=$(md5_of "$part")
if [ "$found" != "$md5" ]; then
    rm -f "$part"
    fail 65 "$file has md5 $found, expected $md5: its bytes were changed on the way; the part file is deleted, run again"
fi
mv -f "$part" "$target" || fail 74 "$part cannot be renamed to $target"
echo "$target: $size bytes, checksum right"
