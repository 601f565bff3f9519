# What each target is built with, sourced by ci/clib, ci/link, ci/cross and ci/size.
# shellcheck shell=bash disable=SC2034

TARGETS="x86_64-unknown-linux-gnu x86_64-unknown-linux-musl"
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')

# Rust's standard library for TRIPLE, installed by rustup when it is missing.
target_std() { # TRIPLE
    [ -d "$sysroot/lib/rustlib/$1/lib" ] && return
    have rustup && rustup target add "$1" >/dev/null 2>&1 && [ -d "$sysroot/lib/rustlib/$1/lib" ]
}

# Sets CC, CFLAGS (what says static or which processor), LD, AR, NM, OBJCOPY, STRIP, UNWINDER (what the partial link takes the
# unwinder from), LIBS (for linking), PRIVATE (Libs.private of castkeep.pc) and QEMU for TRIPLE.
target_tools() { # TRIPLE
    local prefix=''
    CFLAGS='' QEMU=''
    case $1 in
        x86_64-*-gnu) CC=gcc ;;
        x86_64-*-musl) CC=musl-gcc ;;
        *) echo "no tools are known for $1" >&2 && return 1 ;;
    esac
    LD=${prefix}ld AR=${prefix}ar NM=${prefix}nm OBJCOPY=${prefix}objcopy STRIP=${prefix}strip
    have "$CC" || { echo "$CC is missing" >&2; return 1; }
    target_std "$1" || { echo "Rust's standard library for $1 is missing" >&2; return 1; }
    case $1 in
        *-musl*)
            # Debian's gcc has an unwinder for glibc only; Rust brings one for musl.
            UNWINDER=$sysroot/lib/rustlib/$1/lib/self-contained/libunwind.a
            LIBS='' ;;
        *)
            UNWINDER=$("$CC" -print-file-name=libgcc_eh.a)
            LIBS='-lpthread -ldl -lm' ;;
    esac
    # Without the table that this asks for, an unwinder in a static program finds nothing and aborts.
    PRIVATE="-Wl,--eh-frame-hdr $LIBS"
}

# cargo for TRIPLE; ring has parts in C.
target_cargo() { # TRIPLE ARGUMENT...
    local triple=$1 name=${1//-/_}
    shift
    env "CC_$name=$CC" "AR_$name=$AR" cargo "$@"
}
