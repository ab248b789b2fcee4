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

# The preprocessor takes the comments out; what is left with a parenthesis behind it is a function.
names=$(${CC:-cc} -E -P "$header" | grep -o '\bpgwake_[a-z0-9_]*(' | tr -d '(' | sort -u)
[ -n "$names" ] || { echo "pack.sh: no function is declared in $header" >&2; exit 1; }

required='' kept=''
for name in $names "$@"; do
    required="$required --require-defined=$name"
    kept="$kept --keep-global-symbol=$name"
done

rm -f "$object" "$packed"
# Takes what the header's functions need, and nothing else, into one section of each kind: a section of its own for
# each function, with its name, is a quarter of an archive.
# shellcheck disable=SC2086 # each word is an option
ld -r --gc-sections --force-group-allocation $required -T /dev/stdin -o "$object" "$raw" <<'END'
SECTIONS {
    .text 0 : { *(.text.*) }
    .rodata 0 : { *(.rodata.*) }
    .data.rel.ro 0 : { *(.data.rel.ro.*) }
    .gcc_except_table 0 : { *(.gcc_except_table.*) }
}
INSERT AFTER .data;
END
objcopy --strip-unneeded -R .llvmbc -R .llvmcmd "$object"
# shellcheck disable=SC2086
objcopy $kept "$object"
objcopy --strip-unneeded "$object"
${AR:-ar} rcs "$packed" "$object"
rm -f "$object"
