#!/bin/sh
# Starts Redis with its three users. The passwords come from the environment and reach Redis by standard
# input: an argument would be in the list of processes.
#
# Nobody can sign in as the user `default`: it is off and has no password. It keeps all its rights, since Redis
# loads the append-only file with them. Without them it refuses the transactions in that file, and loses
# what it had acknowledged.
set -eu

folder=${0%/*}

# What a user may do: the file without its comments, in one line.
rights() {
  grep -v '^#' "$folder/$1.rights" | tr '\n' ' '
}

# A password stands in a line of Redis' configuration and in a URL, where other characters mean something.
check() {
  case $2 in
  "" | *[!A-Za-z0-9_.-]*)
    echo "start.sh: $1 must be letters, digits, dots, dashes and underscores" >&2
    exit 64
    ;;
  esac
}

check REDISCLI_AUTH "${REDISCLI_AUTH:-}"
check PRODUCER_PASSWORD "${PRODUCER_PASSWORD:-}"
check BFF_PASSWORD "${BFF_PASSWORD:-}"
producer=$(rights producer)
bff=$(rights bff)
exec redis-server "$folder/redis.conf" - <<END
user default off ~* &* +@all
user operator on >$REDISCLI_AUTH ~* &* +@all
user producer on >$PRODUCER_PASSWORD $producer
user bff on >$BFF_PASSWORD $bff
END
