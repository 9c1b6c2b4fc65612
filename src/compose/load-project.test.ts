// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of Compose files are what is tested
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { parse, stringify } from 'yaml'
import { UserError } from '../base/index.ts'
import { selectServices } from './finish-project.ts'
import type { LoadOptions } from './load-options.ts'
import { loadProject, loadRawModel } from './load-project.ts'
import type { Project } from './project.ts'
import { listProject, renderModel, renderProject } from './render-project.ts'
import { serviceHash } from './service-hash.ts'

type Files = Readonly<Record<string, string>>

function optionsOf(files: Files, more: Partial<LoadOptions> = {}): LoadOptions {
  return {
    directory: '/work/shop',
    environment: {},
    readFile: async (path) => {
      const text = files[path]
      if (text !== undefined) return Buffer.from(text)
      throw Object.assign(new Error(`ENOENT: no such file, open '${path}'`), { code: 'ENOENT' })
    },
    warn: () => {},
    ...more,
  }
}

const load = (files: Files, more: Partial<LoadOptions> = {}): Promise<Project> =>
  loadProject(optionsOf(files, more))

/** One file in the project's directory. */
const loadText = (text: string, more: Partial<LoadOptions> = {}): Promise<Project> =>
  load({ '/work/shop/compose.yaml': text }, more)

const refusal = async (loading: Promise<unknown>): Promise<{ message: string; next?: string }> => {
  try {
    await loading
  } catch (error) {
    assert.ok(error instanceof UserError, String(error))
    return { message: error.message, ...(error.next !== undefined && { next: error.next }) }
  }
  throw new assert.AssertionError({ message: 'it was not refused' })
}

describe('the files of a project', () => {
  test('are found in the directory or above, with their override', async () => {
    const files = {
      '/work/compose.yaml': 'services: {web: {image: a, environment: {A: 1, B: 1}}}',
      '/work/compose.override.yml': 'services: {web: {environment: {B: 2}}}',
    }
    const project = await load(files)
    assert.deepEqual(project.services['web']?.environment, { A: '1', B: '2' })
    assert.deepEqual(project.files, ['/work/compose.yaml', '/work/compose.override.yml'])
    assert.equal(project.name, 'work')
    assert.equal(project.workingDirectory, '/work')
  })

  test('are those of -f, else of COMPOSE_FILE in the shell or in .env', async () => {
    const files = {
      '/work/shop/a.yml': 'services: {a: {image: a}}',
      '/work/shop/b.yml': 'services: {b: {image: b}}',
      '/work/shop/.env': 'COMPOSE_FILE=a.yml:b.yml\nCOMPOSE_PROJECT_NAME=from-env',
    }
    assert.deepEqual(Object.keys((await load(files)).services), ['a', 'b'])
    assert.equal((await load(files)).name, 'from-env')
    assert.deepEqual(Object.keys((await load(files, { files: ['b.yml'] })).services), ['b'])
  })

  test('that are not there are told', async () => {
    assert.match((await refusal(load({}))).message, /no Compose file in \/work\/shop or above/)
    const { message } = await refusal(load({}, { files: ['x.yml'] }))
    assert.match(message, /cannot read \/work\/shop\/x\.yml/)
  })

  test('may hold several documents', async () => {
    const project = await loadText('services: {a: {image: a}}\n---\nservices: {a: {image: b}}\n')
    assert.equal(project.services['a']?.image, 'b')
  })
})

describe('the name of a project', () => {
  const cases = [
    ['is that of the directory', 'services: {a: {image: a}}', {}, 'shop'],
    ['is that of the file', 'name: filed\nservices: {a: {image: a}}', {}, 'filed'],
    [
      'holds variables',
      'name: "a-$X"\nservices: {a: {image: a}}',
      { environment: { X: 'b' } },
      'a-b',
    ],
    [
      'is that of -p before all',
      'name: filed\nservices: {a: {image: a}}',
      { projectName: 'p' },
      'p',
    ],
  ] as const
  for (const [name, text, options, want] of cases) {
    test(name, async () => {
      const project = await loadText(text, options)
      assert.equal(project.name, want)
      assert.equal(project.networks['default']?.name, `${want}_default`)
    })
  }

  test('is there for the variables of the file', async () => {
    const project = await loadText('name: n\nservices: {a: {image: "${COMPOSE_PROJECT_NAME}/a"}}')
    assert.equal(project.services['a']?.image, 'n/a')
  })

  test('is refused where no engine takes it', async () => {
    const { next } = await refusal(loadText('services: {a: {image: a}}', { projectName: 'My App' }))
    assert.match(next ?? '', /myapp/)
  })
})

