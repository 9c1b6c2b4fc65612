// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of Compose files are what is written
import { readFileSync } from 'node:fs'

/** One line of the corpus as a Compose file, with the files beside it. */
export interface CorpusFile {
  /** `line 12`. */
  readonly name: string
  readonly text: string
}

/** Files that those of the corpus name, by path. */
export const corpusNeighbours: Readonly<Record<string, string>> = {
  '/p/.env': 'FROM_FILE=1\nexport QUOTED="a b"\n',
  '/p/a.env': "# a comment\nA=1\nB='two words'\nEMPTY=\n",
  '/p/base.yml':
    'services:\n  db: &b\n    image: r/db:1\n    volumes: ["./seed:/seed:ro"]\n  cache: *b\n  app:\n    <<: *b\n    build: {context: ./app, args: {A: 1}}\n  web: *b\n',
  '/p/infra.yml': 'services:\n  infra:\n    image: r/infra:1\n',
}

/** What the shell has when they are loaded. */
export const corpusEnvironment: Readonly<Record<string, string>> = {
  HOME: '/home/someone',
  BIND: '127.0.0.1',
  DIR: '/srv',
  FLAG: 'true',
  IMAGE: 'r/a',
  PORT: '8081',
  RESTART: 'always',
  TAG: '7',
  TIMES: '3',
  WAIT: '10s',
}

/** The files of `testdata/corpus.txt`. */
export function readCorpus(): readonly CorpusFile[] {
  const lines = readFileSync(new URL('./testdata/corpus.txt', import.meta.url), 'utf8').split('\n')
  return lines.flatMap((line, index) =>
    line === '' || line.startsWith('#') ? [] : [{ name: `line ${index + 1}`, text: fileOf(line) }],
  )
}

const imageLine = 'image: r/a:1'
const envList = ['environment:', '  - A=1', '  - "B=two words"', "  - 'C=http://h:80/?x=y#z'"]
const envMap = ['environment:', '  A: one', '  B: "2"', "  C: 'http://h:80/?x=y#z' # why"]
const health = (test: string) => [
  'healthcheck:',
  `  test: ${test}`,
  '  interval: 10s',
  '  timeout: 5s',
  '  retries: 5',
]
const build = ['build:', '  context: ./a', '  dockerfile: docker/Dockerfile.dev']

