# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # lib/build.sh uses what is set here, and sets `here`
# What the images are made of. A layer is a list of Debian packages and a function `layer_NAME`
# that changes the tree in $R; an image is a configuration and the layers under it, lowest first.

# ---- layers ---------------------------------------------------------------------------

# A pattern such as python3* takes in packages that are left out of the other layers.
declare -A packages=(
  [base]='curl busybox-static libc-bin netbase gosu'
  [nginx]='nginx gettext-base'
  [postgres]='postgresql postgresql-client tzdata libpam0g libaudit1 libcap-ng0'
  [redis]='redis-server redis-tools'
  [rabbitmq]='rabbitmq-server'
  [prometheus]='prometheus'
  [haproxy]='haproxy'
  [mariadb]='mariadb-server-core mariadb-client-core'
  [python]='python3 python3-psycopg2 libexpat1 python3* libpython3*'
  [pika]='python3-pika'
)

entrypoint() { install -D -m 755 "$here/entrypoints/$1.sh" "$R/${2:-usr/local/bin/docker-entrypoint.sh}"; }

layer_base() { # glibc, busybox, curl, gosu, and every account that an image uses
  local applet
  # merged /usr: one of the links leads to the program, wherever the package has it
  install -m 755 "$R/bin/busybox" "$R/busybox.new"
  rm "$R/bin/busybox"
  mv "$R/busybox.new" "$R/usr/bin/busybox"
  "$R/usr/bin/busybox" --list | while read -r applet; do
    [[ -e $R/usr/bin/$applet || -e $R/usr/sbin/$applet ]] || ln -s busybox "$R/usr/bin/$applet"
  done
  mkdir -p "$R"/{etc,root,tmp,run,proc,sys,dev,home,var/lib,var/log,var/tmp,usr/local/bin}
  [[ -e $R/var/run ]] || ln -s ../run "$R/var/run"
  chmod 1777 "$R/tmp" "$R/var/tmp"
  cat >"$R/etc/passwd" <<'E'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
haproxy:x:99:99:haproxy:/var/lib/haproxy:/bin/false
rabbitmq:x:100:101:rabbitmq:/var/lib/rabbitmq:/bin/sh
nginx:x:101:102:nginx:/var/cache/nginx:/bin/false
mysql:x:997:997:mysql:/var/lib/mysql:/bin/false
redis:x:998:998:redis:/data:/bin/false
postgres:x:999:999:postgres:/var/lib/postgresql:/bin/sh
app:x:1000:1000:app:/home:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
E
  sed 's/^\([^:]*\):x:[0-9]*:\([0-9]*\):.*/\1:x:\2:/; s/^nobody:/nogroup:/' "$R/etc/passwd" >"$R/etc/group"
  echo 'hosts: files dns' >"$R/etc/nsswitch.conf"
  printf 'NAME="Skep example (Debian packages)"\nID=debian\n' >"$R/etc/os-release"
  rm -rf "$R/usr/lib/udev" "$R/var/cache" "$R/var/lib/dpkg" "$R/usr/share/perl5"
}

layer_busybox() { # the static busybox alone
  local applet
  mkdir -p "$R"/{usr/bin,usr/sbin,usr/lib,usr/lib64,etc,root,tmp,proc,sys,dev,run}
  for applet in bin sbin lib lib64; do ln -s "usr/$applet" "$R/$applet"; done
  chmod 1777 "$R/tmp"
  install -m 755 "$CACHE/base-root/usr/bin/busybox" "$R/usr/bin/busybox"
  "$R/usr/bin/busybox" --list | while read -r applet; do
    [[ $applet == busybox ]] || ln -s busybox "$R/usr/bin/$applet"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$R/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$R/etc/group"
}

layer_whoami() { # one static binary; also the whole of the whoami images
  local compiler=musl-gcc
  command -v $compiler >/dev/null || compiler=gcc
  command -v $compiler >/dev/null || die 'a C compiler is missing: apt-get install musl-tools'
  $compiler -O2 -static -s -o "$R/whoami" "$here/whoami/whoami.c"
  mkdir -p "$R/data" "$R/tmp"
  chmod 1777 "$R/data" "$R/tmp"
}