describe('env files', () => {
  const files = {
    '/work/shop/compose.yaml':
      'services: {a: {image: "a:$TAG", env_file: [one.env, {path: no.env, required: false}, {path: raw.env, format: raw}], environment: [A=own, SHELL_ONLY, NOWHERE]}}',
    '/work/shop/.env': 'TAG=dotenv\nOTHER=x',
    '/work/shop/late.env': 'TAG=late',
    '/work/shop/one.env': 'A=file\nB="two ${OTHER} $$x"\nC=\'$OTHER\' # why\nexport D = 4 # why\nE',
    '/work/shop/raw.env': 'F="quoted"',
  }
  test('are .env, or those that are named; the shell goes over them', async () => {
    const image = async (more: Partial<LoadOptions>) =>
      (await load(files, more)).services['a']?.image
    assert.equal(await image({}), 'a:dotenv')
    assert.equal(await image({ envFiles: ['.env', 'late.env'] }), 'a:late')
    assert.equal(await image({ environment: { TAG: 'shell' } }), 'a:shell')
    assert.match(
      (await refusal(image({ envFiles: ['x.env'] }))).message,
      /cannot read the env file/,
    )
  })

  test('of a service go under its environment', async () => {
    const project = await load(files, { environment: { SHELL_ONLY: 's' } })
    assert.deepEqual(project.services['a']?.environment, {
      A: 'own',
      B: 'two x $x',
      C: '$OTHER',
      D: '4',
      F: '"quoted"',
      SHELL_ONLY: 's',
      NOWHERE: null,
    })
  })

  test('that are missing are told with the place that names them', async () => {
    const { message } = await refusal(
      loadText('services:\n  a:\n    image: a\n    env_file: x.env\n'),
    )
    assert.match(message, /^\/work\/shop\/compose\.yaml:4:5: services\.a\.env_file: cannot read/)
  })
})

