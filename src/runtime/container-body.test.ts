import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type ContainerSpec, idFrom, type Mount } from '../model/index.ts'
import type { TaskAssignment } from '../wire/index.ts'
import { planContainer } from './container-body.ts'
import { buildAssignment, buildMaterials } from './contract.ts'

const front = idFrom<'network'>('front')
const back = idFrom<'network'>('back')

function plan(
  given: Parameters<typeof buildAssignment>[0] = {},
  apiVersion = '1.41',
  engineNetworks: ReadonlyMap<string, string> = new Map(),
) {
  const assignment = buildAssignment(given)
  const [container] = assignment.template.containers
  assert.ok(container)
  const materials = {
    ...buildMaterials({ clusterId: 'c1' }),
    nameservers: engineNetworks.size > 0 ? ['10.0.0.1'] : [],
    engineNetworks,
  }
  return planContainer(assignment, container, materials, [], apiVersion)
}
const host = (container: Partial<ContainerSpec>, apiVersion?: string) =>
  plan({ container }, apiVersion).body.HostConfig ?? {}

const bind = (more: Partial<Extract<Mount, { type: 'bind' }>['bind']>): Mount => ({
  type: 'bind',
  source: '/src',
  target: '/dst',
  readOnly: true,
  bind: {
    nonRecursive: false,
    createMountpoint: false,
    readOnlyNonRecursive: false,
    readOnlyForceRecursive: false,
    ...more,
  },
})
const volume = (more: Partial<Extract<Mount, { type: 'volume' }>['volume']>): Mount => ({
  type: 'volume',
  source: 'data',
  target: '/data',
  readOnly: false,
  volume: { noCopy: true, labels: { a: 'b' }, ...more },
})
const tmpfs = (more: Partial<Extract<Mount, { type: 'tmpfs' }>['tmpfs']>): Mount => ({
  type: 'tmpfs',
  target: '/tmp',
  readOnly: false,
  tmpfs: { options: [], ...more },
})

