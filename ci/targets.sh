# What each target is built with, sourced by ci/clib, ci/dist-c, ci/link, ci/cross and ci/size.
# shellcheck shell=bash disable=SC2034

# Rust's standard library for what is to be small: a fault is stopped and unwound in it, but it has no reader of debug information,
# which the prebuilt one brings for the backtraces that nobody would see (230 kB on ARM), and is itself made for size.
STD_SMALL=panic-unwind,optimize_for_size STD=''
# Without a prebuilt standard library: rebuilt from Rust's sources, with zig as C compiler and linker.
REBUILT="armv7-unknown-linux-musleabihf mipsel-unknown-linux-musl mips-unknown-linux-musl"
TARGETS="x86_64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-gnueabihf
    armv7-unknown-linux-musleabihf"
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
zig=$tools/zig/ziglang/zig

# Rust's standard library for TRIPLE, or its sources; installed by rustup when missing.
target_std() { # TRIPLE
    local src=$sysroot/lib/rustlib/src/rust/library/std
    case " $REBUILT " in
        *" $1 "*) ;;
        *) [ -d "$sysroot/lib/rustlib/$1/lib" ] || { have rustup && rustup target add "$1" >/dev/null 2>&1; } || return 1
            [ -n "$STD" ] || return 0 ;;
    esac
    [ -d "$src" ] || { have rustup && rustup component add rust-src >/dev/null 2>&1; }
}

# zig as compiler and linker for ZIG_TARGET, with a name that can stand in CC: it knows no vendor in a target, brings its own
# start files, and has no libgcc_s.
zig_cc() { # ZIG_TARGET [FLAG...]
    local file=$root/build/cc/zig-$1
    mkdir -p "$root/build/cc"
    cat >"$file.$$" <<T
#!/bin/bash
arguments=()
for argument; do
    case \$argument in
        --target=*|-lgcc_s|-lgcc|-lgcc_eh|-Wl,--enable-new-dtags|-Wl,-melf*|-nostartfiles|-march=armv7-a) ;;
        *) arguments+=("\$argument") ;;
    esac
done
ZIG_GLOBAL_CACHE_DIR=$root/build/cc/cache ZIG_LOCAL_CACHE_DIR=$root/build/cc/cache exec $zig cc -target $* "\${arguments[@]}"
T
    chmod +x "$file.$$"
    mv "$file.$$" "$file"
    echo "$file"
}