describe('a mistake is told with file, line, column, key and what was expected', () => {
  const cases = [
    [
      'services:\n  web:\n    image: a\n    enviroment: {}\n',
      /:4:5: services\.web\.enviroment is not supported$/,
      /environment/,
    ],
    [
      'services:\n  web:\n    image: a\n    ports:\n      - "x"\n',
      /:5:9: services\.web\.ports\[0\]: ?"x" is not a port|:5:9: services\.web\.ports\[0\] "x" is not a port/,
      /8080:80/,
    ],
    [
      'services:\n  web:\n    image: [a]\n',
      /:3:5: services\.web\.image must be a string, and is a list$/,
      undefined,
    ],
    [
      'services:\n  web: {image: a, tty: maybe}\n',
      /:2:19: services\.web\.tty must be true or false, and is "maybe"$/,
      undefined,
    ],
    [
      'services:\n  web:\n    image: a\n    healthcheck: {interval: 5}\n',
      /:4:19: services\.web\.healthcheck\.interval: "5" is not a duration$/,
      /10s/,
    ],
    [
      'services:\n  web:\n    image: "${A:?set it}"\n',
      /:3:12: services\.web\.image: the variable A is missing: set it$/,
      undefined,
    ],
    [
      'services:\n  web:\n    image: "$ {"\n',
      /:3:12: services\.web\.image: "\$ " is not a variable$/,
      undefined,
    ],
    [
      'services:\n  web: {image: a, volumes: ["d:/d"]}\n',
      /:2:29: services\.web\.volumes\[0\] names the volume d, which/,
      /top-level volumes/,
    ],
    [
      'services:\n  web: {image: a, depends_on: [dbb]}\n  db: {image: a}\n',
      /:2:19: services\.web\.depends_on\.dbb names dbb, which is not a service/,
      /Did you mean db\?/,
    ],
    [
      'services:\n  a: {image: a, depends_on: [b]}\n  b: {image: a, depends_on: [a]}\n',
      /wait in a circle: a → b → a/,
      undefined,
    ],
    [
      'services:\n  a: {image: a, network_mode: host, networks: [default]}\n',
      /network_mode does not go with networks/,
      undefined,
    ],
    [
      'services:\n  a: {profiles: []}\n',
      /:2:3: services\.a has neither image nor build/,
      undefined,
    ],
    [
      'services: {a: {image: a, scale: 2, deploy: {replicas: 3}}}',
      /scale and deploy\.replicas differ/,
      undefined,
    ],
    [
      'services: {a: {image: a, container_name: ab, scale: 2}}',
      /container_name is one name for several/,
      undefined,
    ],
    ['services: {a: {image: !!foo x}}', /services\.a\.image has the unknown tag !!foo$/, undefined],
    [
      'services: {a: {image: !foo x}}',
      /:1:28: services\.a\.image has the unknown tag !foo$/,
      undefined,
    ],
    ['services: {a: &a {image: a, x-a: *a}}', /holds itself/, undefined],
    ['services: {a: {image: *nope}}', /anchor|alias/i, undefined],
    ['services: {a: {image: a, image: b}}', /not valid YAML/, undefined],
    ['secrets: {s: {}}\nservices: {a: {image: a}}', /secrets\.s has no file/, undefined],
    [
      'configs: {c: {file: a, content: b}}\nservices: {a: {image: a}}',
      /has both file and content/,
      undefined,
    ],
    ['services: {a: {image: a, models: [m]}}', /models is not supported/, /service/],
    ['services: {"a b": {image: a}}', /is no name here/, /letters/],
  ] as const
  for (const [text, message, next] of cases) {
    test(JSON.stringify(text), async () => {
      const found = await refusal(loadText(text))
      assert.match(found.message, message)
      assert.match(found.message, /^\/work\/shop\/compose\.yaml:\d+:\d+: /)
      if (next !== undefined) assert.match(found.next ?? '', next)
    })
  }
})

test('an alias bomb is refused', async () => {
  const rows = Array.from({ length: 12 }, (_, index) =>
    index === 0
      ? 'x-0: &n0 [a, a, a, a, a, a, a, a, a, a]'
      : `x-${index}: &n${index} [${Array.from({ length: 10 }, () => `*n${index - 1}`).join(', ')}]`,
  )
  const text = `${rows.join('\n')}\nservices: {a: {image: a}}\n`
  assert.match((await refusal(loadText(text))).message, /comes to more than 500000 values/)
})

