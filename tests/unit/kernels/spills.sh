#!/bin/sh
# The inner loops of the micro-kernels keep their sums in registers:  tests/unit/kernels/spills.sh OBJECT...
# Disassembles the objects (multiply_isa and probe_isa of every instruction set among those given), finds the innermost loops of
# straight*, turned* and thaw_probe_*, and fails if one of them moves a vector register to or from the stack, or if a
# kernel has no loop with the multiply-adds that its name promises (then this script looks at the wrong thing).
set -eu
found=$(mktemp)
trap 'rm -f "$found"' EXIT
for object in "$@"; do
    case $object in
    *multiply_isa* | *probe_isa*) ;;
    *) continue ;;
    esac
    case $object in
    *_avx512.dir*) isa=avx512 ;;
    *_avx2.dir*) isa=avx2 ;;
    *) isa=portable ;;
    esac
    objdump -d --no-show-raw-insn -M att "$object" | awk -v isa="$isa" '
    # One function: at[1..n] addresses, text[1..n] instructions.
    function finish(   i, j, k, inner, products, most, want, frame) {
        if (name !~ /^(straight|turned)[12]_[0-9]+$/ && name !~ /^thaw_probe_/) return
        checked++
        frame = 0
        for (i = 1; i <= n; i++) frame = frame || text[i] ~ /^mov +%rsp,%rbp/
        split(name, part, "_")
        want = name ~ /^thaw_probe/ ? (isa == "avx512" ? 24 : 12) : part[2] * (part[1] ~ /2$/ ? 2 : 1)
        most = 0
        for (j = 1; j <= n; j++) {
            i = backward(j)
            if (!i) continue
            inner = 1
            products = 0
            for (k = i; k < j; k++) if (backward(k) >= i) inner = 0
            if (!inner) continue
            for (k = i; k <= j; k++) if (text[k] ~ /^(vfn?madd[0-9]*ps|v?mulps) /) products++
            for (k = i; products && k <= j; k++)
                if (text[k] ~ /%[xyz]mm/ && (text[k] ~ /\(%rsp/ || (frame && text[k] ~ /\(%rbp/))) {
                    print isa ": " name ": stack traffic in the inner loop: " text[k]
                    bad++
                }
            if (products > most) most = products
        }
        if (most < want) {
            print isa ": " name ": no inner loop with " want " multiply-adds (the largest has " most ")"
            bad++
        }
    }
    # Index of the target of a jump back to this function, 0 if instruction j is none.
    function backward(j,   word) {
        if (text[j] !~ /^j/) return 0
        split(text[j], word, " +")
        return (word[2] in place) && place[word[2]] <= j ? place[word[2]] : 0
    }
    /^[0-9a-f]+ <.*>:$/ {
        if (name) finish()
        name = $2
        gsub(/[<>:]/, "", name)
        n = 0
        split("", place)
        next
    }
    /^ *[0-9a-f]+:/ {
        line = $0
        sub(/^ */, "", line)
        address = line
        sub(/:.*/, "", address)
        sub(/^[0-9a-f]+:[ \t]*/, "", line)
        gsub(/\t/, " ", line)
        text[++n] = line
        place[address] = n
    }
    END {
        if (name) finish()
        print "kernels " checked + 0 " " bad + 0
    }' >>"$found"
done
grep -v '^kernels ' "$found" | head -20 || true
awk '$1 == "kernels" { kernels += $2; bad += $3; objects++ }
    END {
        printf "spills: %d kernels in %d objects, %d wrong\n", kernels, objects, bad
        exit !(kernels > 12 && bad == 0)
    }' "$found"
