# shellcheck shell=bash
# Makes what the project needs be there, and says what it does. Sourced by ./dev from the project's
# root. When all is there, nothing is printed, nothing is asked of any network, and it takes
# some milliseconds.

export SKEP_CACHE=${SKEP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skep}
export SKEP_ENGINE=${SKEP_ENGINE:-unix:///var/run/docker.sock}
system_path=$PATH
export PATH="$PWD/node_modules/.bin:$PATH"
mkdir -p "$SKEP_CACHE"

say() { printf 'dev: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# Debian's package for a command.
package_of() {
  case $1 in
    docker | dockerd) echo docker.io ;;
    nft) echo nftables ;;
    ip) echo iproute2 ;;
    etcd) echo etcd-server ;;
    wg) echo wireguard-tools ;;
    *) echo "$1" ;;
  esac
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends "$@" >>"$SKEP_CACHE/apt.log" 2>&1; }

apt_install() {
  say "apt-get install $*"
  apt_get install "$@" || { apt_get update && apt_get install "$@"; } || {
    tail -5 "$SKEP_CACHE/apt.log" >&2
    fail "apt-get could not install $*; its output is in $SKEP_CACHE/apt.log"
  }
}

can_install() { [[ $(id -u) == 0 && -e /etc/debian_version ]] && command -v apt-get >/dev/null; }

# need_commands NAME... : installs what is missing where that is possible, else says what to install
need_commands() {
  local name missing=() packages=()
  for name; do
    if ! command -v "$name" >/dev/null; then
      missing+=("$name")
      packages+=("$(package_of "$name")")
    fi
  done
  ((${#missing[@]})) || return 0
  can_install || fail "missing: ${missing[*]}. Install them (on Debian: sudo apt-get install ${packages[*]}) and try again."
  apt_install "${packages[@]}"
  hash -r
  # Newer Debian releases have the docker command in a package of its own.
  if [[ " ${missing[*]} " == *' docker '* ]] && ! command -v docker >/dev/null; then apt_install docker-cli; fi
}

# The server of the example images and the slow cable of the lab are C programs.
need_compiler() {
  command -v gcc >/dev/null && [[ -e /usr/include/stdio.h ]] && return 0
  can_install || fail 'missing: a C compiler. Install one (on Debian: sudo apt-get install gcc libc6-dev) and try again.'
  apt_install gcc libc6-dev
  hash -r
}

# Debian's package starts an etcd of its own as a service. Ours are started by the daemon: that one must not run, now or
# at the next boot. Fails where it can't be installed; what needs it is skipped then, and says so.
need_etcd() {
  command -v etcd >/dev/null && return 0
  can_install || return 1
  local policy=/usr/sbin/policy-rc.d mine=
  if [[ ! -e $policy ]]; then
    mine=1
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  fi
  # In a shell of its own, so that a failure to install does not leave the policy behind.
  (apt_install etcd-server) || say 'etcd is not installed: what needs several managers is skipped'
  [[ -z $mine ]] || rm -f $policy
  if command -v systemctl >/dev/null; then systemctl disable --now etcd >/dev/null 2>&1 || systemctl disable etcd >/dev/null 2>&1 || true; fi
  hash -r
  command -v etcd >/dev/null
}

# docker-compose 1, which one test compares skep compose with. Fails where it can't be had; that test is skipped then, and says so.
need_old_compose() {
  command -v docker-compose >/dev/null && return 0
  can_install || return 1
  (apt_install docker-compose) || say 'docker-compose is not installed: the comparison with it is skipped'
  hash -r
  command -v docker-compose >/dev/null
}

node_major() { node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0; }

# The locked npm packages; one of them is the Node.js that everything runs on.
need_node() {
  local stamp=node_modules/.skep-lock
  cmp -s package-lock.json $stamp && return 0
  # Someone may have run npm by hand: then what is installed is compared, not installed again.
  if [[ -x node_modules/.bin/node ]] && node scripts/lock-is-installed.ts 2>/dev/null; then
    cp package-lock.json $stamp
    return 0
  fi
  if ! PATH=$system_path command -v npm >/dev/null; then
    can_install || fail 'npm is missing. Install Node.js with npm (18 or newer; the project brings its own Node.js 24).'
    if PATH=$system_path command -v node >/dev/null; then apt_install npm; else apt_install nodejs npm; fi
  fi
  (($(PATH=$system_path node_major) >= 18)) || fail 'npm needs Node.js 18 or newer to install the packages.'
  say 'npm ci (packages and Node.js 24, as in package-lock.json)'
  PATH=$system_path npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2
  [[ -x node_modules/.bin/node ]] || (($(PATH=$system_path node_major) >= 24)) ||
    fail "there is no npm package of Node.js for $(uname -m): install Node.js 24.18.1 or newer and try again."
  cp package-lock.json $stamp
}

engine_answers() {
  case $SKEP_ENGINE in
    unix://*) curl -sf -m 5 -o /dev/null --unix-socket "${SKEP_ENGINE#unix://}" http://engine/_ping ;;
    *) docker -H "$SKEP_ENGINE" version >/dev/null 2>&1 ;;
  esac
}

# Field 22 of /proc/PID/stat: with the pid it names one process for ever.
started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

need_engine() {
  need_commands curl
  engine_answers && return 0
  [[ $SKEP_ENGINE == unix:///var/run/docker.sock ]] || fail "no engine answers on $SKEP_ENGINE: start it, or unset SKEP_ENGINE"
  need_commands dockerd iptables
  engine_answers && return 0 # apt may have started it
  [[ $(id -u) == 0 ]] || fail "no engine answers on $SKEP_ENGINE: start Docker (sudo systemctl start docker), or run ./dev as root."
  local try
  if [[ -d /run/systemd/system ]]; then
    say 'systemctl start docker'
    systemctl start docker
    echo 'systemd' >"$SKEP_CACHE/engine"
  else
    say "starting dockerd (its log: $SKEP_CACHE/dockerd.log; ./dev clean ends it)"
    setsid dockerd >"$SKEP_CACHE/dockerd.log" 2>&1 </dev/null &
    echo "process $! $(started_at $!)" >"$SKEP_CACHE/engine"
    disown
  fi
  for ((try = 0; try < 120; try++)); do
    engine_answers && return 0
    sleep 0.25
  done
  fail "the engine does not answer after 30 s. Its last words: $(tail -1 "$SKEP_CACHE/dockerd.log" 2>/dev/null)"
}

# Ends the engine that need_engine started, and no other.
stop_engine() {
  local kind pid start try
  [[ -f $SKEP_CACHE/engine ]] || return 0
  read -r kind pid start <"$SKEP_CACHE/engine"
  if [[ $kind == systemd ]]; then
    say 'systemctl stop docker'
    systemctl stop docker docker.socket
  elif [[ -n $start && $(started_at "$pid") == "$start" ]]; then
    say "stopping the dockerd that ./dev started (process $pid)"
    kill "$pid"
    for ((try = 0; try < 120; try++)); do
      [[ $(started_at "$pid") == "$start" ]] || break
      sleep 0.25
    done
  fi
  rm -f "$SKEP_CACHE/engine"
}

build() {
  if [[ -f dist/skep.js && -z $(find src scripts/build.ts package-lock.json -newer dist/skep.js -print -quit) ]]; then return 0; fi
  say 'building dist/'
  node scripts/build.ts
}

clean() {
  examples/production/demo --down
  stop_engine
  say "removing dist/ and $SKEP_CACHE"
  rm -rf dist "$SKEP_CACHE"
}