describe('short forms', () => {
  async function serviceOf(text: string) {
    const project = await loadText(
      `services:\n  a: {image: a, ${text}}\n  b: {image: b}\nvolumes: {data: }\nnetworks: {n: }`,
    )
    return project.services['a']
  }
  test('of ports', async () => {
    const ports = (
      await serviceOf(
        'ports: [80, "8080:80", "[::1]:81:81/udp", "9000-9001:90-91", "7000-7010:70", "127.0.0.1::82", {target: 83, published: "0"}]',
      )
    )?.ports
    assert.deepEqual(
      ports?.map(({ hostIp = '', published, target, protocol }) =>
        [hostIp, published?.first, published?.last, target, protocol].join(' '),
      ),
      [
        '   80 tcp',
        ' 8080 8080 80 tcp',
        '::1 81 81 81 udp',
        ' 9000 9000 90 tcp',
        ' 9001 9001 91 tcp',
        ' 7000 7010 70 tcp',
        '127.0.0.1   82 tcp',
        '   83 ',
      ],
    )
  })

  test('of volumes', async () => {
    assert.deepEqual(
      (await serviceOf('volumes: ["./x:/x:ro,z", "~/h:/h", "data:/d:nocopy", /anon]'))?.volumes,
      [
        {
          type: 'bind',
          source: '/work/shop/x',
          target: '/x',
          readOnly: true,
          bind: { createHostPath: true, selinux: 'z' },
        },
        { type: 'bind', source: '/h', target: '/h', bind: { createHostPath: true } },
        { type: 'volume', source: 'data', target: '/d', volume: { nocopy: true } },
        { type: 'volume', target: '/anon' },
      ],
    )
  })

  test('of everything else', async () => {
    const service = await serviceOf(
      'build: ./a, command: "a \'b c\'", entrypoint: [], dns: 1.1.1.1, env_file: [], depends_on: [b], networks: [n], ulimits: {nofile: 5}, gpus: all, devices: ["/dev/a:/dev/b:rw"], extra_hosts: {h: [1.1.1.1, "::1"]}, healthcheck: {test: a b}, secrets: [], mem_limit: 1g, cpus: 0.5, stop_grace_period: 1m30s, develop: {watch: [{path: ., action: rebuild, ignore: a}]}, labels: [a=b, c], tmpfs: /t, links: ["b:c"], pids_limit: -1, memswap_limit: "-1", privileged: "yes"',
    )
    assert.deepEqual(service, {
      image: 'a',
      build: { context: '/work/shop/a' },
      command: ['a', 'b c'],
      entrypoint: [],
      dns: ['1.1.1.1'],
      envFiles: [],
      dependsOn: { b: { condition: 'service_started', required: true } },
      networks: { n: {} },
      ulimits: { nofile: { soft: 5, hard: 5 } },
      gpus: [{ count: -1 }],
      devices: [{ source: '/dev/a', target: '/dev/b', permissions: 'rw' }],
      extraHosts: [
        { host: 'h', address: '1.1.1.1' },
        { host: 'h', address: '::1' },
      ],
      healthcheck: { test: ['CMD-SHELL', 'a b'] },
      secrets: [],
      memLimitBytes: 1_073_741_824,
      cpusNano: 500_000_000,
      stopGracePeriodNs: 90e9,
      develop: { watch: [{ path: '/work/shop', action: 'rebuild', ignore: ['a'] }] },
      labels: { a: 'b', c: '' },
      tmpfs: ['/t'],
      links: ['b:c'],
      pidsLimit: -1,
      memswapLimitBytes: -1,
      privileged: true,
    })
  })
})