# Sets, for TRIPLE: CC with CFLAGS for what is linked (a musl or glibc C compiler), CC_PARTS (for C inside of crates), LINKER
# (for programs in Rust), LD AR NM OBJCOPY STRIP, UNWINDER (what the partial link takes the unwinder from), LIBS (for linking),
# PRIVATE (Libs.private of castkeep.pc) and QEMU.
target_tools() { # TRIPLE
    local prefix='' arch
    CFLAGS='' CC_PARTS='' LINKER='' QEMU='' RUSTFLAGS_FOR=''
    # Another build system's toolchain, all of it by one prefix, its Rust included: that of OpenWrt, for one.
    if [ -n "${CLIB_CROSS:-}" ]; then
        prefix=$CLIB_CROSS CC=${CLIB_CROSS}gcc CC_PARTS=${CLIB_CROSS}gcc LINKER=${CLIB_CROSS}gcc CFLAGS=${CLIB_CFLAGS:-}
        LD=${prefix}ld AR=${prefix}ar NM=${prefix}nm OBJCOPY=${prefix}objcopy STRIP=${prefix}strip SIZE=${prefix}size
        UNWINDER=$("$CC" -print-file-name=libgcc_eh.a) LIBS='-lpthread -ldl -lm' REBUILT='' PRIVATE="-Wl,--eh-frame-hdr -lpthread -ldl -lm"
        return
    fi
    case $1 in
        x86_64-*-gnu) CC=gcc ;;
        x86_64-*-musl) CC=musl-gcc ;;
        aarch64-*-musl)
            # Rust brings start files and libc.a for its programs; C programs need headers too, which zig has.
            prefix=aarch64-linux-gnu- LINKER=aarch64-linux-gnu-gcc CC_PARTS=aarch64-linux-gnu-gcc QEMU=qemu-aarch64-static
            CC=$(zig_cc aarch64-linux-musl) ;;
        armv7-*-gnueabihf | thumbv7neon-*-gnueabihf)
            prefix=arm-linux-gnueabihf- CC=arm-linux-gnueabihf-gcc LINKER=arm-linux-gnueabihf-gcc QEMU=qemu-arm-static
            CFLAGS=-static RUSTFLAGS_FOR='-C target-feature=+crt-static' ;;
        armv7-*-musleabihf)
            prefix=arm-linux-gnueabihf- CC=$(zig_cc arm-linux-musleabihf -mcpu=generic+v7a+vfp3d16) QEMU=qemu-arm-static ;;
        mipsel-*-musl) prefix=mipsel-linux-gnu- CC=$(zig_cc mipsel-linux-musleabi -mcpu=mips32r2+soft_float) QEMU=qemu-mipsel-static ;;
        mips-*-musl) prefix=mips-linux-gnu- CC=$(zig_cc mips-linux-musleabi -mcpu=mips32r2+soft_float) QEMU=qemu-mips-static ;;
        *) echo "no tools are known for $1" >&2 && return 1 ;;
    esac
    case " $REBUILT " in *" $1 "*) LINKER=$CC RUSTFLAGS_FOR='-C link-self-contained=no -C target-feature=+crt-static' ;; esac
    CC_PARTS=${CC_PARTS:-$CC}
    LD=${prefix}ld AR=${prefix}ar NM=${prefix}nm OBJCOPY=${prefix}objcopy STRIP=${prefix}strip SIZE=${prefix}size
    case $CC in "$root"/build/cc/*) [ -x "$zig" ] || { echo "zig is missing, which ci/apt brings" >&2; return 1; } ;; esac
    have "$CC" && have "$LD" || { echo "$CC or $LD is missing" >&2; return 1; }
    [ -z "$QEMU" ] || have "$QEMU" || { echo "$QEMU is missing" >&2; return 1; }
    target_std "$1" || { echo "Rust's standard library for $1 is missing" >&2; return 1; }
    case $1 in
        *-musl*)
            # Debian's gcc has an unwinder for glibc only; Rust brings one for musl, built or as source.
            UNWINDER=$sysroot/lib/rustlib/$1/lib/self-contained/libunwind.a
            [ -e "$UNWINDER" ] || UNWINDER=$root/build/cc/unwind-$1/libunwind.a
            LIBS='' ;;
        *)
            UNWINDER=$("$CC" -print-file-name=libgcc_eh.a)
            LIBS='-lpthread -ldl -lm' ;;
    esac
    # Without the table that this asks for, an unwinder in a static program finds nothing and aborts. ARM has another table.
    case $1 in arm* | thumb*) PRIVATE=$LIBS ;; *) PRIVATE="-Wl,--eh-frame-hdr $LIBS" ;; esac
}

# The unwinder of LLVM, from the sources that come with Rust's, for a target whose standard library is rebuilt.
target_unwinder() { # TRIPLE
    local src=$sysroot/lib/rustlib/src/rust/src/llvm-project/libunwind dir file flags
    [ ! -e "$UNWINDER" ] || return 0
    dir=$(dirname "$UNWINDER")
    mkdir -p "$dir"
    flags=(-Os -fPIC -funwind-tables -fno-sanitize=all -fvisibility=hidden -DNDEBUG -D_LIBUNWIND_IS_NATIVE_ONLY -D_LIBUNWIND_HIDE_SYMBOLS
        -ffunction-sections -fdata-sections -Wno-everything -I "$src/include")
    for file in Unwind-EHABI.cpp libunwind.cpp Unwind-sjlj.c UnwindLevel1.c UnwindLevel1-gcc-ext.c UnwindRegistersRestore.S UnwindRegistersSave.S; do
        case $file in
            *.cpp) "$CC" "${flags[@]}" -x c++ -std=c++17 -fno-exceptions -fno-rtti -nostdlib++ -nostdinc++ -c "$src/src/$file" -o "$dir/$file.o" ;;
            *.c) "$CC" "${flags[@]}" -std=c99 -fexceptions -c "$src/src/$file" -o "$dir/$file.o" ;;
            *.S) "$CC" "${flags[@]}" -c "$src/src/$file" -o "$dir/$file.o" ;;
        esac
    done
    "$AR" rcsD "$UNWINDER" "$dir"/*.o
}

# cargo for TRIPLE, behind target_tools. What it makes lies in $target/TRIPLE. STD names the features of a standard library that is
# rebuilt for it: see STD_SMALL.
target_cargo() { # TRIPLE ARGUMENT...
    local triple=$1 name=${1//-/_} upper with=() build=()
    shift
    upper=$(tr a-z A-Z <<<"$name")
    with=("CC_$name=$CC_PARTS" "AR_$name=$AR" "CARGO_TARGET_${upper}_RUSTFLAGS=$RUSTFLAGS_FOR")
    [ -z "$LINKER" ] || with+=("CARGO_TARGET_${upper}_LINKER=$LINKER")
    [ -z "$QEMU" ] || with+=("CARGO_TARGET_${upper}_RUNNER=$QEMU")
    case " $REBUILT " in
        *" $triple "*)
            target_unwinder "$triple"
            with+=("CARGO_TARGET_${upper}_RUSTFLAGS=$RUSTFLAGS_FOR -L native=$(dirname "$UNWINDER")")
            build=(-Z build-std=std,panic_unwind) ;;
    esac
    [ -z "$STD" ] || build=(-Z build-std=std,panic_unwind -Z "build-std-features=$STD")
    # What the unstable option is there for; the compiler stays the stable one.
    [ ${#build[@]} = 0 ] || with+=(RUSTC_BOOTSTRAP=1)
    local verb=$1
    shift
    env "${with[@]}" cargo "$verb" "${build[@]}" --target "$triple" "$@"
}
