# shellcheck shell=bash
# HTTP without curl, which a fresh machine may not have. Sourced, not run.

# http METHOD HOST:PORT PATH: sets STATUS and BODY. Fails when nobody answers within five seconds.
http() {
    local method="$1" host="${2%:*}" port="${2##*:}" path="$3" answer
    STATUS='' BODY=''
    # The socket is opened in a process of its own, so that neither a refusal nor silence ends the script.
    # shellcheck disable=SC2016  # the inner bash expands them
    answer="$(timeout 5 bash -c '
        exec 3<>"/dev/tcp/$1/$2" || exit 1
        printf "%s %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" "$3" "$4" "$1" "$2" >&3
        cat <&3' http "$host" "$port" "$method" "$path" 2>/dev/null)" || return 1
    [[ "$answer" =~ ^HTTP/1\.1\ ([0-9]{3}) ]] || return 1
    # Both are for whoever sourced this file.
    # shellcheck disable=SC2034
    STATUS="${BASH_REMATCH[1]}"
    # shellcheck disable=SC2034
    BODY="${answer#*$'\r\n\r\n'}"
}

# json_field NAME: the value of the first field of that name in the JSON on standard input, when it is text or a number.
json_field() {
    grep -oE "\"$1\":(\"[^\"]*\"|[0-9]+)" | sed -n '1{s/^[^:]*://; s/"//g; p;}'
}
