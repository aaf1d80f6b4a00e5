#!/usr/bin/env bash
# Makes a service that builds, runs and registers: services/NAME, with a test and a container of its own.
#
#   ./scripts/new-service.sh NAME [PORT]
#
# Without PORT it listens on the first port from 8090 on that no other service here has. When anything is wrong, it says so
# and changes nothing.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

TEMPLATES="$ROOT/scripts/new-service"
# What Cargo takes for itself, what Rust does, and what is here already under another path.
RESERVED=' build deps examples incremental test core std alloc proc-macro roundsman discovery protocol registry store health client cli bench
    as async await box break const continue crate do dyn else enum extern false final fn for gen if impl in let loop macro match
    mod move mut override priv pub ref return self static struct super trait true try type typeof unsafe unsized use virtual
    where while yield abstract become '

(($# == 1 || $# == 2)) || die "usage: new-service.sh NAME [PORT]"
NAME="$1"
PORT="${2:-}"
FOLDER="$ROOT/services/$NAME"
DRAFT=''

# One that did not come to its end leaves nothing behind.
undo() {
    local code=$?
    if [[ -n "$DRAFT" ]]; then
        # Only what this script has put there.
        [[ ! -e "$DRAFT/placed" ]] || rm -rf "$FOLDER"
        [[ ! -e "$DRAFT/workspace" ]] || cp "$DRAFT/workspace" "$ROOT/Cargo.toml"
        [[ ! -e "$DRAFT/lock" ]] || cp "$DRAFT/lock" "$ROOT/Cargo.lock"
        rm -rf "$DRAFT"
    fi
    exit "$code"
}
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# is_taken PORT: whether another service, or a door of the server, has it.
is_taken() {
    [[ "$1" =~ ^555[5-8]$ ]] || grep -qsx "EXPOSE $1" "$ROOT"/services/*/Dockerfile
}

check_name() {
    [[ "$NAME" =~ ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
        die "'$NAME' is no name for a service: 1 to 63 characters of a-z 0-9 and -, beginning with a letter, not ending with -"
    [[ ! "$RESERVED" =~ [[:space:]]"$NAME"[[:space:]] ]] || die "'$NAME' is taken by Rust, by Cargo or by Roundsman; choose another name"
    [[ ! -e "$FOLDER" && ! -L "$FOLDER" ]] || die "services/$NAME is there already; choose another name, or move it away"
    ! grep -qsx "name = \"roundsman-$NAME\"" "$ROOT"/{crates,services}/*/Cargo.toml "$ROOT"/{bench,discovery}/Cargo.toml ||
        die "there is a crate roundsman-$NAME already; choose another name"
    ! grep -qF "\"services/$NAME\"" "$ROOT/Cargo.toml" || die "Cargo.toml has services/$NAME among its members already; take it out first"
}

choose_port() {
    if [[ -n "$PORT" ]]; then
        if ! [[ "$PORT" =~ ^[1-9][0-9]{0,4}$ ]] || ((PORT > 65535)); then die "'$PORT' is no port: 1 to 65535"; fi
        ! is_taken "$PORT" || die "port $PORT belongs to another service here; name another one, or none"
        return
    fi
    PORT=8090
    while is_taken "$PORT"; do PORT=$((PORT + 1)); done
}

# fill TEMPLATE FILE: the template with this name and port.
fill() {
    mkdir -p "$(dirname "$DRAFT/new/$2")"
    sed -e "s/@NAME@/$NAME/g" -e "s/@PORT@/$PORT/g" "$TEMPLATES/$1" >"$DRAFT/new/$2"
}

# The last line of the members that is a service gets one more below it.
add_member() {
    awk -v line="    \"services/$NAME\"," '
        { lines[NR] = $0 }
        /^ *"services\// && !done { last = NR }
        /^\]/ { done = 1 }
        END { for (n = 1; n <= NR; n++) { print lines[n]; if (n == last) print line } }' "$1"
}

check_name
choose_port
need_rust
DRAFT="$(mktemp -d "${TMPDIR:-/tmp}/roundsman-new.XXXXXX")"
fill Cargo.toml.in Cargo.toml
fill main.rs.in src/main.rs
fill test.rs.in tests/it/main.rs
fill Dockerfile.in Dockerfile
fill build.sh.in build.sh
chmod +x "$DRAFT/new/build.sh"
add_member "$ROOT/Cargo.toml" >"$DRAFT/members"
grep -qF "\"services/$NAME\"" "$DRAFT/members" || die "cannot find the services among the members in Cargo.toml; add one by hand"

cp "$ROOT/Cargo.toml" "$DRAFT/workspace"
[[ ! -e "$ROOT/Cargo.lock" ]] || cp "$ROOT/Cargo.lock" "$DRAFT/lock"
touch "$DRAFT/placed"
cp -R "$DRAFT/new" "$FOLDER"
cp "$DRAFT/members" "$ROOT/Cargo.toml"
cd "$ROOT"
# Everything it needs is in the lock file already but the crate itself.
"$CARGO" update --quiet --workspace --offline || die "Cargo does not take it; nothing is changed"
# Long names need other line breaks; a toolchain without rustfmt leaves them as they are.
"$CARGO" fmt --package "roundsman-$NAME" 2>/dev/null || true
rm -rf "$DRAFT"
DRAFT=''

good "services/$NAME, on port $PORT"
note "cargo test -p roundsman-$NAME      # a server and the service, as processes"
note "cargo run -p roundsman-$NAME       # with \`roundsman serve\` running"
note "./services/$NAME/build.sh          # its container, beside the others"