/** What a word stands for whose lines go below a key that others share: `ports`, `volumes`, `build`, `deploy`. */
const listed: Readonly<Record<string, readonly [string, (index: number) => readonly string[]]>> = {
  p: ['ports', (n) => [`- "${8000 + n}:${80 + n}"`]],
  p1: ['ports', (n) => [`- ${8100 + n}:${80 + n}`]],
  pt: ['ports', (n) => [`- "${8200 + n}:${80 + n}/tcp"`]],
  pu: ['ports', (n) => [`- ${8300 + n}:${53 + n}/udp # why`]],
  pv: ['ports', (n) => [`- "\${UNSET_PORT:-${8400 + n}}:${80 + n}"`]],
  pV: ['ports', (n) => [`- \${PORT}:${90 + n}`]],
  pi: ['ports', (n) => [`- '127.0.0.1:${8500 + n}:${80 + n}'`]],
  pn: ['ports', (n) => [`- ${1000 + n}`]],
  ps: ['ports', (n) => [`- "${2000 + n}"`]],
  pr: ['ports', () => ['- "4000-4010:4000-4010"']],
  pl: [
    'ports',
    (n) => [
      `- target: ${80 + n}`,
      `  published: ${8600 + n}`,
      '  protocol: tcp',
      '  mode: ingress',
    ],
  ],
  plh: ['ports', () => ['- target: 9100', '  published: 9100', '  protocol: tcp', '  mode: host']],
  v: ['volumes', (n) => [`- NAME:/data/${n}`]],
  vb: ['volumes', (n) => [`- ./b${n}:/b/${n}`]],
  vr: ['volumes', (n) => [`- ./r${n}/a.conf:/r/${n}.conf:ro`]],
  vrw: ['volumes', (n) => [`- ./w${n}:/w/${n}:rw`]],
  va: ['volumes', (n) => [`- /anonymous/${n}`]],
  vs: ['volumes', () => ['- "/var/run/docker.sock:/var/run/docker.sock:ro"']],
  vh: ['volumes', (n) => [`- ~/h${n}:/h/${n}`]],
  vz: ['volumes', (n) => [`- ./z${n}:/z/${n}:ro,Z`]],
  vc: ['volumes', () => ['- .:/cached:cached']],
  vl: ['volumes', () => ['- type: bind', '  source: ./l', '  target: /l', '  read_only: true']],
  vlb: [
    'volumes',
    () => [
      '- type: bind',
      '  source: /srv/l',
      '  target: /lb',
      '  bind:',
      '    create_host_path: true',
    ],
  ],
  vL: [
    'volumes',
    (n) => ['- type: volume', `  source: ${n % 2 ? 'b' : 'a'}`, `  target: /vl/${n}`],
  ],
  vv: ['volumes', (n) => [`- \${UNSET_DIR:-./d}/${n}:/v/${n}`]],
  vV: ['volumes', (n) => [`- \${DIR}/${n}:/V/${n}:Z`]],
  vabs: ['volumes', (n) => [`- /etc/f${n}:/f/${n}:ro`]],
  vroot: ['volumes', () => ['- /:/rootfs:ro']],
  dv: ['devices', (n) => [`- /dev/d${n}:/dev/d${n} # why`]],
  ov: ['ports', () => ['- "0.0.0.0:18080:8080"']],
  D1: ['deploy', () => ['replicas: 1']],
  D2: ['deploy', () => ['replicas: 2']],
  D3: ['deploy', () => ['replicas: 3 # why']],
  Dm: ['deploy', () => ['mode: replicated']],
  Dg: ['deploy', () => ['mode: global']],
  Du: [
    'deploy',
    () => ['update_config:', '  parallelism: 2', '  delay: 10s', '  order: start-first'],
  ],
  Duf: ['deploy', () => ['update_config:', '  failure_action: rollback', '  monitor: 5s']],
  Dr: ['deploy', () => ['restart_policy:', '  condition: on-failure']],
  Drn: ['deploy', () => ['restart_policy:', '  condition: none']],
  Dra: ['deploy', () => ['restart_policy:', '  condition: any', '  delay: 5s']],
  Drf: [
    'deploy',
    () => ['restart_policy: {condition: on-failure, delay: 10s, max_attempts: 3, window: 120s}'],
  ],
  Dp: ['deploy', () => ['placement:', '  constraints: [node.role == manager]']],
  Dx: [
    'deploy',
    () => ['placement: {max_replicas_per_node: 1, constraints: ["node.hostname == a"]}'],
  ],
  Dk: ['deploy', () => ['labels: ["a.enable=true"]']],
  Dk$: [
    'deploy',
    () => ['labels:', '  - a.enable=true', '  - "a.rule=Host(`h.test`) && Path(`/a`)"'],
  ],
}

/** What goes below `deploy.resources`. */
const resources: Readonly<Record<string, readonly string[]>> = {
  Dl: ['limits: { cpus: "0.5", memory: 512M }'],
  Dl$: ['limits:', '  cpus: ${UNSET_CPUS:-4.0}'],
  DR: ['reservations: { cpus: "0.25", memory: 64M }'],
  Dd: [
    'reservations:',
    '  devices:',
    '    - driver: nvidia',
    '      count: 1',
    '      capabilities: [gpu]',
  ],
}

