# shellcheck shell=bash
# A store of layers and images in $CACHE, and what reads it: `docker load` and a registry (image
# manifest schema 2). No engine takes part in a build. Needs tar, gzip, sha256sum, jq, curl.

digest_of() { sha256sum "$1" | cut -d' ' -f1; }
image_file() {
  local name=${1//\//_}
  echo "$CACHE/images/${name//:/@}"
}

# store_layer NAME KEY DIR : packs DIR as a layer, the same bytes for the same content. Makes
# layers/NAME.{tar,tar.gz,meta}; meta holds "key, digest of tar, digest of tar.gz, size of tar.gz".
store_layer() {
  local name=$1 key=$2 dir=$3 file=$CACHE/layers/$1 leave_links=(-false)
  # /bin and its like are links in the base layer: no other may lay a folder over them
  [[ $name == base || $name == busybox ]] || leave_links=(-type l)
  (cd "$dir" && find . -mindepth 1 \( -path ./bin -o -path ./sbin -o -path ./lib -o -path ./lib64 \) "${leave_links[@]}" -prune -o -print0 |
    LC_ALL=C sort -z | tar --no-recursion --null -T - --numeric-owner --mtime=@1700000000 --format=gnu -cf "$file.tar.new")
  gzip -n -1 <"$file.tar.new" >"$file.tar.gz.new"
  mv "$file.tar.new" "$file.tar"
  mv "$file.tar.gz.new" "$file.tar.gz"
  echo "$key $(digest_of "$file.tar") $(digest_of "$file.tar.gz") $(stat -c %s "$file.tar.gz")" >"$file.meta"
}
store_has_layer() { [[ -f $CACHE/layers/$1.meta && $(cut -d' ' -f1 "$CACHE/layers/$1.meta") == "$2" ]]; }

# store_image REF CONFIG LAYER... : writes images/REF.{config,manifest,ref}; CONFIG is the JSON of
# the config section
store_image() {
  local ref=$1 config=$2 file layer diff_ids=() layers='[]' tar_digest gz_digest size
  shift 2
  file=$(image_file "$ref")
  for layer; do
    read -r _ tar_digest gz_digest size <"$CACHE/layers/$layer.meta"
    diff_ids+=("sha256:$tar_digest")
    layers=$(jq -c --arg digest "sha256:$gz_digest" --argjson size "$size" \
      '. + [{mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip", $size, $digest}]' <<<"$layers")
  done
  jq -nc --argjson config "$config" --args '{architecture: "amd64", os: "linux", created: "2023-11-14T22:13:20Z", $config,
    rootfs: {type: "layers", diff_ids: $ARGS.positional},
    history: [$ARGS.positional[] | {created: "2023-11-14T22:13:20Z"}]}' "${diff_ids[@]}" >"$file.config"
  jq -nc --argjson layers "$layers" --arg digest "sha256:$(digest_of "$file.config")" --argjson size "$(stat -c %s "$file.config")" \
    '{schemaVersion: 2, mediaType: "application/vnd.docker.distribution.manifest.v2+json",
      config: {mediaType: "application/vnd.docker.container.image.v1+json", $size, $digest}, $layers}' >"$file.manifest"
  printf '%s\n' "$ref" "$@" >"$file.ref"
}

# store_archive REF... : writes a `docker load` archive to standard output; a common layer is in it once
store_archive() {
  local dir file ref layer digest layers manifest='[]'
  dir=$(mktemp -d "$CACHE/archive.XXXXXX")
  for ref; do
    file=$(image_file "$ref")
    digest=$(digest_of "$file.config")
    ln -sf "$file.config" "$dir/$digest.json"
    layers='[]'
    while read -r layer; do
      mkdir -p "$dir/$layer"
      ln -sf "$CACHE/layers/$layer.tar" "$dir/$layer/layer.tar"
      layers=$(jq -c --arg layer "$layer/layer.tar" '. + [$layer]' <<<"$layers")
    done < <(tail -n +2 "$file.ref")
    manifest=$(jq -c --arg config "$digest.json" --arg ref "$ref" --argjson layers "$layers" \
      '. + [{Config: $config, RepoTags: [$ref], Layers: $layers}]' <<<"$manifest")
  done
  echo "$manifest" >"$dir/manifest.json"
  tar -chf - -C "$dir" .
  rm -rf "$dir"
}

registry_has() { # HOST:PORT REPOSITORY DIGEST
  [[ $(curl -s -o /dev/null -w '%{http_code}' -I "http://$1/v2/$2/blobs/$3") == 200 ]]
}

# registry_put HOST:PORT REPOSITORY DIGEST FILE : a blob goes up once, and is mounted elsewhere
registry_put() {
  local registry=$1 repository=$2 digest=$3 file=$4 url
  registry_has "$registry" "$repository" "$digest" && return
  if ! registry_has "$registry" skep/blobs "$digest"; then
    url=$(curl -s -D - -o /dev/null -X POST -H 'Content-Length: 0' "http://$registry/v2/skep/blobs/blobs/uploads/" |
      tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    [[ $url == http* ]] || url=http://$registry$url
    if [[ $url == *\?* ]]; then url+='&'; else url+='?'; fi
    curl -sf -o /dev/null -X PUT -H 'Content-Type: application/octet-stream' -T "$file" "${url}digest=$digest" ||
      die "the registry $registry refused the blob $digest"
  fi
  [[ $(curl -s -o /dev/null -w '%{http_code}' -X POST -H 'Content-Length: 0' \
    "http://$registry/v2/$repository/blobs/uploads/?mount=$digest&from=skep/blobs") == 201 ]] ||
    die "the registry $registry could not mount $digest into $repository"
}

# store_push HOST:PORT REF AS : uploads what the registry lacks
store_push() {
  local registry=$1 file repository=${3%:*} tag=${3##*:} layer digest
  file=$(image_file "$2")
  while read -r layer; do
    read -r _ _ digest _ <"$CACHE/layers/$layer.meta"
    registry_put "$registry" "$repository" "sha256:$digest" "$CACHE/layers/$layer.tar.gz"
  done < <(tail -n +2 "$file.ref")
  registry_put "$registry" "$repository" "sha256:$(digest_of "$file.config")" "$file.config"
  curl -sf -o /dev/null -X PUT -H 'Content-Type: application/vnd.docker.distribution.manifest.v2+json' \
    --data-binary @"$file.manifest" "http://$registry/v2/$repository/manifests/$tag" ||
    die "the registry $registry refused the manifest of $3"
}