describe('a later file', () => {
  async function merged(before: string, after: string) {
    const project = await load(
      {
        '/work/shop/a.yml': `services: {a: {image: a, ${before}}}\nvolumes: {v: , w: }`,
        '/work/shop/b.yml': `services:\n  a:\n${after.replace(/^/gm, '    ')}`,
      },
      { files: ['a.yml', 'b.yml'] },
    )
    return project.services['a'] ?? {}
  }
  const cases = [
    ['replaces commands', 'command: [a, b]', 'command: c', { command: ['c'] }],
    [
      'merges pairs by key, whatever their form',
      'environment: [A=1, B=2]',
      'environment: {B: 3}',
      { environment: { A: '1', B: '3' } },
    ],
    [
      'joins lists, each item once',
      'cap_add: [A, B]',
      'cap_add: [B, C]',
      { capAdd: ['A', 'B', 'C'] },
    ],
    [
      'replaces volumes by target',
      'volumes: ["v:/x", "v:/y"]',
      'volumes: ["w:/x"]',
      {
        volumes: [
          { type: 'volume', source: 'w', target: '/x' },
          { type: 'volume', source: 'v', target: '/y' },
        ],
      },
    ],
    [
      'joins ports that differ',
      'ports: ["1:1"]',
      'ports: ["2:1", "1:1"]',
      {
        ports: [
          { mode: 'ingress', target: 1, published: { first: 1, last: 1 }, protocol: 'tcp' },
          { mode: 'ingress', target: 1, published: { first: 2, last: 2 }, protocol: 'tcp' },
        ],
      },
    ],
    [
      'resets a key',
      'ports: ["1:1"], labels: {a: b}',
      'ports: !reset []',
      { ports: undefined, labels: { a: 'b' } },
    ],
    [
      'resets an entry',
      'environment: {A: 1, B: 2}',
      'environment: {A: !reset null}',
      { environment: { B: '2' } },
    ],
    ['overrides a list', 'dns: [1.1.1.1]', 'dns: !override [8.8.8.8]', { dns: ['8.8.8.8'] }],
    ['keeps what an empty key was', 'user: me', 'user:', { user: 'me' }],
    ['sets false over true', 'tty: true', 'tty: false', { tty: false }],
    [
      'changes the options of the same log driver',
      'logging: {driver: a, options: {x: 1, y: 1}}',
      'logging: {options: {y: 2}}',
      { logging: { driver: 'a', options: { x: '1', y: '2' } } },
    ],
    [
      'drops the options of another log driver',
      'logging: {driver: a, options: {x: 1}}',
      'logging: {driver: b}',
      { logging: { driver: 'b' } },
    ],
    [
      'merges deep',
      'deploy: {resources: {limits: {cpus: "1", memory: 1g}}}',
      'deploy: {resources: {limits: {memory: 2g}}}',
      { deploy: { resources: { limits: { cpusNano: 1e9, memoryBytes: 2 * 1024 ** 3 } } } },
    ],
    [
      'adds a build to an image',
      'user: me',
      'build: {target: dev}',
      { build: { context: '/work/shop', target: 'dev' } },
    ],
  ] as const
  for (const [name, before, after, want] of cases) {
    test(name, async () => {
      const service: Record<string, unknown> = { ...(await merged(before, after)) }
      for (const [key, value] of Object.entries(want)) assert.deepEqual(service[key], value)
    })
  }

  test('with the same content changes nothing', async () => {
    await fc.assert(
      fc.asyncProperty(anyService, async (service) => {
        const text = stringify({ services: { a: service } })
        const files = { '/work/shop/a.yml': text }
        const once = await load(files, { files: ['a.yml'] })
        const twice = await load(files, { files: ['a.yml', 'a.yml'] })
        assert.deepEqual(twice.services, once.services)
      }),
      { numRuns: 100 },
    )
  })

  test('over two others is the same, however they are grouped by extends or -f', async () => {
    await fc.assert(
      fc.asyncProperty(anyService, anyService, async (before, after) => {
        const byFiles = await load(
          {
            '/work/shop/a.yml': stringify({ services: { a: before } }),
            '/work/shop/b.yml': stringify({ services: { a: after } }),
          },
          { files: ['a.yml', 'b.yml'] },
        )
        const byExtends = await load(
          {
            '/work/shop/base.yml': stringify({ services: { a: before } }),
            '/work/shop/a.yml': stringify({
              services: { a: { ...after, extends: { file: 'base.yml', service: 'a' } } },
            }),
          },
          { files: ['a.yml'] },
        )
        assert.deepEqual(byExtends.services, byFiles.services)
      }),
      { numRuns: 100 },
    )
  })
})

const word = fc.stringMatching(/^[a-z]{1,6}$/)
const pairs = fc.dictionary(word, fc.oneof(word, fc.integer({ min: 0, max: 99 })), { maxKeys: 3 })
const anyService = fc.record(
  {
    image: word,
    environment: pairs,
    labels: pairs,
    command: fc.oneof(fc.array(word, { maxLength: 3 }), word),
    dns: fc.array(word, { maxLength: 3 }),
    ports: fc.array(
      fc.integer({ min: 1, max: 50 }).map((port) => `${port}:${port}`),
      { maxLength: 3 },
    ),
    volumes: fc.array(
      word.map((name) => `./${name}:/${name}`),
      { maxLength: 3 },
    ),
    healthcheck: fc.record({ test: word, retries: fc.nat(9) }, { requiredKeys: [] }),
    ulimits: fc.dictionary(word, fc.nat(99), { maxKeys: 2 }),
    tty: fc.boolean(),
    mem_limit: fc.nat(99).map((size) => `${size}m`),
    stop_grace_period: fc.nat(99).map((time) => `${time}s`),
    logging: fc.record({ driver: fc.constantFrom('a', 'b'), options: pairs }, { requiredKeys: [] }),
  },
  { requiredKeys: ['image'] },
)