layer_npm() { # `npm run …` of applications that have no source here
  mkdir -p "$R/usr/local/bin" "$R/app"
  printf '#!/bin/sh\nexec /whoami\n' >"$R/usr/local/bin/npm"
  cp "$R/usr/local/bin/npm" "$R/usr/local/bin/node"
  chmod 755 "$R"/usr/local/bin/*
}

layer_traefik() { entrypoint traefik usr/local/bin/traefik; }

layer_python() {
  local python
  rm -rf "$R"/usr/lib/python3*/{lib2to3,ensurepip,idlelib,distutils,test,pydoc_data,tkinter,unittest} "$R/usr/share/python3"
  python=$(find "$R/usr/bin" -name 'python3.*' -type f | head -1)
  # Compiled here, since a container would do it at every start. The check is by content: tar sets all times.
  PYTHONHOME=$R/usr run_from_tree "$python" -m compileall -q --invalidation-mode unchecked-hash -s "$R" "$R"/usr/lib/python3* >/dev/null
}

layer_api() { install -D -m 644 "$here/api/api.py" "$R/app/api.py"; }

layer_pika() { rm -rf "$R/usr/share/python3"; }

layer_shop() { install -D -m 644 "$here/shop/shop.py" "$R/app/shop.py"; }

layer_nginx() {
  local folder
  rm -rf "$R"/etc/nginx/{sites-*,snippets,modules-*} "$R/etc/ufw" "$R/var/www" "$R/usr/share/nginx/html" "$R/usr/share/vim" "$R/etc/default"
  mkdir -p "$R/etc/nginx/conf.d" "$R/usr/share/nginx/html" "$R/var/log/nginx" "$R/var/cache/nginx" "$R/docker-entrypoint.d"
  for folder in body proxy fastcgi uwsgi scgi; do mkdir -p "$R/var/lib/nginx/$folder"; done
  ln -sf /dev/stdout "$R/var/log/nginx/access.log"
  ln -sf /dev/stderr "$R/var/log/nginx/error.log"
  cat >"$R/etc/nginx/nginx.conf" <<'E'
user  nginx;
worker_processes  auto;
error_log  /var/log/nginx/error.log notice;
pid        /run/nginx.pid;
events { worker_connections  1024; }
http {
    include       /etc/nginx/mime.types;
    default_type  application/octet-stream;
    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$http_referer" '
                      '"$http_user_agent" "$http_x_forwarded_for"';
    access_log  /var/log/nginx/access.log  main;
    sendfile        on;
    keepalive_timeout  65;
    include /etc/nginx/conf.d/*.conf;
}
E
  printf '<h1>An error occurred.</h1>\n' >"$R/usr/share/nginx/html/50x.html"
  entrypoint nginx docker-entrypoint.sh
}

layer_nginx_tag() { # TAG: the content that tells one tag from another
  mkdir -p "$R/etc/nginx/conf.d" "$R/usr/share/nginx/html"
  cat >"$R/etc/nginx/conf.d/default.conf" <<E
server {
    listen       80;
    server_name  localhost;
    add_header   X-Image nginx:$1 always;
    location / {
        root   /usr/share/nginx/html;
        index  index.html index.htm;
    }
    error_page   500 502 503 504  /50x.html;
    location = /50x.html { root /usr/share/nginx/html; }
}
E
  printf '<!DOCTYPE html>\n<title>Welcome to nginx!</title>\n<h1>Welcome to nginx!</h1>\n<p>image nginx:%s</p>\n' "$1" \
    >"$R/usr/share/nginx/html/index.html"
}

layer_postgres() {
  local version program sample
  version=$(find "$R/usr/lib/postgresql" -mindepth 1 -maxdepth 1)
  rm -rf "$version/lib/bitcode" "$version"/lib/llvmjit* "$R"/usr/share/postgresql/*/man "$R/usr/share/postgresql-common" "$R/etc/postgresql-common"
  mkdir -p "$R/var/lib/postgresql/data" "$R/run/postgresql" "$R/docker-entrypoint-initdb.d" "$R/usr/local/bin"
  for program in "$version"/bin/*; do ln -s "${program#"$R"}" "$R/usr/local/bin/"; done
  sample=$(find "$R/usr/share/postgresql" -name postgresql.conf.sample)
  sed -i "s/^#listen_addresses = .*/listen_addresses = '*'/" "$sample"
  chown -R 999:999 "$R/var/lib/postgresql" "$R/run/postgresql"
  chmod 700 "$R/var/lib/postgresql/data"
  entrypoint postgres
}

layer_redis() {
  mkdir -p "$R/data"
  rm -rf "$R/etc/default"
  chown 998:998 "$R/data"
  chown -R 998:998 "$R/etc/redis"
  entrypoint redis
}

layer_rabbitmq() {
  mkdir -p "$R/var/lib/rabbitmq" "$R/var/log/rabbitmq" "$R/etc/rabbitmq"
  rm -rf "$R"/usr/lib/erlang/lib/*/{examples,src} "$R/usr/share/rabbitmq" "$R/etc/default/rabbitmq-server" "$R/etc/rabbitmq/rabbitmq-env.conf"
  chown -R 100:101 "$R/var/lib/rabbitmq" "$R/var/log/rabbitmq" "$R/etc/rabbitmq"
  entrypoint rabbitmq
}

layer_prometheus() {
  rm -rf "$R/usr/bin/promtool" "$R/etc/default" "$R/var/lib/prometheus"
  mkdir -p "$R/etc/prometheus" "$R/prometheus" "$R/usr/share/prometheus"
  [[ -e $R/usr/share/prometheus/consoles ]] || cp -r "$R"/etc/prometheus/{consoles,console_libraries} "$R/usr/share/prometheus/"
  printf 'global:\n  scrape_interval: 15s\nscrape_configs:\n  - job_name: prometheus\n    static_configs:\n      - targets: ["localhost:9090"]\n' \
    >"$R/etc/prometheus/prometheus.yml"
  chown 65534:65534 "$R/prometheus"
}

layer_haproxy() {
  rm -rf "$R/etc/default" "$R/etc/haproxy" "$R/etc/rsyslog.d"
  mkdir -p "$R/usr/local/etc/haproxy" "$R/var/lib/haproxy"
  chown 99:99 "$R/var/lib/haproxy"
  entrypoint haproxy
}

layer_mariadb() {
  rm -rf "$R"/usr/share/mysql/{*/errmsg.sys,policy,bench} "$R/usr/share/mysql/charsets/README"
  mkdir -p "$R/var/lib/mysql" "$R/run/mysqld" "$R/docker-entrypoint-initdb.d" "$R/etc/mysql/conf.d"
  [[ -e $R/usr/sbin/mysqld ]] || ln -s mariadbd "$R/usr/sbin/mysqld"
  [[ -e $R/usr/bin/mysql ]] || ln -s mariadb "$R/usr/bin/mysql"
  chown -R 997:997 "$R/var/lib/mysql" "$R/run/mysqld"
  entrypoint mariadb
}

