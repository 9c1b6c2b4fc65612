import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import type { ApiService, ApiTask } from './api.ts'
import { type Answer, type FakeDaemon, openFakeDaemon } from './fake-daemon.testing.ts'
import type { Io } from './io.ts'
import { runCommandLine } from './program.ts'

const meta = {
  Version: { Index: 7 },
  CreatedAt: '2026-01-01T00:00:00Z',
  UpdatedAt: '2026-01-01T00:00:00Z',
}
const web: ApiService = {
  ...meta,
  ID: 'webidwebidwebidwebidwebid',
  Spec: {
    Name: 'web',
    Labels: { 'com.docker.stack.namespace': 'shop' },
    TaskTemplate: { ContainerSpec: { Image: 'nginx:1', Env: ['A=1', 'B=2'] }, ForceUpdate: 0 },
    Mode: { Replicated: { Replicas: 2 } },
    EndpointSpec: { Mode: 'vip' },
  },
  Endpoint: {
    Ports: [
      { Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'ingress' },
      { Protocol: 'tcp', TargetPort: 81, PublishedPort: 8081, PublishMode: 'ingress' },
    ],
  },
  ServiceStatus: { RunningTasks: 1, DesiredTasks: 2 },
}
const task: ApiTask = {
  ...meta,
  ID: 'taskidtaskidtaskidtaskid1',
  Spec: { ContainerSpec: { Image: 'nginx:1@sha256:abc' } },
  ServiceID: web.ID,
  Slot: 1,
  NodeID: 'node1',
  Status: { Timestamp: '2026-01-01T00:00:00Z', State: 'running' },
  DesiredState: 'running',
}
const older: ApiTask = {
  ...task,
  ID: 'taskidtaskidtaskidtaskid0',
  CreatedAt: '2025-12-31T00:00:00Z',
  Status: { Timestamp: '2026-01-01T00:00:00Z', State: 'failed', Err: 'task: non-zero exit (3)' },
  DesiredState: 'shutdown',
}

const cluster: Answer = ({ method, path, query }) => {
  if (method !== 'GET') return undefined
  if (path === '/services') return { json: [web] }
  if (path === '/services/web' || path === `/services/${web.ID}`) return { json: web }
  if (path === '/tasks') return { json: [older, task] }
  if (path === '/nodes')
    return { json: [{ ...meta, ID: 'node1', Description: { Hostname: 'host1' } }] }
  if (path === '/skep/v1/networks/doctor') {
    const host = { ID: 'node1', Name: 'host1', DriftRepaired: 1, MTU: 1500, ClockAheadMs: -3 }
    const finding = { Node: 'host1', Network: 'net', What: 'a flaw', Next: 'Mend it.' }
    const findings = query['network'] === 'net' ? [finding] : []
    return { json: { Nodes: [host], Findings: findings, PathsTested: 2 } }
  }
  if (path === '/skep/v1/explain/web') {
    return {
      json: {
        summary: 'web waits.',
        reasons: ['no node fits'],
        timeline: [{ atMs: 1000, text: 'created' }],
      },
    }
  }
  return undefined
}