describe('extends', () => {
  test('takes from the same file, another file and beyond, with paths of that file', async () => {
    const project = await load({
      '/work/shop/compose.yaml':
        'services:\n  base: {image: b, environment: {A: 1, B: 1}}\n  a: {extends: base, environment: {B: 2}}\n  c: {extends: {file: ../lib/l.yml, service: x}}\nvolumes: {v: }\n',
      '/work/lib/l.yml':
        'services: {x: {extends: {service: y}, build: ./x, volumes: ["./d:/d"]}, y: {image: y, env_file: y.env}}',
      '/work/lib/y.env': 'Y=1',
    })
    assert.deepEqual(project.services['a'], {
      image: 'b',
      environment: { A: '1', B: '2' },
      networks: { default: {} },
    })
    const { build, volumes, environment } = project.services['c'] ?? {}
    assert.equal(build?.context, '/work/lib/x')
    assert.equal(volumes?.[0]?.source, '/work/lib/d')
    assert.deepEqual(environment, { Y: '1' })
  })

  test('in a circle is told by name', async () => {
    const { message } = await refusal(
      loadText('services: {a: {extends: b, image: a}, b: {extends: a}}'),
    )
    assert.match(message, /services\.a\.extends extends in a circle: .*a → .*b → .*a$/)
  })

  test('of what is not there is refused', async () => {
    const { message } = await refusal(loadText('services: {a: {extends: b}}'))
    assert.match(message, /names the service b, which is not there/)
    const other = await refusal(loadText('services: {a: {extends: {file: x.yml, service: b}}}'))
    assert.match(other.message, /services\.a\.extends: cannot read \/work\/shop\/x\.yml/)
  })

  test('lets a tag reset what was extended', async () => {
    const project = await loadText(
      'services:\n  b: {image: b, ports: ["1:1"], dns: [a]}\n  a:\n    extends: b\n    ports: !reset []\n    dns: !override [c]\n',
    )
    assert.equal(project.services['a']?.ports, undefined)
    assert.deepEqual(project.services['a']?.dns, ['c'])
  })
})

describe('include', () => {
  const files = {
    '/work/shop/compose.yaml':
      'include:\n  - ../db/compose.yaml\n  - {path: [x.yml, y.yml], project_directory: sub, env_file: sub.env}\nservices: {web: {image: w, depends_on: [db, x]}}\n',
    '/work/db/compose.yaml':
      'name: other\nservices: {db: {image: "db:$TAG", volumes: ["./d:/d", "data:/v"]}}\nvolumes: {data: }\n',
    '/work/db/.env': 'TAG=5',
    '/work/shop/x.yml': 'services: {x: {image: "x:$TAG", build: .}}',
    '/work/shop/y.yml': 'services: {x: {user: me}}',
    '/work/shop/sub.env': 'TAG=6',
  }
  test('brings files with their own directory and variables', async () => {
    const project = await load(files)
    assert.equal(project.name, 'shop')
    assert.equal(project.services['db']?.image, 'db:5')
    assert.equal(project.services['db']?.volumes?.[0]?.source, '/work/db/d')
    assert.equal(project.volumes['data']?.name, 'shop_data')
    assert.deepEqual(project.services['x'], {
      image: 'x:6',
      user: 'me',
      build: { context: '/work/shop/sub' },
      networks: { default: {} },
    })
    assert.equal((await load(files, { environment: { TAG: '9' } })).services['db']?.image, 'db:9')
  })

  test('of what says something else of the same name is refused', async () => {
    const clash = { ...files, '/work/shop/y.yml': 'services: {db: {image: z}}' }
    assert.match((await refusal(load(clash))).message, /include\[1\] brings services\.db/)
  })

  test('in a circle is told by name', async () => {
    const { message } = await refusal(
      load({
        '/work/shop/compose.yaml': 'include: [a.yml]\nservices: {a: {image: a}}',
        '/work/shop/a.yml': 'include: [compose.yaml]',
      }),
    )
    assert.match(message, /a\.yml:1:11: include\[0\] includes in a circle/)
  })

  test('may be changed by a later file', async () => {
    const project = await load(
      { ...files, '/work/shop/late.yml': 'services: {db: {image: late}}' },
      { files: ['compose.yaml', 'late.yml'] },
    )
    assert.equal(project.services['db']?.image, 'late')
  })
})

