/** Stack files that are deployed with the stock CLI and with ours. */
export const stackFiles: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'every key': {
    'a.yml': `version: "3.8"
services:
  web:
    image: nginx
    command: ["nginx", "-g", "daemon off;"]
    entrypoint: /docker-entrypoint.sh "a b"
    environment:
      - B=2
      - A=1
      - FROMENV
      - UNSET
    env_file: a.env
    hostname: "h-{{.Task.Slot}}"
    user: "1000:1000"
    working_dir: /w
    tty: true
    stdin_open: true
    read_only: true
    init: true
    stop_signal: SIGQUIT
    stop_grace_period: 1m30s
    labels: [x=y, z]
    dns: [1.1.1.1]
    dns_search: example.com
    extra_hosts: ["a:1.2.3.4", "b=::1"]
    cap_add: [NET_ADMIN, all, chown]
    cap_drop: [CAP_CHOWN, MKNOD]
    sysctls: {net.core.somaxconn: 1024}
    ulimits: {nofile: {soft: 100, hard: 200}, nproc: 10}
    logging: {driver: json-file, options: {max-size: 10m}}
    ports: ["8080:80", "53:53/udp", "9000-9001:90-91", "7000", {target: 81, published: 8081, mode: host}, "127.0.0.1:8443:443"]
    volumes: ["data:/data:ro,nocopy", "./x:/x", "/abs:/abs:ro", "/anon", {type: tmpfs, target: /t, tmpfs: {size: 1000}}, {type: volume, source: ext, target: /e, volume: {nocopy: true}}, {type: bind, source: /b, target: /bb, bind: {propagation: rslave}, read_only: true}, "drv:/drv"]
    secrets: [s1, {source: s2, target: two, uid: "1", gid: "2", mode: 0440}, sext]
    configs: [c1, {source: c2, target: /etc/c2, mode: 292}]
    networks: {front: {aliases: [www]}, back: }
    healthcheck: {test: curl -f http://localhost, interval: 1m, timeout: 3s, retries: 3, start_period: 5s}
    deploy:
      mode: replicated
      replicas: 3
      labels: {l: 1, m: null}
      endpoint_mode: dnsrr
      update_config: {parallelism: 2, delay: 10s, failure_action: rollback, monitor: 60s, max_failure_ratio: 0.1, order: start-first}
      rollback_config: {parallelism: 0}
      resources: {limits: {cpus: '0.5', memory: 512M}, reservations: {cpus: '0.25', memory: 128m, generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]}}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}
      placement: {constraints: [node.role==worker], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}
  min:
    image: registry.local:5000/a/b:1.0
    command: echo hi $$HOME
    healthcheck: {disable: true}
    depends_on: [web]
    restart: always
  glob:
    image: redis@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    restart: on-failure:3
    deploy: {mode: global}
    networks: [host, outer]
networks:
  front: 
  back: {driver: overlay, internal: true, attachable: true, labels: [q=1], driver_opts: {encrypted: ""}, ipam: {config: [{subnet: 10.99.0.0/24}]}}
  host: {external: true, name: host}
  outer: {external: {name: reallyouter}}
volumes:
  data:
  ext: {external: true}
  drv: {driver: foo, driver_opts: {a: 1}, name: mydrv, labels: {k: v}}
secrets:
  s1: {file: ./s.txt}
  s2: {file: ./s.txt, name: named, labels: {k: v}}
  sext: {external: true, name: se}
configs:
  c1: {file: ./s.txt}
  c2: {file: ./s.txt, template_driver: golang}
`,
    's.txt': 'data\n',
    'a.env': 'FILE=1\nB=overridden\n',
  },
  'what has no effect': {
    'a.yml': `services:
  a:
    image: x
    tmpfs: /t
    expose: ["1"]
    container_name: foo
    shm_size: 1m
    depends_on: [b]
  b:
    image: y
    extra_hosts: {z: 1.1.1.1, y: 2.2.2.2}
    networks: {default: {aliases: []}}
    volumes: ["vol:/v:z", "~/q:/q"]
    deploy: {resources: {limits: {pids: 5}}, update_config: {delay: 1s}, restart_policy: {}}
    oom_score_adj: 5
    cap_add: [chown]
    cap_drop: [chown, all]
    configs: [{source: c, target: foo}]
    healthcheck: {test: [], interval: 1s}
    logging: {driver: none}
volumes: {vol: {driver: local}}
configs: {c: {file: ./s.txt}}
networks: {default: {driver: overlay, driver_opts: {a: 1}}}
`,
    's.txt': 'data\n',
    'a.env': 'FILE=1\nB=overridden\n',
  },
  'two files': {
    'a.yml': `services:
  web:
    image: nginx:\${TAG}
    command: old
    environment: {A: 1, B: "\${MISSING:-dflt}", C: "$\${X}"}
    ports: ["80:80", "443:443"]
    volumes: ["va:/a", "vb:/b"]
    secrets: [one, two]
    dns: [1.1.1.1]
    cap_add: [NET_ADMIN]
    logging: {driver: json-file, options: {max-size: 1m, max-file: "3"}}
    labels: {x: "1", y: "2"}
    networks: {one: {aliases: [first]}, two: }
    healthcheck: {test: [CMD, "true"], interval: 10s}
    deploy:
      replicas: 2
      labels: {l: a}
      update_config: {parallelism: 2, order: start-first}
      resources: {limits: {cpus: '1', memory: 1G}}
      placement: {constraints: [node.role==manager]}
      restart_policy: {condition: any, delay: 5s}
networks: {one: , two: {internal: true}}
volumes: {va: , vb: {driver: local}}
secrets: {one: {file: s.txt}, two: {file: s.txt}}
`,
    'b.yml': `services:
  web:
    image: nginx:1.25
    command: [new, command]
    environment: [B=2, D=4]
    ports: ["80:8080"]
    volumes: ["vc:/b", "/host:/c"]
    secrets: [{source: two, target: other}]
    dns: [8.8.8.8]
    cap_add: [SYS_ADMIN]
    logging: {options: {max-size: 2m}}
    labels: [y=3, z]
    networks: {two: {aliases: [second]}}
    healthcheck: {timeout: 1s}
    deploy:
      replicas: 5
      labels: {m: b}
      update_config: {delay: 3s}
      resources: {limits: {memory: 2G}, reservations: {cpus: '0.5'}}
      placement: {constraints: [node.labels.a==b], preferences: [{spread: node.labels.zone}]}
      restart_policy: {max_attempts: 3}
  extra:
    image: docker.io/library/redis
networks: {two: {attachable: true}}
volumes: {vc: }
`,
    's.txt': 'data\n',
    'a.env': 'FILE=1\nB=overridden\n',
  },
  'anchors and scalars': {
    'a.yml': `x-common: &common
  image: localhost:5000/app
  logging: {driver: json-file}
  environment: &env
    A: 1.0
    F: 2.5
    N: null
services:
  one:
    <<: *common
    restart: "no"
    command: "a 'b c' \\"d\\" e\\\\ f"
    stop_grace_period: 90s
  two:
    <<: *common
    environment:
      <<: *env
      A: two
    restart: on-failure
    configs: [{source: c, mode: 0440}]
    deploy: {mode: replicated-job, replicas: 3}
    volumes: [{type: tmpfs, target: /t}, {type: bind, source: ./sub, target: /s, bind: {}}, {type: volume, source: v, target: /v, read_only: true}]
  three:
    image: docker.io/me/app@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    restart: unless-stopped
    cap_add: [chown, kill]
    cap_drop: [all]
    deploy: {mode: global-job}
    entrypoint: []
configs: {c: {file: s.txt}}
volumes: {v: {name: "v-\${FROM_SHELL}"}}
`,
    's.txt': 'data\n',
    'a.env': 'FILE=1\nB=overridden\n',
  },
  'a production stack': {
    'a.yml': `version: '3.8'
services:
  nginx:
    image: nginx:alpine
    ports: ["80:80", "443:443"]
    networks: [frontend]
    configs: [{source: nginx_config, target: /etc/nginx/nginx.conf}]
    deploy:
      replicas: 3
      update_config: {parallelism: 1, delay: 10s, failure_action: rollback, monitor: 60s, max_failure_ratio: 0.1, order: start-first}
      rollback_config: {parallelism: 1}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3}
      placement: {constraints: ["node.role == worker"], preferences: [{spread: node.labels.zone}]}
      labels: ["traefik.http.routers.api.rule=Host(\`api.example.com\`)"]
    healthcheck: {test: ["CMD", "curl", "-f", "http://localhost/"], interval: 30s, timeout: 3s, retries: 3}
  db:
    image: postgres:15-alpine
    environment:
      POSTGRES_PASSWORD_FILE: /run/secrets/db_password
    secrets: [db_password]
    volumes: ["db-data:/var/lib/postgresql/data"]
    networks: [backend]
    deploy:
      placement: {constraints: [node.labels.postgres == primary]}
      resources: {limits: {cpus: '2.0', memory: 1G}, reservations: {cpus: '0.25', memory: 256M}}
  redis:
    image: redis:7-alpine
    command: redis-server --appendonly yes
    networks: [backend]
    depends_on: [db]
  cadvisor:
    image: gcr.io/cadvisor/cadvisor
    volumes: ["/:/rootfs:ro", "/var/run/docker.sock:/var/run/docker.sock:ro", "/sys:/sys:ro", "/var/lib/docker/:/var/lib/docker:ro"]
    deploy: {mode: global}
networks:
  frontend: {driver: overlay}
  backend: {driver: overlay, internal: true}
volumes:
  db-data: {driver: local}
secrets: {db_password: {external: true}}
configs: {nginx_config: {file: ./s.txt}}
`,
    's.txt': 'data\n',
    'a.env': 'FILE=1\nB=overridden\n',
  },
}