/** Words whose lines stand alone. */
const whole: Readonly<Record<string, readonly string[]>> = {
  i: [imageLine],
  I$: ['image: ${IMAGE:-r/b}:${TAG}'],
  'I?': ['image: ${IMAGE}:${TAG:?set the tag}'],
  idig: [`image: r/a@sha256:${'a'.repeat(64)}`],
  b: ['build: ./a'],
  bc: ['build:', '  context: ./a'],
  bf: build,
  bt: ['build:', '  context: .', '  target: dev'],
  bT: ['build:', '  target: dev'],
  ba: [...build, '  args:', '    A: ${IMAGE}', '    B: 1'],
  bA: [...build, '  args:', '    - A=${IMAGE}', '    - FROM_SHELL'],
  e: envMap,
  en: ['environment:', '  A: 2181', '  B: 0.3', '  C: 0.00001', '  D: 1234'],
  eb: ['environment:', '  A: true', '  B: "false"'],
  e0: ['environment:', '  A: *shared', '  FROM_SHELL:', '  TAG:'],
  ev: ['environment:', '  A: ${UNSET_A:-http://h:1/}', '  B: "${UNSET_B:-}"', '  C: $TAG'],
  eV: ['environment:', '  A: ${UNSET_A}', '  B: "p://u:${UNSET_B}@h:1/${TAG}"'],
  'e?': ['environment:', '  A: ${TAG:?}'],
  E: envList,
  EV: ['environment:', '  - A=${UNSET_A:-}', '  - B=${UNSET_B:-fd00::/64}', "  - 'C=$TAG'"],
  EN: ['environment:', '  - TAG', '  - NOT_SET_ANYWHERE'],
  ef: ['env_file: a.env'],
  eF: ['env_file:', '  - .env', '  - ./a.env'],
  c: ['command: sh -c "a && exec b --x=\'1 2\' $$HOME"'],
  C: ['command: ["a", "-b", "--c=${UNSET_C:-1}"]'],
  cF: ['command: >', '  a', '  --b 1', '  --c'],
  cL: [
    'command:',
    '  - sh',
    '  - -c',
    '  - |',
    '    if [ -z "$${A}" ]; then',
    '      exit 1',
    '    fi',
  ],
  x: ['entrypoint: /a.sh b'],
  X: ['entrypoint: ["/a.sh", "b"]'],
  XF: ['entrypoint: >', '  sh -c "', '    sleep 10 &&', "    echo 'done!'", '  "'],
  h: health('["CMD", "a", "-b", "http://localhost:80/"]'),
  hs: health('[\'CMD-SHELL\', "a | grep -q \'\\"up\\"\' || exit 1"]'),
  H: health('a ping || exit 1'),
  hp: [...health('["CMD", "a"]'), '  start_period: 30s'],
  hm: [
    'healthcheck:',
    '  test: ["CMD", "a", "|| exit 1"]',
    '  interval: 1m30s',
    '  start_period: 1m',
  ],
  hv: [
    'healthcheck:',
    '  test: a',
    '  interval: $WAIT',
    '  retries: $TIMES',
    '  disable: ${UNSET:-true}',
  ],
  hd: ['healthcheck:', '  disable: true'],
  hf: ['healthcheck:', '  disable: false'],
  r$: ['restart: ${RESTART}'],
  ro: ['read_only: true'],
  ro$: ['read_only: ${FLAG}'],
  wd: ['working_dir: /w'],
  u: ['user: "1000:0"'],
  uN: ['user: 1000:1000'],
  tty: ['tty: true'],
  in: ['stdin_open: true'],
  init: ['init: true'],
  priv: ['privileged: true'],
  L: ['labels:', '  - "a.enable=true"', '  - b'],
  L$: [
    'labels:',
    '  - "a.rule=Host(`h.test`)"',
    '  - a.users=admin:$$2y$$05$$x',
    '  - a.h=${UNSET_H:-}',
  ],
  l: ['labels:', '  a.enabled: "true"', '  a.command: "sh -c \\"[ $${A} == y ]\\""'],
  ca: ['cap_add:', '  - NET_ADMIN # why', '  - SYS_PTRACE'],
  cd: ['cap_drop:', '  - ALL'],
  so: ['security_opt:', '  - no-new-privileges:true'],
  ul: [
    'ulimits:',
    '  memlock:',
    '    soft: -1',
    '    hard: -1',
    '  nofile: {soft: 65536, hard: 65536}',
  ],
  ulN: ['ulimits:', '  nproc: 65535', '  stack: 67108864', '  core: -1'],
  sy: ['sysctls:', '  - net.core.somaxconn=1024'],
  dn: ['dns:', '  - ${UNSET_NET:-172.22.1}.254'],
  eh: ['extra_hosts:', '  - "host.docker.internal:host-gateway"'],
  ex: ['expose:', '  - 5432', "  - '5433'", '  - ${UNSET_PORT:-5222}'],
  shm: ['shm_size: 128mb'],
  ml: ['mem_limit: 1200m'],
  ms: ['memswap_limit: 2g'],
  mr: ['mem_reservation: 64m'],
  pids: ['pids_limit: 200'],
  cpus: ['cpus: 2.0'],
  cs: ['cpu_shares: 90'],
  tm: ['tmpfs:', '  - /tmp'],
  tmo: ['tmpfs:', '  - /run:size=16M,mode=1750,exec'],
  dcg: ['device_cgroup_rules:', "  - 'c 166:* rwm' # why"],
  ga: ['group_add:', '  - 109 # why', '  - video'],
  pf: ['platform: linux/amd64'],
  lg: ['logging: *logging'],
  sg: ['stop_grace_period: 1m30s'],
  wt: [
    'develop:',
    '  watch:',
    '    - action: sync+restart',
    '      path: ./src',
    '      target: /app/src',
    '      initial_sync: true',
    '      ignore:',
    '        - node_modules/',
    '    - action: rebuild',
    '      path: package.json',
  ],
  rs: ['ports: !reset []', 'build: !reset null'],
}