describe('planContainer', () => {
  test('says all that a container spec can say', () => {
    const { body } = plan({
      container: {
        image: 'i:1',
        command: ['/entry'],
        args: ['a', 'b'],
        env: ['A=1'],
        labels: { mine: 'yes', 'com.docker.swarm.task.id': 'forged' },
        hostname: 'h',
        user: 'u',
        groups: ['g'],
        dir: '/d',
        stopSignal: 'SIGINT',
        stopGraceMs: 1500,
        tty: true,
        openStdin: true,
        readOnly: true,
        init: true,
        dns: { nameservers: ['1.1.1.1'], search: ['s'], options: ['ndots:1'] },
        hosts: [{ name: 'db', address: '10.1.1.1' }],
        capabilitiesAdd: ['CAP_NET_ADMIN'],
        capabilitiesDrop: ['ALL'],
        sysctls: { 'net.core.somaxconn': '1' },
        ulimits: [{ name: 'nofile', soft: 1, hard: 2 }],
        limits: { nanoCpus: 5e8, memoryBytes: 64 << 20, pids: 7 },
        oomScoreAdj: 100,
        isolation: 'default',
        privileges: {
          noNewPrivileges: true,
          seccomp: { mode: 'custom', profile: '{}' },
          apparmor: { mode: 'disabled' },
          selinux: { disable: false, user: 'su', level: 'sl' },
        },
        health: {
          test: ['CMD', 'ok'],
          intervalMs: 1500,
          timeoutMs: 2,
          startPeriodMs: 3,
          startIntervalMs: 4,
          retries: 5,
        },
      },
      template: {
        reservations: { nanoCpus: 0, memoryBytes: 32 << 20, generic: [] },
        logDriver: { name: 'json-file', options: { 'max-size': '1m' } },
      },
      task: {
        genericResources: [
          { kind: 'gpu', value: 2, names: ['u1', 'u2'] },
          { kind: 'ssd', value: 3 },
        ],
      },
    })
    const { Labels, ...rest } = body
    assert.equal(Labels?.['mine'], 'yes')
    assert.match(Labels?.['com.docker.swarm.task.id'] ?? '', /^[0-9a-z]{25}$/)
    assert.equal(Labels?.['skep.cluster.id'], 'c1')
    assert.equal(Labels?.['com.docker.swarm.task'], '')
    assert.deepEqual(rest, {
      Image: 'i:1',
      Entrypoint: ['/entry'],
      Cmd: ['a', 'b'],
      Env: ['A=1', 'DOCKER_RESOURCE_GPU=u1,u2', 'DOCKER_RESOURCE_SSD=3'],
      Hostname: 'h',
      User: 'u',
      WorkingDir: '/d',
      Tty: true,
      OpenStdin: true,
      StopSignal: 'SIGINT',
      StopTimeout: 2,
      ExposedPorts: {},
      Healthcheck: {
        Test: ['CMD', 'ok'],
        Interval: 1_500_000_000,
        Timeout: 2_000_000,
        StartPeriod: 3_000_000,
        Retries: 5,
      },
      HostConfig: {
        RestartPolicy: { Name: 'no' },
        NetworkMode: 'bridge',
        PortBindings: {},
        LogConfig: { Type: 'json-file', Config: { 'max-size': '1m' } },
        NanoCpus: 5e8,
        Memory: 64 << 20,
        PidsLimit: 7,
        MemoryReservation: 32 << 20,
        Ulimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }],
        CapAdd: ['CAP_NET_ADMIN'],
        CapDrop: ['ALL'],
        SecurityOpt: [
          'seccomp={}',
          'apparmor=unconfined',
          'no-new-privileges=true',
          'label=user:su',
          'label=level:sl',
        ],
        Sysctls: { 'net.core.somaxconn': '1' },
        Dns: ['1.1.1.1'],
        DnsSearch: ['s'],
        DnsOptions: ['ndots:1'],
        ExtraHosts: ['db:10.1.1.1'],
        GroupAdd: ['g'],
        Init: true,
        ReadonlyRootfs: true,
        OomScoreAdj: 100,
        Isolation: 'default',
      },
    })
  })

  test('keeps the start interval where the engine knows it', () => {
    const health = { test: ['CMD', 'ok'], startIntervalMs: 4 }
    assert.equal(plan({ container: { health } }, '1.44').body.Healthcheck?.StartInterval, 4e6)
  })

  for (const [what, mount, version] of [
    ['bind-create-src', bind({ createMountpoint: true }), '1.42'],
    ['bind-recursive=writable', bind({ readOnlyNonRecursive: true }), '1.44'],
    ['bind-recursive=readonly', bind({ readOnlyForceRecursive: true }), '1.44'],
    ['volume-subpath', volume({ subpath: 'a' }), '1.45'],
    ['tmpfs options', tmpfs({ options: [['uid', '1']] }), '1.46'],
  ] as const) {
    test(`${what} is refused by name below API ${version}`, () => {
      assert.throws(() => host({ mounts: [mount] }, '1.41'), {
        code: 'unsupported',
        message: new RegExp(`^${what} .*${mount.target}.* needs Engine API ${version}.* has 1.41`),
      })
      assert.equal(host({ mounts: [mount] }, version).Mounts?.length, 1)
    })
  }

  test('mounts keep their options', () => {
    const driver = { name: 'local', options: { type: 'nfs' } }
    const mounts = [bind({ propagation: 'rslave' }), volume({ driver }), tmpfs({ sizeBytes: 9 })]
    assert.deepEqual(host({ mounts }).Mounts, [
      {
        Type: 'bind',
        Source: '/src',
        Target: '/dst',
        ReadOnly: true,
        BindOptions: { Propagation: 'rslave' },
      },
      {
        Type: 'volume',
        Source: 'data',
        Target: '/data',
        ReadOnly: false,
        VolumeOptions: {
          NoCopy: true,
          Labels: { a: 'b' },
          DriverConfig: { Name: 'local', Options: { type: 'nfs' } },
        },
      },
      { Type: 'tmpfs', Target: '/tmp', ReadOnly: false, TmpfsOptions: { SizeBytes: 9 } },
    ])
  })

  const task = {
    addresses: [
      { networkId: front, address: '10.0.1.7', mac: '02:42:0a:00:01:07' },
      { networkId: back, address: '10.0.2.7', mac: '02:42:0a:00:02:07' },
    ],
  }
  const networks = new Map([
    [front, 'skep-front'],
    [back, 'skep-back'],
  ])

  test('joins networks one after the other on old engines, at once on newer ones', () => {
    const old = plan({ task }, '1.41', networks)
    assert.equal(old.body.HostConfig?.NetworkMode, 'skep-front')
    assert.equal(old.body.MacAddress, undefined)
    assert.deepEqual(old.body.HostConfig?.Dns, ['10.0.0.1'])
    assert.deepEqual(old.body.NetworkingConfig?.EndpointsConfig, {
      'skep-front': { IPAMConfig: { IPv4Address: '10.0.1.7' } },
    })
    assert.deepEqual(
      old.connects.map(({ network, endpoint }) => [network, endpoint.IPAMConfig?.IPv4Address]),
      [['skep-back', '10.0.2.7']],
    )
    const newer = plan({ task }, '1.44', networks)
    assert.deepEqual(newer.connects, [])
    assert.deepEqual(newer.body.NetworkingConfig?.EndpointsConfig['skep-back'], {
      IPAMConfig: { IPv4Address: '10.0.2.7' },
      MacAddress: '02:42:0a:00:02:07',
    })
  })

  test('on the host network there are no ports and no resolver', () => {
    const hostPorts: TaskAssignment['hostPorts'] = [
      { protocol: 'tcp', targetPort: 80, publishedPort: 8080, publishMode: 'host' },
    ]
    const onHost = plan({ assignment: { hostPorts } }, '1.41', new Map([[front, 'host']]))
    assert.equal(onHost.body.HostConfig?.NetworkMode, 'host')
    assert.equal(onHost.body.HostConfig?.PortBindings, undefined)
    assert.equal(onHost.body.HostConfig?.Dns, undefined)
    assert.equal(onHost.body.NetworkingConfig, undefined)
    const bound = plan({ assignment: { hostPorts } }).body
    assert.deepEqual(bound.HostConfig?.PortBindings, { '80/tcp': [{ HostPort: '8080' }] })
    assert.throws(() => plan({ task }, '1.41', new Map([...networks, ['h', 'host']])), {
      code: 'invalidInput',
    })
  })

  test('a credential spec is refused by name', () => {
    const configs = [{ type: 'runtime', id: idFrom<'config'>('c'), name: 'cred' }] as const
    assert.throws(() => host({ configs }), { code: 'unsupported', message: /"cred"/ })
  })
})
