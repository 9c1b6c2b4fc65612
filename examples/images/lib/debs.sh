# shellcheck shell=bash
# Debian packages as the content of an image: resolve, download once, unpack. CACHE is set.

# Packages that only matter to a booted system or to a maintainer script.
debs_left_out='^(dpkg|tar|usrmerge|init-system-helpers|sysvinit-utils|libaudit.*|libcap-ng0|debconf.*|libpam.*|libsemanage.*|libsepol.*|adduser|passwd|login|perl.*|libperl.*|libjson-perl|libgdbm.*|lsb-base|ucf|sensible-utils|cron.*|python3.*|libpython3.*|openssl|ssl-cert|locales|libc-l10n|libllvm.*|libz3-4|procps|libproc2-0|logrotate|javascript-common|libjs-.*|debianutils|iproute2|libbpf.*|libelf1|libmnl0|libxtables12|libtirpc.*|libnsl2|libcap2-bin|postgresql-common|postgresql-client-common|media-types|libsqlite3-0|gcc-12-base|libpopt0|libsctp1.*|socat|libwrap0|daemon|libexpat1|mariadb-common|mysql-common|readline-common|libmpdec.*|libncursesw6|prometheus-node-exporter|coreutils|libattr1|libdebconfclient0|base-.*|bash|dash|sed|grep|gzip|hostname|util-linux.*|mount|libmount1|libblkid1|libsmartcols1|libfdisk1|e2fsprogs|logsave|libext2fs2|libss2|libcom-err2x)$'

debs_apt() {
  mkdir -p "$CACHE/apt/archives/partial"
  : >"$CACHE/apt/status" # as if nothing were installed
  apt-get -qq -o Dir::State::status="$CACHE/apt/status" -o APT::Install-Recommends=0 \
    -o Dir::Cache::archives="$CACHE/apt/archives" -o Debug::NoLocking=1 "$@"
}

# debs_closure PACKAGE... : "name version" of every package that a bare system would need, but for
# those left out. A pattern among the arguments (python3*) takes such packages in again.
debs_closure() {
  local name version kept wanted=() argument
  for argument; do [[ $argument == *\** ]] || wanted+=("$argument"); done
  debs_apt -s install "${wanted[@]}" 2>/dev/null | sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1 \2/p' |
    while read -r name version; do
      kept=no
      [[ $name =~ $debs_left_out ]] || kept=yes
      # shellcheck disable=SC2053 # arguments are patterns
      for argument; do [[ $name == $argument ]] && kept=yes; done
      [[ $kept == no ]] || echo "$name $version"
    done | LC_ALL=C sort
}

# debs_fetch <"name version" lines : makes sure that the files are in the cache, prints their paths
debs_fetch() {
  local wanted=() files=() name version file
  while read -r name version; do
    file="$CACHE/apt/archives/${name}_${version//:/%3a}_"
    files+=("$file")
    compgen -G "$file*.deb" >/dev/null || wanted+=("$name=$version")
  done
  if ((${#wanted[@]})); then
    (cd "$CACHE/apt/archives" && apt-get -qq -o Debug::NoLocking=1 download "${wanted[@]}" >/dev/null 2>&1) ||
      die "apt-get cannot download ${wanted[*]}: run apt-get update and try again"
  fi
  for file in "${files[@]}"; do compgen -G "$file*.deb"; done
}

# debs_unpack DIR FILE... : unpacks into a tree with merged /usr, without documentation
debs_unpack() {
  local dir=$1 file
  shift
  mkdir -p "$dir"/usr/{bin,sbin,lib,lib64}
  for file in bin sbin lib lib64; do [[ -L $dir/$file ]] || ln -s "usr/$file" "$dir/$file"; done
  for file; do
    dpkg-deb --fsys-tarfile "$file" | tar -x -C "$dir" --keep-directory-symlink --no-same-owner \
      --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
      --exclude='./usr/share/lintian/*' --exclude='./usr/share/info/*' --exclude='./usr/share/bash-completion/*' \
      --exclude='./usr/share/bug/*' --exclude='./usr/share/doc-base/*' --exclude='./lib/systemd/*' \
      --exclude='./usr/lib/systemd/*' --exclude='./etc/init.d/*' --exclude='./etc/cron*' --exclude='./etc/logrotate.d/*' \
      --exclude='*/gconv/*' --exclude='./usr/share/zoneinfo/right/*'
  done
  find "$dir"/usr/share/{doc,man,locale} -depth -type d -empty -delete 2>/dev/null || true
}