describe('profiles', () => {
  const text =
    'services:\n  web: {image: w}\n  dbg: {image: d, profiles: [debug], depends_on: [tool]}\n  tool: {image: t, profiles: [tools]}\n'
  const names = async (more: Partial<LoadOptions>) =>
    Object.keys((await loadText(text, more)).services)
  test('leave out services until one is active', async () => {
    assert.deepEqual(await names({}), ['web'])
    assert.deepEqual(await names({ profiles: ['*'] }), ['web', 'dbg', 'tool'])
    assert.deepEqual(await names({ environment: { COMPOSE_PROFILES: 'tools' } }), ['web', 'tool'])
    assert.deepEqual(await names({ services: ['dbg'] }), ['web', 'dbg', 'tool'])
  })

  test('that hide what an active service needs are told', async () => {
    const { message, next } = await refusal(names({ profiles: ['debug'] }))
    assert.match(message, /names tool, whose profiles are not active/)
    assert.match(next ?? '', /--profile tools/)
  })

  test('that hide what is not required change nothing', async () => {
    const project = await loadText(
      'services:\n  a: {image: a, depends_on: {b: {condition: service_started, required: false}}}\n  b: {image: b, profiles: [x]}\n',
    )
    assert.deepEqual(project.services['a']?.dependsOn, {})
  })
})

test('what has no effect is told once, with all services that say it', async () => {
  const told: string[] = []
  await loadText(
    'services:\n  a: {image: "$X$X", deploy: {placement: {constraints: [a==b]}}}\n  b: {image: b, deploy: {placement: {constraints: [a==b]}}}\n  c: {image: c, profiles: [p], deploy: {endpoint_mode: vip}}\n',
    { warn: (text) => told.push(text) },
  )
  assert.deepEqual(told, [
    'services.a.deploy.placement has no effect: one engine has no cluster; it counts in a stack (also in b)',
    'the variable X is not set: an empty string is used',
  ])
})

test('services that need each other by mode, link or volume depend on each other', async () => {
  const project = await loadText(
    'services:\n  a: {image: a, network_mode: "service:b", ipc: "service:c", links: ["d:x"], volumes_from: ["e:ro", "container:z"]}\n  b: {image: b}\n  c: {image: c}\n  d: {image: d}\n  e: {image: e}\n'.replace(
      ', links: ["d:x"]',
      '',
    ),
  )
  assert.deepEqual(Object.keys(project.services['a']?.dependsOn ?? {}), ['b', 'c', 'e'])
  const only = selectServices(project, ['a'], { withDependencies: true })
  assert.deepEqual(Object.keys(only.services), ['a', 'b', 'c', 'e'])
  assert.throws(() => selectServices(project, ['aa'], { withDependencies: false }), /no service aa/)
})

describe('a project is shown', () => {
  test('so that it loads as the same again', async () => {
    await fc.assert(
      fc.asyncProperty(anyService, async (service) => {
        const project = await loadText(stringify({ services: { a: service } }))
        for (const format of ['yaml', 'json'] as const) {
          const again = await loadText(renderProject(project, format))
          assert.deepEqual(again, project)
        }
      }),
      { numRuns: 60 },
    )
  })

  test('with its dollar signs doubled', async () => {
    const project = await loadText('services: {a: {image: a, command: ["$$A", "$${B}"]}}')
    assert.match(renderProject(project, 'yaml'), /"\$\$A"\n.*"\$\$\{B\}"/)
  })

  test('with its variables left in', async () => {
    const raw = await loadRawModel(
      optionsOf({
        '/work/shop/compose.yaml':
          'services: {a: {image: "a:${TAG:-1}", ports: ["${P}:80", "1:1"], scale: "$N", mem_limit: "$M", environment: ["A=$A"], tty: "${T}"}}',
      }),
    )
    assert.deepEqual(parse(renderModel(raw.model, 'yaml')), {
      services: {
        a: {
          environment: { A: '$A' },
          image: 'a:${TAG:-1}',
          mem_limit: '$M',
          ports: ['${P}:80', { mode: 'ingress', target: 1, published: '1', protocol: 'tcp' }],
          scale: '$N',
          tty: '${T}',
        },
      },
    })
  })

  test('as lists', async () => {
    const project = await loadText(
      'name: n\nservices: {b: {build: ., profiles: [p]}, a: {image: x}}\nvolumes: {v: }\n',
      { profiles: ['p'], environment: { E: '1' } },
    )
    assert.deepEqual(listProject(project, 'services'), ['a', 'b'])
    assert.deepEqual(listProject(project, 'images'), ['n-b', 'x'])
    assert.deepEqual(listProject(project, 'volumes'), ['v'])
    assert.deepEqual(listProject(project, 'profiles'), ['p'])
    assert.deepEqual(listProject(project, 'environment'), ['E=1'])
    assert.match(listProject(project, 'hash', ['a'])[0] ?? '', /^a [0-9a-f]{64}$/)
  })
})

