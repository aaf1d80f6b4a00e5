# shellcheck shell=bash
# What every script needs: where the repository is, how to say things, how to install what is missing.
# Sourced, not run.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# shellcheck disable=SC2034  # for whoever sources this
TARGET_DIR="${CARGO_TARGET_DIR:-$ROOT/target}"
CARGO="${CARGO:-cargo}"

if [[ -t 1 && -z "${NO_COLOR:-}" ]]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' PLAIN=''
fi

# step TEXT: a heading.
step() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }

# good TEXT: something that held.
good() { printf '  %s✓%s %s\n' "$GREEN" "$PLAIN" "$*"; }

# note TEXT: something to know.
note() { printf '  %s%s%s\n' "$DIM" "$*" "$PLAIN"; }

# warn TEXT: something to notice, which is no failure.
warn() { printf '  %s! %s%s\n' "$RED" "$*" "$PLAIN" >&2; }

# die TEXT: the end, in one line that says what to do.
die() {
    printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2
    exit 1
}

# has COMMAND: whether it can be run.
has() { command -v "$1" >/dev/null 2>&1; }

# now_us: microseconds since 1970.
now_us() {
    local now="${EPOCHREALTIME/[.,]/}"
    printf '%s' "$now"
}

# wait_for SECONDS WHAT COMMAND...: runs the command every 20 ms until it succeeds.
wait_for() {
    local until=$((SECONDS + $1)) what="$2"
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until)) || die "waited in vain for $what"
        sleep 0.02
    done
}

# as_root COMMAND...: directly as root, by sudo otherwise.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        return 127
    fi
}

# apt_install COMMAND PACKAGE: installs the Debian package when the command is missing.
apt_install() {
    has "$1" && return
    has apt-get || die "$1 is missing and there is no apt-get; install it and run this again"
    note "installing $2, for $1"
    if ! { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$2"; } >/dev/null; then
        die "cannot install $2 (apt-get failed, or neither root nor sudo); install it and run this again"
    fi
    # Debian puts servers into sbin, which is not on every user's path.
    PATH="$PATH:/usr/sbin:/sbin"
    has "$1" || die "$2 is installed, but there is no $1 in it"
}

# need_rust: cargo, and a C compiler for SQLite and ring.
need_rust() {
    if ! has "$CARGO" && [[ -x "$HOME/.cargo/bin/cargo" ]]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    has "$CARGO" || die "Rust is missing: install it from https://rustup.rs and run this again"
    apt_install cc build-essential
}
