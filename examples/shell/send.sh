#!/bin/sh
# Two mails with redis-cli: one composed by streamq from its parts, one that is a whole message already.
#   sh send.sh [order.eml]
set -eu
url=${REDIS_URL:-redis://127.0.0.1:6379}
message=${1:-$(dirname "$0")/../order.eml}

# XADD until it is known to be done: a lost reply is no reason for a second mail, since the id is the same. redis-cli
# exits 0 whenever there was a reply, and that may be an error.
xadd() {
    input=$1
    shift
    for pause in 0 1 2 4; do
        sleep "$pause"
        if reply=$(redis-cli -u "$url" "$@" <"$input"); then
            case $reply in
            '' | *[!0-9-]*)
                echo "Redis refused it: $reply" >&2 # OOM, NOAUTH, …
                return 1
                ;;
            esac
            echo "$reply"
            return 0
        fi
    done
    echo "no reply from Redis: the mail may be queued; run this again" >&2
    return 1
}

xadd /dev/null XADD '{streamq}:normal' '*' \
    id order-18-receipt from 'Shop <shop@example.com>' to 'Bob <bob@example.net>' \
    subject 'Your order № 18' text 'Thank you, José.'

# -x reads the last value from standard input, byte for byte.
xadd "$message" -x XADD '{streamq}:normal' '*' \
    id order-18-invoice envelope_from bounces@example.com envelope_to bob@example.net raw
