#!/bin/sh
# Other people's mail servers, for tests/oracle and `python -m bench oracle`: fetches Debian's packages of
# Postfix and Exim, whichever is not installed, and unpacks them into a folder. Installs nothing, makes no
# user, starts nothing: the two exclude each other in apt, and the tests start them out of that folder.
#   use:    deploy/peers.sh [FOLDER]      as root on Debian 12; asks nothing, prints the folder
#   folder: else $PEERS_FOLDER, else /var/cache/streamq/peers; the tests look in the latter two. Every user must be
#           able to reach it (not below /root): both servers change users and start themselves anew.
#   away:   rm -r the folder
set -eu
folder=${1:-${PEERS_FOLDER:-/var/cache/streamq/peers}}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

if [ "$(id -u)" != 0 ]; then
  echo "peers.sh: only root can fetch packages (and start what is in them)" >&2
  exit 1
fi
umask 022
mkdir -p "$folder"
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$fetched/partial"
chmod 755 "$fetched" # apt fetches as a user of its own

# With --download-only apt works out what else is missing here, and removes nothing for it.
fetch() {
  apt-get install -y -qq --no-install-recommends --download-only -o "Dir::Cache::archives=$fetched" "$@" \
    </dev/null >&2
}

# One at a time, each marked when all of it is there: a run that was cut short is made good by the next.
for name in exim4-daemon-light postfix; do
  case $name in exim4*) command=exim4 ;; *) command=$name ;; esac
  if [ -e "$folder/.$name" ] || command -v "$command" >/dev/null; then continue; fi
  rm -f "$fetched"/*.deb
  # libnss-wrapper shows them their users without a line in /etc/passwd
  fetch "$name" libnss-wrapper || { apt-get update -qq >&2 && fetch "$name" libnss-wrapper; }
  for package in "$fetched"/*.deb; do
    # What is installed stays what they use: a second libc beside the system's would not fit its loader.
    status=$(dpkg-query -W -f '${db:Status-Status}' "$(dpkg-deb -f "$package" Package)" 2>/dev/null || true)
    [ "$status" = installed ] || dpkg-deb -x "$package" "$folder"
  done
  touch "$folder/.$name"
done
# A set-uid program does not look into a folder for its libraries. They are started by root anyway.
find "$folder" -type f -perm /6000 -exec chmod ug-s {} +
echo "$folder"