describe('the hash of a service', () => {
  const base = { image: 'a', environment: { A: '1', B: '2' } }
  const same = [
    { ...base, environment: { B: '2', A: '1' } },
    { ...base, scale: 3, profiles: ['p'], build: { context: '/x' }, dependsOn: {} },
    { ...base, deploy: { replicas: 3, labels: { a: 'b' } } },
    { ...base, extensions: { 'x-a': 1 } },
  ]
  const other = [
    { ...base, image: 'b' },
    { ...base, environment: { A: '1' } },
    { ...base, tty: false },
    { ...base, deploy: { resources: { limits: { memoryBytes: 1 } } } },
  ]
  test('is that of what its containers are made from', () => {
    for (const service of same) assert.equal(serviceHash(service), serviceHash(base))
    for (const service of other) assert.notEqual(serviceHash(service), serviceHash(base))
    assert.notEqual(serviceHash(base, { s: 'x' }), serviceHash(base, { s: 'y' }))
  })
})

test('a stack knows .env, profiles, extends and include too', async () => {
  const project = await load(
    {
      '/work/shop/compose.yaml':
        'include: [i.yml]\nservices: {a: {extends: b, image: "a:$TAG"}, b: {image: b, user: me}, c: {image: c, profiles: [x]}}',
      '/work/shop/i.yml': 'services: {i: {image: i}}',
      '/work/shop/.env': 'TAG=1',
    },
    { dialect: 'stack' },
  )
  assert.deepEqual(Object.keys(project.services), ['i', 'a', 'b'])
  assert.equal(project.services['a']?.image, 'a:1')
  assert.equal(project.services['a']?.user, 'me')
})

describe('a stack is refused by place', () => {
  const cases = [
    ['services:\n  a: {build: .}\n', /:2:3: services\.a\.image is missing$/],
    [
      'services:\n  a: {image: a, deploy: {mode: global, replicas: 2}}\n',
      /:2:40: services\.a\.deploy\.replicas does not go with the mode global$/,
    ],
    [
      'services:\n  a: {image: a, healthcheck: {disable: true, test: a}}\n',
      /services\.a\.healthcheck is disabled and has a test$/,
    ],
    [
      'services: {a: {image: a}}\nsecrets:\n  s:\n    environment: NOPE\n',
      /:4:5: secrets\.s\.environment names the variable NOPE, which is not set$/,
    ],
    [
      'services: {a: {image: a, deploy: {mode: some}}}',
      /deploy\.mode must be one of replicated, global, replicated-job, global-job/,
    ],
    ['services: {a: {image: a, cpu_shares: 5}}', /cpu_shares is not supported in a stack$/],
    ['services: {a: {image: a, ports: [{target: 1, published: "1-2"}]}}', /published is a range$/],
  ] as const
  for (const [text, message] of cases) {
    test(JSON.stringify(text), async () => {
      const found = await refusal(loadText(text, { dialect: 'stack' }))
      assert.match(found.message, message)
      assert.match(found.message, /^\/work\/shop\/compose\.yaml:\d+:\d+: /)
    })
  }
})
