#!/bin/sh
# pack.sh RAW.a HEADER PACKED.a [NAME…]: makes one object of a Rust static library, in which only the functions of the
# header are visible, and those named besides.
#
# A raw archive shows some 600 names, libpq's among them. Beside a library that uses the system's libpq, or a second
# archive made by Rust, it would crash or silently swap versions by link order. Packed, it stands beside anything.
set -eu

raw=$1 header=$2 packed=$3
shift 3
object=${packed%.a}.o
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The preprocessor takes the comments out; what is left with a parenthesis behind it is a function.
names=$(${CC:-cc} -E -P "$header" | grep -o '\bpgwake_[a-z0-9_]*(' | tr -d '(' | sort -u)
[ -n "$names" ] || { echo "pack.sh: no function is declared in $header" >&2; exit 1; }

required='' kept=''
for name in $names "$@"; do
    required="$required --require-defined=$name"
    kept="$kept --keep-global-symbol=$name"
done

# Takes what the header's functions need, and nothing else.
# shellcheck disable=SC2086 # each word is an option
gather() { ld -r --gc-sections --force-group-allocation $required -o "$2" "$1"; }

# The function of the standard library that writes a panic's backtrace brings in a reader of debug information and of
# mangled names, one part in four of all code. The C library keeps panics inside and prints none, so here the
# function says at once that all is written, and what only it needs goes with the second gathering. It keeps its length,
# for the tables by which the stack is unwound. On another processor, or when it has another name, all stays as it is.
drop_backtraces() {
    [ "$(uname -m)" = x86_64 ] || return 0
    readelf -SW "$1" | sed -n 's/^ *\[ *[0-9]*\] \(\.text[^ ]*BacktraceLock[^ ]*DisplayBacktrace[^ ]*3fmt[^ ]*\) *PROGBITS *[0-9a-f]* *[0-9a-f]* *\([0-9a-f]*\) .*/\1 \2/p' |
        while read -r section size; do
            # xor eax, eax; ret. What follows traps.
            head -c "$((0x$size))" /dev/zero | tr '\0' '\314' >"$work/code"
            printf '\061\300\303' | dd of="$work/code" conv=notrunc status=none
            objcopy --remove-relocations="$section" --update-section "$section=$work/code" "$1"
        done
}

rm -f "$object" "$packed"
gather "$raw" "$work/gathered.o"
drop_backtraces "$work/gathered.o"
gather "$work/gathered.o" "$object"
objcopy --strip-unneeded -R .llvmbc -R .llvmcmd "$object"
# shellcheck disable=SC2086
objcopy $kept "$object"
objcopy --strip-unneeded "$object"
${AR:-ar} rcs "$packed" "$object"
rm -f "$object"
