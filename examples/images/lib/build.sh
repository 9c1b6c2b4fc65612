# shellcheck shell=bash disable=SC2034,SC2154 # ensure and push use what is set here, and set `here`
# Reads the catalogue and builds what is asked for. Sets CACHE; `here` is examples/images.

CACHE=${SKEP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skep}/images
die() {
  echo "images: $*" >&2
  exit 1
}

set -E
trap 'die "line $LINENO of ${BASH_SOURCE[0]##*/}: this failed: $BASH_COMMAND"' ERR

refs=()
declare -A image_config=() image_layers=() is_public=() layer_keys=() packages=()
own() { # REF CONFIG LAYER...
  refs+=("$1")
  image_config[$1]=$2
  image_layers[$1]="${*:3}"
}
public() {
  own "$@"
  is_public[$1]=yes
}

# shellcheck source=debs.sh
. "$here/lib/debs.sh"
# shellcheck source=store.sh
. "$here/lib/store.sh"
# shellcheck source=../catalogue.sh
. "$here/catalogue.sh"

# What the demo and the benchmarks use; the tests run every example.
core=(busybox alpine whoami my-registry.com/api nginx:{alpine,latest,1.24,1.25} postgres:15-alpine redis:7-alpine)

# refs_of [PATTERN...] : the references that match, with or without tag; the core without any, every one for "all"
refs_of() {
  local ref pattern patterns=("$@")
  ((${#patterns[@]})) || patterns=("${core[@]}")
  [[ ${patterns[*]} != all ]] || patterns=('*')
  for ref in "${refs[@]}"; do
    for pattern in "${patterns[@]}"; do
      # shellcheck disable=SC2053 # they are patterns
      if [[ $ref == $pattern || ${ref%:*} == $pattern ]]; then
        echo "$ref"
        break
      fi
    done
  done
}

# A layer "nginx_tag=1.25" is made by `layer_nginx_tag 1.25`, and lies in the store as nginx_tag-1.25.
layer_file() { echo "${1/=/-}"; }

# set_layer_key LAYER : what a layer is made from, as one word, into layer_keys
set_layer_key() {
  local name=${1%%=*}
  [[ -z ${layer_keys[$1]:-} ]] || return 0
  layer_keys[$1]=$(
    {
      echo "$1 ${packages[$name]:-}"
      declare -f "layer_$name"
      echo "${packages[base]} $debs_left_out $(declare -f debs_closure debs_unpack layer_base)"
      cat "$here/entrypoints/$name.sh" "$here/$name"/* 2>/dev/null || true
    } | sha256sum | cut -c1-16
  )
}

# recipe_of REF : what an image is made from, as one word
recipe_of() {
  local layer keys=
  for layer in ${image_layers[$1]}; do
    set_layer_key "$layer"
    keys+=" ${layer_keys[$layer]}"
  done
  sha256sum <<<"${image_config[$1]}$keys" | cut -c1-16
}

# run_from_tree PROGRAM ARGUMENT... : runs a program of the tree in $R with the tree's own libraries
run_from_tree() {
  local lib=usr/lib/x86_64-linux-gnu base=$CACHE/base-root
  "$base/$lib/ld-linux-x86-64.so.2" --inhibit-cache --library-path "$R/$lib:$base/$lib" "$@"
}

# Every program of a tree must find its libraries there or in the base.
check_libraries() { # NAME DIR
  local lib=usr/lib/x86_64-linux-gnu base=$CACHE/base-root path missing
  [[ $1 != base ]] || base=$2
  path=$2/$lib:$base/$lib:$({ find "$2/$lib" "$2/usr/lib/postgresql" -name '*.so*' -printf '%h\n' 2>/dev/null || true; } | sort -u | tr '\n' ':')
  missing=$(find "$2"/usr/{bin,sbin} "$2"/usr/lib/*/bin "$2"/usr/lib/{postgresql,erlang} -type f -perm -100 2>/dev/null |
    while read -r program; do
      grep -qam1 ld-linux-x86-64 <(head -c 4096 "$program") || continue # static, or no program
      "$base/$lib/ld-linux-x86-64.so.2" --inhibit-cache --library-path "$path" --list "$program" 2>/dev/null |
awk -v program="${program#"$2"}" -v tree="$2/" -v base="$base/" \
          '/ => / && index($3, tree) != 1 && index($3, base) != 1 { print program ": " $1 }' # not found, or the host's
    done) || true
  [[ -z $missing ]] || die "layer $1 lacks libraries: $missing"
}

build_layer() { # LAYER
  local name=${1%%=*} file work R started=$EPOCHREALTIME files
  file=$(layer_file "$1")
  set_layer_key "$1"
  ! store_has_layer "$file" "${layer_keys[$1]}" || return 0
  work=$(mktemp -d "$CACHE/build.XXXXXX")
  R=$work/root
  mkdir "$R"
  if [[ -n ${packages[$name]:-} ]]; then
    # shellcheck disable=SC2086 # a list, with patterns
    (set -f && debs_closure ${packages[$name]}) >"$work/all"
    [[ -s $work/all ]] || die "apt knows none of: ${packages[$name]} (run apt-get update?)"
    if [[ $name == base ]]; then
      cp "$work/all" "$CACHE/layers/base.packages"
      cp "$work/all" "$work/more"
    else
      grep -vxFf "$CACHE/layers/base.packages" "$work/all" >"$work/more" || true
    fi
    debs_fetch <"$work/more" >"$work/files"
    mapfile -t files <"$work/files"
    debs_unpack "$R" "${files[@]}"
  fi
  case $1 in
    *=*) "layer_$name" "${1#*=}" ;;
    *) "layer_$name" ;;
  esac
  [[ -z ${packages[$name]:-} ]] || check_libraries "$name" "$R"
  store_layer "$file" "${layer_keys[$1]}" "$R"
  if [[ $name == base ]]; then
    rm -rf "$CACHE/base-root"
    mv "$R" "$CACHE/base-root"
  fi
  rm -rf "$work"
  printf 'images: layer %s, %d kB packed, %d ms\n' "$file" "$(($(stat -c %s "$CACHE/layers/$file.tar.gz") / 1000))" \
    "$(((${EPOCHREALTIME/./} - ${started/./}) / 1000))" >&2
}

# build_images REF... : makes them be in the store
build_images() {
  local ref layer command recipe files stored
  local -A wanted=()
  for command in apt-get dpkg-deb jq curl; do
    command -v $command >/dev/null || die "$command is missing: images are built from Debian's packages"
  done
  mkdir -p "$CACHE"/{layers,images}
  exec 9>"$CACHE/lock"
  flock 9
  rm -rf "$CACHE"/build.* "$CACHE"/archive.*
  build_layer base
  for ref; do
    for layer in ${image_layers[$ref]}; do wanted[$layer]=yes; done
  done
  for layer in "${!wanted[@]}"; do
    while (($(jobs -rp | wc -l) >= 2)); do wait -n; done
    build_layer "$layer" &
  done
  while (($(jobs -p | wc -l))); do wait -n; done
  for ref; do
    files=()
    for layer in ${image_layers[$ref]}; do files+=("$(layer_file "$layer")"); done
    recipe=$(recipe_of "$ref")
    stored=$(image_file "$ref").config
    grep -qsF "\"skep.recipe\":\"$recipe\"" "$stored" ||
      store_image "$ref" "$(jq -c --arg recipe "$recipe" '.Labels["skep.recipe"] = $recipe' <<<"${image_config[$ref]}")" "${files[@]}"
  done
  exec 9>&-
}