# ---- images: "public" ones are taken from a registry when one answers, "own" ones are not ---

path='PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
probe='"Test":["CMD","/whoami","get","http://localhost/health"],"Interval":1000000000,"Timeout":1000000000'

public busybox:latest '{"Env":["'$path'"],"Cmd":["sh"]}' busybox
public alpine:latest '{"Env":["'$path'"],"Cmd":["/bin/sh"]}' base
public curlimages/curl:latest '{"Env":["'$path'"],"Cmd":["/bin/sh"]}' base

# a server that says who it is and misbehaves on request; one that dies, one that never becomes healthy, one that is slow
for tag in v1 v2 v3 latest; do
  own whoami:$tag '{"Env":["'$path'","VERSION='$tag'"],"Entrypoint":["/whoami"],"ExposedPorts":{"80/tcp":{}},"WorkingDir":"/data"}' whoami
done
own whoami:crash '{"Env":["VERSION=crash","CRASH_ON_START=1"],"Entrypoint":["/whoami"]}' whoami
own whoami:sick '{"Env":["VERSION=sick","FAIL_HEALTH=1"],"Entrypoint":["/whoami"],"Healthcheck":{'"$probe"',"Retries":2}}' whoami
own whoami:slow '{"Env":["VERSION=slow","HEALTHY_AFTER_MS=5000"],"Entrypoint":["/whoami"],"Healthcheck":{'"$probe"',"Retries":10}}' whoami

# the production stack's own application
for tag in 1.0.0 1.1.0; do
  own my-registry.com/api:$tag '{"Env":["'$path'","PYTHONUNBUFFERED=1","VERSION='$tag'"],"Cmd":["python3","/app/api.py"],"User":"app","WorkingDir":"/app","ExposedPorts":{"3000/tcp":{}}}' base python api
done