const conditions: Readonly<Record<string, string>> = {
  dh: 'service_healthy',
  ds: 'service_started',
  dc: 'service_completed_successfully',
  dr: 'service_healthy',
}

const networkLines: Readonly<Record<string, readonly string[]>> = {
  null: [],
  '{}': ['{}'],
  bridge: ['driver: bridge'],
  overlay: ['driver: overlay'],
  overlayatt: ['driver: overlay', 'attachable: true'],
  overlayenc: ['driver: overlay', 'driver_opts:', "  encrypted: 'yes'"],
  internal: ['internal: true', 'driver: bridge'],
  name: ['name: real-name'],
  namebridge: ['name: real-name', 'driver: bridge'],
  ext: ['external: true'],
  extname: ['external: true', 'name: real-name'],
  extno: ['external: false'],
  extnoname: ['external: false', 'name: real-name'],
  extold: ['external:', '  name: real-name'],
  ipam: ['ipam:', '  driver: default', '  config:', '    - subnet: 172.20.0.0/24'],
  ipamname: ['name: real-name', 'ipam:', '  config:', '    - subnet: 10.20.30.0/24 # why'],
  local: ['driver: local'],
  opts: ['driver_opts:', '  size: 50Gi', '  type: gp3'],
  file: ['file: ./secret.txt'],
}

/** A line is `flags | service: words ; service: words`; a word may end in `*times`. */
function fileOf(line: string): string {
  const [flags = '', body = ''] =
    line.split(' | ').length > 1 ? line.split(' | ') : ['', line.replace(/^\| /, '')]
  const out: string[] = []
  const tops: Record<'N' | 'V' | 'S' | 'C', Map<string, string>> = {
    N: new Map(),
    V: new Map(),
    S: new Map(),
    C: new Map(),
  }
  for (const flag of flags.split(' ').filter((one) => one !== '')) {
    const [, kind, name, how] = /^([NVSC]):([^=]+)=(.+)$/.exec(flag) ?? []
    if (kind === 'N' || kind === 'V' || kind === 'S' || kind === 'C')
      tops[kind].set(name ?? '', how ?? '')
    else if (flag.startsWith('v')) out.push(`version: '${flag.slice(1)}'`, '')
    else if (flag === 'name') out.push('name: real', '')
    else if (flag === 'inc') out.push('include:', '  - infra.yml', '')
    else if (flag !== 'x1') throw new Error(`the corpus has the unknown flag ${flag}`)
  }
  const services = body.split(' ; ').map((service) => serviceOf(service, tops))
  const isShared = services.some((text) => text.includes('*shared') || text.includes('*logging'))
  if (isShared || flags.includes('x1')) {
    out.push(
      'x-logging: &logging',
      '  driver: "json-file"',
      '  options:',
      '    max-size: 10m',
      '    max-file: 3',
      'x-shared: &shared /etc/ssl/certs',
      '',
    )
  }
  out.push('services:', ...services)
  const sections = { N: 'networks', V: 'volumes', S: 'secrets', C: 'configs' } as const
  for (const kind of ['N', 'V', 'S', 'C'] as const) {
    if (tops[kind].size === 0) continue
    out.push('', `${sections[kind]}:`)
    for (const [name, how] of tops[kind]) {
      const lines = networkLines[how]
      if (lines === undefined) throw new Error(`the corpus has the unknown kind ${how}`)
      if (lines[0] === '{}') out.push(`  ${name}: {}`)
      else out.push(`  ${name}:`, ...lines.map((one) => `    ${one}`))
    }
  }
  return `${out.join('\n')}\n`
}

