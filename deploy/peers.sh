#!/bin/sh
# Other people's mail servers, for tests/oracle and `python -m bench oracle`: fetches Debian's packages of
# Postfix and Exim, whichever is not installed, and unpacks them into a folder. Installs nothing, makes no
# user, starts nothing: the two exclude each other in apt, and the tests start them from that folder.
#   use:    deploy/peers.sh [FOLDER]      as root on Debian 12 (apt); asks nothing
#   folder: else $PEERS_FOLDER, else ~/.cache/streamq/peers; the tests look in the latter two
#   away:   rm -r the folder
set -eu
folder=${1:-${PEERS_FOLDER:-${XDG_CACHE_HOME:-$HOME/.cache}/streamq/peers}}
export DEBIAN_FRONTEND=noninteractive
PATH=$PATH:/usr/sbin:/sbin

mkdir -p "$folder"
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
mkdir "$fetched/partial"
chmod 755 "$fetched" # apt fetches as a user of its own

# With --download-only apt works out what else is missing here, and removes nothing for it.
fetch() {
  apt-get install -y -qq --no-install-recommends --download-only -o "Dir::Cache::archives=$fetched" "$@" </dev/null
}

wanted=
[ -x "$folder/usr/sbin/exim4" ] || command -v exim4 >/dev/null || wanted="exim4-daemon-light"
[ -x "$folder/usr/sbin/postfix" ] || command -v postfix >/dev/null || wanted="$wanted postfix"
for name in $wanted; do
  # libnss-wrapper shows them their users without a line in /etc/passwd
  fetch "$name" libnss-wrapper || { apt-get update -qq && fetch "$name" libnss-wrapper; }
done
for package in "$fetched"/*.deb; do
  [ -e "$package" ] && dpkg-deb -x "$package" "$folder"
done
# A set-uid program does not look into a folder for its libraries. They are started by root anyway.
find "$folder" -type f -perm /6000 -exec chmod ug-s {} +
echo "$folder"