# applications that tutorials name and nobody wrote
for ref in my-api:latest myapp:1.0 myapp:2.0 myapp:v2.0 myapp:latest sensor-agent:latest registry.com/myapp:1.0; do
  own $ref '{"Env":["'$path'","VERSION='${ref##*:}'","PORTS=80,3000,5000,8000,8080"],"Cmd":["/whoami"],"WorkingDir":"/app"}' base whoami npm
done

# the applications of the patterns: an api with a job queue, its workers, and both ends of a broker and of an event store
while read -r ref role ports; do
  own "$ref" '{"Env":["'$path'","PYTHONUNBUFFERED=1","VERSION='${ref##*:}'","PORTS='$ports'"],"Cmd":["python3","/app/shop.py","'$role'"],"WorkingDir":"/app"}' base python pika shop
done <<'E'
myapi:v1.0.0 api 80,5000
myapi:v1.1.0 api 80,5000
myapi:latest api 80,5000
myworker:latest worker 8080
myproducer:latest producer 8080
myconsumer:latest consumer 8080
myprojection:latest projection 8080
E

for tag in alpine latest 1.12 1.13 1.21 1.24 1.25; do
  public nginx:$tag '{"Env":["'$path'","NGINX_VERSION='$tag'"],"Entrypoint":["/docker-entrypoint.sh"],"Cmd":["nginx","-g","daemon off;"],"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT"}' base nginx nginx_tag=$tag
done
for tag in 13 15 15-alpine latest; do
  public postgres:$tag '{"Env":["'$path'","LANG=C.UTF-8","PGDATA=/var/lib/postgresql/data"],"Entrypoint":["docker-entrypoint.sh"],"Cmd":["postgres"],"ExposedPorts":{"5432/tcp":{}},"StopSignal":"SIGINT","Volumes":{"/var/lib/postgresql/data":{}}}' base postgres
done
for tag in 6-alpine 7-alpine latest; do
  public redis:$tag '{"Env":["'$path'"],"Entrypoint":["docker-entrypoint.sh"],"Cmd":["redis-server"],"ExposedPorts":{"6379/tcp":{}},"WorkingDir":"/data","Volumes":{"/data":{}}}' base redis
done
public rabbitmq:3-management-alpine '{"Env":["'${path/=/=/usr/lib/rabbitmq/bin:}'","HOME=/var/lib/rabbitmq","LANG=C.UTF-8","RABBITMQ_LOGS=-"],"Entrypoint":["docker-entrypoint.sh"],"Cmd":["rabbitmq-server"],"ExposedPorts":{"5672/tcp":{},"15672/tcp":{},"15692/tcp":{}},"Volumes":{"/var/lib/rabbitmq":{}}}' base rabbitmq
public prom/prometheus:latest '{"Env":["'$path'"],"User":"nobody","WorkingDir":"/prometheus","Entrypoint":["/usr/bin/prometheus"],"Cmd":["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"],"ExposedPorts":{"9090/tcp":{}},"Volumes":{"/prometheus":{}}}' base prometheus
for tag in latest lts 2.6; do
  public haproxy:$tag '{"Env":["'$path'"],"User":"haproxy","Entrypoint":["docker-entrypoint.sh"],"Cmd":["haproxy","-f","/usr/local/etc/haproxy/haproxy.cfg"],"StopSignal":"SIGUSR1"}' base haproxy
done
for ref in mysql:8 mysql:8.0 mariadb:10.11; do
  public $ref '{"Env":["'$path'"],"Entrypoint":["docker-entrypoint.sh"],"Cmd":["mariadbd"],"ExposedPorts":{"3306/tcp":{}},"Volumes":{"/var/lib/mysql":{}}}' base mariadb
done

# not to be had as Debian packages: whoami on the same ports, so that a stack that names them converges
while read -r ref ports; do
  public "$ref" '{"Env":["'$path'","VERSION='${ref##*:}'","PORTS='$ports'"],"Entrypoint":["/whoami"],"Labels":{"skep.stand-in":"true"}}' base whoami
done <<'E'
envoyproxy/envoy:v1.28 10000
fluent/fluentd:v1.16 24224
gcr.io/cadvisor/cadvisor:latest 8080
grafana/grafana:latest 3000
elasticsearch:8.11.0 9200
kibana:8.11.0 5601
mcuadros/ofelia:latest 8080
E
public eventstore/eventstore:latest '{"Env":["'$path'","PYTHONUNBUFFERED=1","VERSION=latest","PORTS=2113"],"Cmd":["python3","/app/shop.py","eventstore"],"Labels":{"skep.stand-in":"true"}}' base python pika shop
for tag in v2.10 latest; do
  public traefik:$tag '{"Env":["'$path'","VERSION='$tag'","PORTS=80"],"Entrypoint":["/usr/local/bin/traefik"],"Labels":{"skep.stand-in":"true"}}' base whoami traefik
done