function serviceOf(
  text: string,
  tops: Readonly<Record<'N' | 'V' | 'S' | 'C', Map<string, string>>>,
): string {
  const [name = '', ...rest] = text.split(': ')
  const below = new Map<string, string[]>()
  const lines: string[] = []
  const add = (key: string, more: readonly string[]) =>
    below.set(key, [...(below.get(key) ?? []), ...more])
  const counts = new Map<string, number>()
  for (const word of rest.join(': ').trim().split(/\s+/)) {
    const [, bare = word, times = '1'] = /^(.*)\*(\d+)$/.exec(word) ?? []
    const [key = '', ...arguments_] = bare.split(':')
    const argument = arguments_.join(':')
    const names = argument.split(',')
    for (let index = 0; index < Number(times); index++) {
      const group = listed[key]
      const resource = resources[key]
      if (argument === '' && whole[key] !== undefined) lines.push(...(whole[key] ?? []))
      else if (argument === '' && resource !== undefined) add('resources', resource)
      else if (group !== undefined && (argument === '' || key === 'v')) {
        const [under, make] = group
        const count = counts.get(under) ?? 0
        counts.set(under, count + 1)
        add(
          key === 'ov' ? 'ports: !override' : under,
          make(count).map((one) => one.replace('NAME', argument)),
        )
        if (key === 'v' && !tops.V.has(argument)) tops.V.set(argument, 'null')
      } else addNamed(key, names, argument)
    }
  }
  function addNamed(key: string, names: readonly string[], argument: string): void {
    const alone = aloneOf(key, names, argument, name)
    const more = belowOf(key, names)
    if (alone !== undefined) lines.push(...alone)
    else if (more !== undefined) add(...more)
    else if (key === 'bs') lines.splice(0, lines.length, ...withBuild(lines, ["  shm_size: '1gb'"]))
    else if (key === 'bk') {
      lines.splice(0, lines.length, ...withBuild(lines, ['  cache_from:', '    - r/a:1']))
    } else throw new Error(`the corpus has the unknown word ${key}`)
    const kind = key === 'se' || key === 'sel' ? tops.S : key === 'co' ? tops.C : undefined
    for (const one of names) if (kind?.has(one) === false) kind.set(one, 'file')
  }
  const inside = below.get('resources')
  below.delete('resources')
  if (inside !== undefined) add('deploy', ['resources:', ...inside.map((one) => `  ${one}`)])
  for (const [key, more] of below)
    lines.push(key.includes(': ') ? key : `${key}:`, ...more.map((one) => `  ${one}`))
  return [`  ${name}:`, ...lines.map((one) => `    ${one}`)].join('\n')
}

function aloneOf(
  key: string,
  names: readonly string[],
  argument: string,
  service: string,
): readonly string[] | undefined {
  switch (key) {
    case 'prof':
      return ['profiles:', ...names.map((one) => `  - ${one}`)]
    case 'r':
      return [`restart: ${argument}`]
    case 'nm':
      return [`network_mode: "${argument}"`]
    case 'ipc':
    case 'pid':
      return [`${key}: ${argument}`]
    case 'ext':
      return ['extends:', '  file: base.yml', `  service: ${argument}`]
    case 'cn':
      return [`container_name: real-${service}`]
    case 'hn':
      return [`hostname: ${service}.test`]
    default:
      return undefined
  }
}

function belowOf(
  key: string,
  names: readonly string[],
): readonly [string, readonly string[]] | undefined {
  const items = names.map((one) => `- ${one}`)
  switch (key) {
    case 'd':
      return ['depends_on', items]
    case 'dh':
    case 'ds':
    case 'dc':
    case 'dr': {
      const required = key === 'dr' ? ['  required: false'] : []
      const condition = `  condition: ${conditions[key]}`
      return ['depends_on', names.flatMap((one) => [`${one}:`, condition, ...required])]
    }
    case 'n':
      return ['networks', items]
    case 'na':
      return ['networks', names.flatMap((one) => [`${one}:`, '  aliases:', '    - other'])]
    case 'ni':
      return ['networks', names.flatMap((one) => [`${one}:`, '  ipv4_address: 172.20.0.9'])]
    case 'n0':
      return ['networks', names.map((one) => `${one}:`)]
    case 'se':
      return ['secrets', items]
    case 'sel':
      return ['secrets', names.flatMap((one) => [`- source: ${one}`, `  target: ${one}.txt`])]
    case 'co':
      return ['configs', names.flatMap((one) => [`- source: ${one}`, `  target: /etc/${one}`])]
    case 'links':
      return ['links', items]
    default:
      return undefined
  }
}

/** More lines below `build`. */
function withBuild(lines: readonly string[], more: readonly string[]): readonly string[] {
  const at = lines.indexOf('build:')
  let end = at + 1
  while (lines[end]?.startsWith('  ')) end++
  return [...lines.slice(0, end), ...more, ...lines.slice(end)]
}