describe('commands', () => {
  let directory: string
  let daemon: FakeDaemon
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'skep-cli-'))
    daemon = await openFakeDaemon(join(directory, 'd.sock'), cluster)
  })
  after(async () => {
    await daemon.close()
    await rm(directory, { recursive: true, force: true })
  })

  async function skep(
    args: readonly string[],
    { env = {}, input = '' }: { env?: Record<string, string>; input?: string } = {},
  ): Promise<{ code: number; stdout: string; stderr: string }> {
    const stdout = new PassThrough()
    const stderr = new PassThrough()
    const stdin = new PassThrough()
    stdin.end(input)
    const io: Io = {
      readFile: (path) => readFile(path),
      stdin,
      stdout,
      stderr,
      env: { SKEP_HOST: `unix://${daemon.path}`, ...env },
      directory,
      nowMs: () => Date.parse('2026-01-01T00:02:00Z'),
      signal: new AbortController().signal,
    }
    const code = await runCommandLine(args, io)
    stdout.end()
    stderr.end()
    return { code, stdout: await text(stdout), stderr: await text(stderr) }
  }

  /** The calls that changed something since the last look. */
  function changes(from: number): unknown[] {
    return daemon.calls
      .slice(from)
      .filter(({ method }) => method !== 'GET')
      .map(({ method, path, query, body }) => ({ method, path, query, body }))
  }

  const shown = [
    {
      args: ['service', 'ls'],
      want: 'ID             NAME   MODE         REPLICAS   IMAGE     PORTS\nwebidwebidwe   web    replicated   1/2        nginx:1   *:8080-8081->80-81/tcp\n',
    },
    { args: ['service', 'ls', '-q'], want: 'webidwebidwe\n'.replace('webidwebidwe', web.ID) },
    { args: ['service', 'ls', '--format', '{{.Name}}|{{upper .Mode}}'], want: 'web|REPLICATED\n' },
    {
      args: ['service', 'ls', '--format', 'table {{.Name}}\\t{{.Replicas}}'],
      want: 'NAME   REPLICAS\nweb    1/2\n',
    },
    { args: ['stack', 'ls', '--format', 'json'], want: '{"Name":"shop","Services":"1"}\n' },
    {
      args: ['service', 'ps', 'web'],
      want: [
        'ID             NAME        IMAGE     NODE    DESIRED STATE   CURRENT STATE           ERROR                       PORTS',
        'taskidtaskid   web.1       nginx:1   host1   Running         Running 2 minutes ago                               ',
        'taskidtaskid    \\_ web.1   nginx:1   host1   Shutdown        Failed 2 minutes ago    "task: non-zero exit (3)"   ',
        '',
      ].join('\n'),
    },
    {
      args: [
        'service',
        'inspect',
        '-f',
        '{{range .Endpoint.Ports}}{{.PublishedPort}} {{end}}',
        'web',
      ],
      want: '8080 8081 \n',
    },
    {
      args: ['net', 'doctor'],
      want: /^host1: packets of 1500 bytes, clock -3 ms, 1 difference repaired .*\n2 ways .*\n\nNothing is wrong\.\n$/,
    },
    { args: ['explain', 'web'], want: /^web waits\.\n\n- no node fits\n\n.* ago {2}created\n$/ },
  ]
  for (const { args, want } of shown) {
    test(`skep ${args.join(' ')}`, async () => {
      const { code, stdout, stderr } = await skep(args)
      assert.equal(stderr, '')
      assert.equal(code, 0)
      if (typeof want === 'string') assert.equal(stdout, want)
      else assert.match(stdout, want)
    })
  }

  const completed = [
    { args: ['complete', '--', 'service', 'logs', ''], want: /^web\tservice$/m },
    { args: ['complete', '--', 'service', 'scale', 'w'], want: /^web=\tservice$/m },
    { args: ['complete', '--', 'stack', 'rm', ''], want: /^shop\tstack$/m },
    { args: ['complete', '--', 'service', 'update', '--update-o'], want: /^--update-order\t/m },
    { args: ['completion', 'bash'], want: /complete -F __skep_complete skep/ },
  ]
  for (const { args, want } of completed) {
    test(`a shell that asks ${args.join(' ')} is answered`, async () => {
      const main = join(import.meta.dirname, 'main.ts')
      const { stdout } = await promisify(execFile)(process.execPath, [main, ...args], {
        env: { ...process.env, SKEP_HOST: `unix://${daemon.path}` },
      })
      assert.match(stdout, want)
    })
  }

  test('what the network doctor finds is said, and makes the exit code 1', async () => {
    const { code, stdout } = await skep(['net', 'doctor', '--network', 'net'])
    assert.equal(code, 1)
    assert.match(stdout, /\nhost1, network net: a flaw\.\n {2}Mend it\.\n\n1 finding\.\n$/)
  })

  test('--json is one document of the API objects', async () => {
    const { stdout } = await skep(['service', 'ls', '--json'])
    assert.deepEqual(JSON.parse(stdout), [web])
  })

  const refused = [
    { args: ['service', 'lss'], code: 2, want: /unknown command 'lss' \(did you mean ls\?\)/ },
    {
      args: ['service', 'create', '--replcas', '2', 'a'],
      code: 2,
      want: /did you mean --replicas\?/,
    },
    { args: ['service', 'create', '--replicas', 'x', 'a'], code: 2, want: /not a whole number/ },
    {
      args: ['service', 'create', '--mount', 'type=volume,targt=/a', 'a'],
      code: 2,
      want: /unknown field targt/,
    },
    { args: ['service', 'ls', '--format', '{{.Nam}}'], code: 2, want: /\.Nam is unknown.*\.Name/ },
    { args: ['service', 'ls', '--filter', 'x'], code: 2, want: /not key=value/ },
    { args: ['service', 'scale', 'web'], code: 2, want: /not service=replicas/ },
    { args: ['service', 'create', '--wait', '-d', 'a'], code: 2, want: /contradict/ },
    { args: ['service', 'inspect', 'nope'], code: 1, want: /nope not found/ },
    { args: ['service', 'rollback', '--to', 'x', 'web'], code: 2, want: /no revision/ },
    { args: ['stack', 'deploy', 'st'], code: 2, want: /-c stack\.yml/ },
    {
      args: ['stack', 'deploy', '-c', 'nothere.yml', 'st'],
      code: 1,
      want: /cannot read .*nothere\.yml/,
    },
    { args: ['completion', 'tcsh'], code: 2, want: /Choose bash, zsh, fish/ },
    {
      args: ['-H', 'unix:///nowhere.sock', 'node', 'ls'],
      code: 1,
      want: /no daemon answers at unix:\/\/\/nowhere\.sock.*skep daemon/,
    },
    { args: ['-H', 'ssh://a', 'node', 'ls'], code: 1, want: /does not go over ssh/ },
  ]
  for (const { args, code, want } of refused) {
    test(`skep ${args.join(' ')} is refused in one line`, async () => {
      const answer = await skep(args)
      assert.match(answer.stderr, want)
      assert.equal(answer.stderr.trim().split('\n').length, 1)
      assert.equal(answer.code, code)
    })
  }

  test('service create sends what the flags say, and leaves the command alone', async () => {
    await writeFile(join(directory, 'env'), 'FILE=1\n# no\nSHELL_VAR\n')
    const from = daemon.calls.length
    const { code, stdout } = await skep(
      [
        ...['service', 'create', '--name', 'api', '--replicas', '3', '-p', '3000:3000'],
        ...['-e', 'NODE_ENV=production', '-e', 'SHELL_VAR', '--env-file', join(directory, 'env')],
        ...[
          '--mount',
          'type=volume,source=app-data,target=/app/data',
          '--mount',
          'source=/etc/h,target=/h,type=bind,ro',
        ],
        ...[
          '--network',
          'app',
          '--constraint',
          'node.role==worker',
          '--restart-condition',
          'on-failure',
        ],
        ...['--restart-max-attempts', '3', '--update-parallelism', '1', '--update-delay', '10s'],
        ...[
          '--limit-cpu',
          '0.5',
          '--limit-memory',
          '512M',
          '--secret',
          'source=s,target=t,mode=0400',
        ],
        ...[
          '--health-cmd',
          'true',
          '--health-interval',
          '5s',
          '--detach=true',
          '--init=true',
          '--no-resolve-image',
        ],
        ...['my-api:latest', 'run', '--init=false', '-d'],
      ],
      { env: { SHELL_VAR: 'shell' } },
    )
    assert.equal(code, 0)
    assert.equal(stdout, 'newid\n')
    assert.deepEqual(changes(from), [
      {
        method: 'POST',
        path: '/services/create',
        query: {},
        body: {
          Name: 'api',
          Labels: {},
          TaskTemplate: {
            ContainerSpec: {
              Image: 'my-api:latest',
              Args: ['run', '--init=false', '-d'],
              Init: true,
              Env: ['FILE=1', 'SHELL_VAR=shell', 'NODE_ENV=production'],
              Mounts: [
                { Type: 'volume', Source: 'app-data', Target: '/app/data' },
                { Type: 'bind', Source: '/etc/h', Target: '/h', ReadOnly: true },
              ],
              Secrets: [
                {
                  File: { Name: 't', UID: '0', GID: '0', Mode: 0o400 },
                  SecretID: 'id-s',
                  SecretName: 's',
                },
              ],
              Healthcheck: { Test: ['CMD-SHELL', 'true'], Interval: 5e9 },
            },
            ForceUpdate: 0,
            Resources: { Limits: { NanoCPUs: 5e8, MemoryBytes: 536_870_912 } },
            RestartPolicy: { Condition: 'on-failure', MaxAttempts: 3 },
            Placement: { Constraints: ['node.role==worker'] },
            Networks: [{ Target: 'app' }],
          },
          Mode: { Replicated: { Replicas: 3 } },
          UpdateConfig: {
            Parallelism: 1,
            Delay: 10e9,
            FailureAction: 'pause',
            Monitor: 5e9,
            MaxFailureRatio: 0,
            Order: 'stop-first',
          },
          EndpointSpec: {
            Mode: 'vip',
            Ports: [
              { Protocol: 'tcp', TargetPort: 3000, PublishedPort: 3000, PublishMode: 'ingress' },
            ],
          },
        },
      },
    ])
  })

  test('service update sends the spec as it was, with the change, at the version that was read', async () => {
    const from = daemon.calls.length
    await skep([
      'service',
      'update',
      'web',
      '--env-add',
      'C=3',
      '--env-rm',
      'A',
      '--force',
      '--label-add',
      'x=y',
    ])
    assert.deepEqual(changes(from), [
      {
        method: 'POST',
        path: `/services/${web.ID}/update`,
        query: { version: '7', registryAuthFrom: 'spec' },
        body: {
          ...web.Spec,
          Labels: { ...web.Spec.Labels, x: 'y' },
          TaskTemplate: {
            ContainerSpec: { Image: 'nginx:1', Env: ['B=2', 'C=3'] },
            ForceUpdate: 1,
          },
        },
      },
    ])
  })

  test('a secret comes from standard input and is never shown', async () => {
    const from = daemon.calls.length
    const { stdout, stderr } = await skep(['secret', 'create', 'db', '-'], { input: 'hunter2' })
    assert.deepEqual(changes(from), [
      {
        method: 'POST',
        path: '/secrets/create',
        query: {},
        body: { Name: 'db', Labels: {}, Data: Buffer.from('hunter2').toString('base64') },
      },
    ])
    assert.doesNotMatch(stdout + stderr, /hunter2/)
  })

  test('rollback --to asks for the revision', async () => {
    const from = daemon.calls.length
    await skep(['service', 'rollback', 'web', '--to', '4'])
    assert.deepEqual(
      changes(from).map((call) => JSON.stringify(call)),
      [`{"method":"POST","path":"/skep/v1/services/${web.ID}/rollback","query":{"to":"4"}}`],
    )
  })

  test('rm goes on after a failure and fails in the end', async () => {
    const failing = await openFakeDaemon(join(directory, 'f.sock'), ({ method, path }) =>
      method === 'DELETE' && path === '/configs/a'
        ? { status: 400, json: { message: "config 'a' is in use" } }
        : undefined,
    )
    try {
      const { code, stdout, stderr } = await skep(['config', 'rm', 'a', 'b'], {
        env: { SKEP_HOST: `unix://${failing.path}` },
      })
      assert.deepEqual([code, stdout, stderr], [1, 'b\n', "skep: config 'a' is in use\n"])
    } finally {
      await failing.close()
    }
  })

  test('a wait that meets a paused update fails with the reason', async () => {
    let isUpdated = false
    const pausing = await openFakeDaemon(join(directory, 'p.sock'), (call) => {
      if (call.path.endsWith('/update')) isUpdated = true
      const paused = {
        ...web,
        ...(isUpdated && {
          UpdateStatus: { State: 'paused', Message: 'update paused due to failure' },
        }),
      }
      if (call.path === '/services' && call.method === 'GET') return { json: [paused] }
      if (call.path === `/skep/v1/explain/${web.ID}`) {
        return {
          json: { summary: 'web is paused.', reasons: ['the image is missing'], timeline: [] },
        }
      }
      return cluster(call)
    })
    try {
      const { code, stderr } = await skep(['service', 'scale', 'web=3', '--wait'], {
        env: { SKEP_HOST: `unix://${pausing.path}` },
      })
      assert.equal(code, 1)
      assert.match(stderr, /update paused due to failure/)
      assert.match(stderr, /the image is missing/)
    } finally {
      await pausing.close()
    }
  })
})
