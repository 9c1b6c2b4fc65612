import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { ComposeService, Project } from '../compose/index.ts'
import { type BodyContext, containerPlan } from './container-body.ts'

function buildProject(services: Project['services']): Project {
  return {
    name: 'shop',
    workingDirectory: '/shop',
    files: ['/shop/compose.yaml'],
    environment: {},
    services,
    disabledServices: {},
    networks: {
      default: { name: 'shop_default', external: false },
      back: { name: 'shop_back', external: false },
    },
    volumes: { data: { name: 'shop_data', external: false } },
    secrets: {},
    configs: {},
    models: {},
    profiles: [],
    extensions: {},
  }
}

function plan(service: ComposeService, parts: Partial<BodyContext> = {}) {
  return containerPlan({
    project: buildProject({ web: service }),
    serviceName: 'web',
    service,
    labels: {},
    image: 'app',
    imageConfig: null,
    apiVersion: '1.41',
    containerIdOf: (name) => (name === 'db' ? 'id-of-db' : undefined),
    fileMounts: [],
    ...parts,
  })
}

describe('a container’s body', () => {
  test('joins the network of the highest priority first; older engines take the others one by one', () => {
    const service = { networks: { default: {}, back: { priority: 5, aliases: ['store'] } } }
    const old = plan(service)
    assert.equal(old.body.HostConfig?.NetworkMode, 'shop_back')
    assert.deepEqual(old.body.NetworkingConfig?.EndpointsConfig, {
      shop_back: { Aliases: ['web', 'store'] },
    })
    assert.deepEqual(
      old.connects.map(({ network }) => network),
      ['shop_default'],
    )
    const today = plan(service, { apiVersion: '1.44' })
    assert.deepEqual(today.connects, [])
    assert.deepEqual(Object.keys(today.body.NetworkingConfig?.EndpointsConfig ?? {}), [
      'shop_back',
      'shop_default',
    ])
  })

  test('an empty command takes the image’s away', () => {
    const imageConfig = { Entrypoint: ['/run'], Cmd: ['serve'] }
    const { body } = plan({ command: [] }, { imageConfig })
    assert.deepEqual([body.Entrypoint, body.Cmd], [['/run'], []])
    assert.equal('Cmd' in plan({}, { imageConfig }).body, false)
  })

  test('a variable without a value is named alone, so that the engine takes it away', () => {
    assert.deepEqual(plan({ environment: { A: '1', B: null } }).body.Env, ['A=1', 'B'])
  })

  test('namespaces of a service are those of its container, which has to be there', () => {
    const service = { networkMode: 'service:db', pid: 'service:db' }
    const { HostConfig } = plan(service).body
    assert.deepEqual(
      [HostConfig?.NetworkMode, HostConfig?.PidMode],
      ['container:id-of-db', 'container:id-of-db'],
    )
    assert.throws(() => plan({ ipc: 'service:cache' }), /cache has no container/)
  })

  test('ports are published and exposed, ranges spread over their protocol', () => {
    const { body } = plan({
      ports: [
        { target: 80, published: { first: 8080, last: 8080 }, hostIp: '127.0.0.1' },
        { target: 53, protocol: 'udp' },
      ],
      expose: ['3000-3001'],
    })
    assert.deepEqual(body.HostConfig?.PortBindings, {
      '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8080' }],
      '53/udp': [{ HostPort: '' }],
    })
    assert.deepEqual(Object.keys(body.ExposedPorts ?? {}).sort(), [
      '3000/tcp',
      '3001/tcp',
      '53/udp',
      '80/tcp',
    ])
  })

  test('a further container of a service leaves ports with one number to the first', () => {
    const ports = [
      { target: 80, published: { first: 8080, last: 8080 } },
      { target: 81, published: { first: 9000, last: 9010 } },
      { target: 82 },
    ]
    const { body } = plan({ ports }, { isFurther: true })
    assert.deepEqual(Object.keys(body.HostConfig?.PortBindings ?? {}), ['81/tcp', '82/tcp'])
    assert.deepEqual(Object.keys(body.ExposedPorts ?? {}), ['80/tcp', '81/tcp', '82/tcp'])
  })

  test('volumes are the project’s; anonymous ones go from a container to its successor', () => {
    const service: ComposeService = {
      volumes: [
        { type: 'volume', source: 'data', target: '/data', readOnly: true },
        { type: 'volume', target: '/cache' },
        { type: 'bind', source: '/shop/conf', target: '/etc/conf', bind: { createHostPath: true } },
        { type: 'bind', source: '/shop/must', target: '/must' },
      ],
    }
    const { HostConfig } = plan(service, { inheritedVolumes: { '/cache': 'abc' } }).body
    assert.deepEqual(HostConfig?.Binds, [
      'shop_data:/data:ro',
      '/shop/conf:/etc/conf:rw',
      'abc:/cache:rw',
    ])
    assert.deepEqual(HostConfig?.Mounts, [
      { Type: 'bind', Source: '/shop/must', Target: '/must', BindOptions: {} },
    ])
  })

  const restarts = [
    [{ restart: 'on-failure:3' }, { Name: 'on-failure', MaximumRetryCount: 3 }],
    [{ restart: 'unless-stopped' }, { Name: 'unless-stopped' }],
    [{ deploy: { restartPolicy: { condition: 'any' } } }, { Name: 'always' }],
    [{ deploy: { restartPolicy: { condition: 'none' } } }, { Name: 'no' }],
    [
      { deploy: { restartPolicy: { condition: 'on-failure', maxAttempts: 2 } } },
      { Name: 'on-failure', MaximumRetryCount: 2 },
    ],
    [{}, { Name: 'no' }],
  ] as const
  for (const [service, want] of restarts) {
    test(`restarts as ${JSON.stringify(service)} says`, () =>
      assert.deepEqual(plan(service).body.HostConfig?.RestartPolicy, want))
  }

  test('limits of deploy go before the older keys', () => {
    const { HostConfig } = plan({
      memLimitBytes: 1,
      deploy: { resources: { limits: { memoryBytes: 2, cpusNano: 5e8, pids: 9 } } },
      gpus: [{ count: -1 }],
    }).body
    assert.deepEqual([HostConfig?.Memory, HostConfig?.NanoCpus, HostConfig?.PidsLimit], [2, 5e8, 9])
    assert.deepEqual(HostConfig?.DeviceRequests, [{ Capabilities: [['gpu']], Count: -1 }])
  })

  test('what this engine can’t do is refused by name, never dropped', () => {
    const refused: readonly (readonly [ComposeService, RegExp])[] = [
      [{ provider: { type: 'x' } }, /provider/],
      [{ annotations: { a: 'b' } }, /annotations/],
      [{ volumes: [{ type: 'cluster', source: 'v', target: '/v' }] }, /type cluster/],
      [{ useApiSocket: true }, /use_api_socket/],
      [{ healthcheck: { startIntervalNs: 1 } }, /start_interval/],
      [{ networks: { default: { interfaceName: 'eth7' } } }, /interface_name/],
    ]
    for (const [service, words] of refused) assert.throws(() => plan(service), words)
  })
})
