import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { type Harness, openHarness } from './testing.ts'

/** The stock CLIs judge: Debian's, and a newer one where there is one. */
const clients = ['/usr/bin/docker', '/usr/local/bin/docker'].filter((path) => existsSync(path))

interface Result {
  readonly code: number
  readonly out: string
  readonly err: string
}

type Docker = (...args: readonly string[]) => Promise<Result>

function dockerOf(path: string, harness: Harness, directory: string): Docker {
  return (...args) =>
    new Promise((resolve) => {
      const env = { PATH: process.env['PATH'] ?? '', HOME: directory }
      const options = { env, cwd: directory, timeout: 180_000 }
      execFile(path, ['-H', harness.host, ...args], options, (error, out, err) => {
        const code = error ? (typeof error.code === 'number' ? error.code : 1) : 0
        resolve({ code, out: out.trim(), err: err.trim() })
      })
    })
}

async function ok(result: Promise<Result>): Promise<string> {
  const { code, out, err } = await result
  assert.equal(code, 0, `${out}\n${err}`)
  return out
}

async function withDocker(
  path: string,
  work: (docker: Docker, harness: Harness, directory: string) => Promise<void>,
  options?: Parameters<typeof openHarness>[0],
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'skep-cli-'))
  const harness = await openHarness(options)
  try {
    await work(dockerOf(path, harness, directory), harness, directory)
  } finally {
    await harness.close()
    await rm(directory, { recursive: true, force: true })
  }
}

test('there is a stock CLI to ask', {
  skip: clients.length > 0 ? false : 'no docker CLI on this machine',
}, () => {
  assert.ok(clients.length > 0)
})

/** Every flag of `service create` that both CLIs have, but for those of Windows. */
const manyFlags = [
  ...[
    '--replicas',
    '3',
    '--publish',
    '8080:80',
    '--publish',
    'mode=host,target=81,published=8081,protocol=udp',
  ],
  ...[
    '--network',
    'name=onet,alias=www',
    '--secret',
    'pw',
    '--secret',
    'source=pw,target=/x/y,uid=1,gid=2,mode=0400',
  ],
  ...[
    '--config',
    'source=cfg,target=/etc/c',
    '--env',
    'A=b',
    '--env',
    'N={{.Node.Hostname}}',
    '--label',
    'l=m',
  ],
  ...[
    '--container-label',
    'cl=cm',
    '--hostname',
    'h-{{.Task.Slot}}',
    '--user',
    '1:2',
    '--workdir',
    '/w',
    '--group',
    '5',
  ],
  ...[
    '--mount',
    'type=volume,source=v,target=/v,volume-driver=local,volume-opt=o=1,volume-label=q=w,volume-nocopy=true',
  ],
  ...[
    '--mount',
    'type=bind,source=/tmp,target=/t,readonly,bind-propagation=rslave',
    '--mount',
    'type=tmpfs,target=/tm,tmpfs-size=1m,tmpfs-mode=1777',
  ],
  ...[
    '--dns',
    '1.1.1.1',
    '--dns-search',
    's',
    '--dns-option',
    'ndots:2',
    '--host',
    'foo:1.2.3.4',
    '--cap-add',
    'NET_ADMIN',
  ],
  ...[
    '--cap-drop',
    'ALL',
    '--sysctl',
    'net.core.somaxconn=5',
    '--ulimit',
    'nofile=10:20',
    '--init',
    '--read-only',
  ],
  ...[
    '--stop-signal',
    'SIGINT',
    '--stop-grace-period',
    '3s',
    '--tty',
    '--log-driver',
    'json-file',
    '--log-opt',
    'max-size=1m',
  ],
  ...[
    '--limit-cpu',
    '.5',
    '--limit-memory',
    '64m',
    '--limit-pids',
    '10',
    '--reserve-cpu',
    '.1',
    '--reserve-memory',
    '32m',
  ],
  ...[
    '--generic-resource',
    'gpu=1',
    '--constraint',
    'node.role==manager',
    '--placement-pref',
    'spread=node.labels.zone',
  ],
  ...[
    '--replicas-max-per-node',
    '5',
    '--restart-condition',
    'on-failure',
    '--restart-delay',
    '1s',
    '--restart-max-attempts',
    '3',
  ],
  ...[
    '--restart-window',
    '10s',
    '--update-parallelism',
    '2',
    '--update-delay',
    '1s',
    '--update-monitor',
    '2s',
  ],
  ...[
    '--update-failure-action',
    'rollback',
    '--update-max-failure-ratio',
    '.1',
    '--update-order',
    'start-first',
  ],
  ...[
    '--rollback-parallelism',
    '3',
    '--rollback-delay',
    '1s',
    '--rollback-monitor',
    '1s',
    '--rollback-failure-action',
    'continue',
  ],
  ...[
    '--rollback-max-failure-ratio',
    '.2',
    '--rollback-order',
    'start-first',
    '--health-cmd',
    'true',
    '--health-interval',
    '1s',
  ],
  ...[
    '--health-timeout',
    '1s',
    '--health-retries',
    '2',
    '--health-start-period',
    '1s',
    '--endpoint-mode',
    'vip',
    '--isolation',
    'default',
  ],
]

for (const path of clients) {
  describe(`with ${path}`, () => {
    test('a swarm is made, shown, changed and left', () =>
      withDocker(
        path,
        async (docker) => {
          const before = await docker('node', 'ls')
          assert.match(before.err, /This node is not a swarm manager/)
          const init = await ok(
            docker(
              ...[
                'swarm',
                'init',
                '--advertise-addr',
                '192.0.2.1',
                '--default-addr-pool',
                '10.20.0.0/16',
                '--default-addr-pool-mask-length',
                '24',
              ],
              ...[
                '--task-history-limit',
                '3',
                '--dispatcher-heartbeat',
                '7s',
                '--cert-expiry',
                '48h',
                '--snapshot-interval',
                '500',
              ],
              ...[
                '--max-snapshots',
                '2',
                '--data-path-port',
                '5789',
                '--availability',
                'active',
                '--autolock',
                '--listen-addr',
                '0.0.0.0:2377',
              ],
            ),
          )
          assert.match(init, /docker swarm join --token SWMTKN-1-/)
          assert.match(init, /SWMKEY-1-/)
          assert.match((await docker('swarm', 'init')).err, /already part of a swarm/)
          const info = await ok(docker('info'))
          for (const line of [
            /Swarm: active/,
            /Is Manager: true/,
            /Managers: 1/,
            /Default Address Pool: 10\.20\.0\.0\/16/,
            /Data Path Port: 5789/,
            /Retention Limit: 3/,
            /Snapshot Interval: 500/,
            /Heartbeat Period: 7 seconds/,
            /Expiry Duration: 2 days/,
            /Autolock Managers: true/,
          ]) {
            assert.match(info, line)
          }
          assert.match(await ok(docker('node', 'ls')), /\* +testhost +Ready +Active +Leader/)
          const token = await ok(docker('swarm', 'join-token', '-q', 'worker'))
          const rotated = await ok(docker('swarm', 'join-token', '--rotate', '-q', 'worker'))
          assert.notEqual(rotated, token)
          assert.match(await ok(docker('swarm', 'unlock-key', '-q')), /^SWMKEY-1-/)
          await ok(docker('swarm', 'update', '--task-history-limit', '9'))
          assert.match(await ok(docker('info')), /Retention Limit: 9/)
          assert.match(await ok(docker('swarm', 'ca')), /BEGIN CERTIFICATE/)
          await ok(docker('swarm', 'ca', '--rotate', '--detach'))
          assert.match(
            (await docker('swarm', 'leave')).err,
            /Removing the last manager erases all current state/,
          )
          await ok(docker('swarm', 'leave', '--force'))
          assert.match(await ok(docker('info')), /Swarm: inactive/)
        },
        { inCluster: false },
      ))

    test('a node is shown and changed, and the last manager stays one', () =>
      withDocker(path, async (docker) => {
        assert.match(
          await ok(docker('node', 'inspect', '--pretty', 'self')),
          /Availability: +\tActive/,
        )
        await ok(
          docker('node', 'update', '--label-add', 'zone=a', '--availability', 'drain', 'testhost'),
        )
        assert.match(await ok(docker('node', 'ls')), /Drain/)
        assert.equal(
          await ok(docker('node', 'inspect', 'self', '-f', '{{.Spec.Labels.zone}}')),
          'a',
        )
        await ok(
          docker('node', 'update', '--label-rm', 'zone', '--availability', 'active', 'testhost'),
        )
        assert.match(
          (await docker('node', 'demote', 'testhost')).err,
          /attempting to demote the last manager of the swarm/,
        )
        assert.match(
          (await docker('node', 'rm', 'testhost')).err,
          /must be demoted to worker before removal/,
        )
      }))

    test('every flag of service create arrives', () =>
      withDocker(path, async (docker, harness, directory) => {
        await writeFile(join(directory, 'data'), 'hunter2')
        await ok(docker('secret', 'create', 'pw', 'data'))
        await ok(docker('config', 'create', 'cfg', 'data'))
        await ok(
          docker(
            'network',
            'create',
            '--driver',
            'overlay',
            '--attachable',
            '--subnet',
            '10.33.0.0/24',
            'onet',
          ),
        )
        await ok(
          docker(
            'service',
            'create',
            '--detach',
            '--name',
            'web',
            ...manyFlags,
            'nginx:1.25',
            'arg',
          ),
        )
        await harness.settled()
        const { view } = harness.store()
        const [workload] = view.byName('workload', 'web')
        const template = workload && view.get('revision', workload.spec.revisionId)?.template
        const [container] = template?.containers ?? []
        assert.ok(workload && template && container)
        assert.deepEqual(workload.spec.mode, { type: 'replicated', replicas: 3 })
        assert.deepEqual(workload.spec.update, {
          parallelism: 2,
          delayMs: 1_000,
          onFailure: 'rollback',
          monitorMs: 2_000,
          maxFailureRatio: workload.spec.update.maxFailureRatio,
          order: 'startFirst',
          progressDeadlineMs: 600_000,
        })
        assert.ok(Math.abs(workload.spec.update.maxFailureRatio - 0.1) < 1e-6)
        assert.equal(workload.spec.rollback.parallelism, 3)
        assert.deepEqual(template.restart, {
          scope: 'task',
          condition: 'onFailure',
          delayMs: 1_000,
          maxAttempts: 3,
          windowMs: 10_000,
        })
        assert.deepEqual(template.placement.spread, ['node.labels.zone'])
        assert.equal(template.placement.maxReplicasPerNode, 5)
        assert.deepEqual(template.reservations, {
          nanoCpus: 1e8,
          memoryBytes: 32 * 2 ** 20,
          generic: [{ kind: 'gpu', value: 1 }],
        })
        assert.deepEqual(container.limits, { nanoCpus: 5e8, memoryBytes: 64 * 2 ** 20, pids: 10 })
        assert.deepEqual(container.args, ['arg'])
        assert.deepEqual(container.env, ['A=b', 'N={{.Node.Hostname}}'])
        assert.deepEqual(container.hosts, [{ name: 'foo', address: '1.2.3.4' }])
        assert.deepEqual(container.capabilitiesAdd, ['CAP_NET_ADMIN'])
        assert.deepEqual(container.capabilitiesDrop, ['ALL'])
        assert.deepEqual(container.ulimits, [{ name: 'nofile', soft: 10, hard: 20 }])
        assert.deepEqual(
          container.mounts.map(({ type }) => type),
          ['volume', 'bind', 'tmpfs'],
        )
        assert.deepEqual(
          // The client sends them in any order.
          new Set(container.secrets.map(({ target, uid, mode }) => `${target} ${uid} ${mode}`)),
          new Set([`pw 0 ${0o444}`, `/x/y 1 ${0o400}`]),
        )
        assert.deepEqual(container.health, {
          test: ['CMD-SHELL', 'true'],
          intervalMs: 1_000,
          timeoutMs: 1_000,
          startPeriodMs: 1_000,
          retries: 2,
        })
        assert.equal(container.stopGraceMs, 3_000)
        assert.equal(container.hostname, 'h-{{.Task.Slot}}')
        assert.equal(container.tty && container.readOnly && container.init, true)
        assert.match(
          await ok(docker('service', 'ls')),
          /web +replicated +3\/3 \(max 5 per node\) +nginx:1\.25 +\*:8080->80\/tcp/,
        )
        assert.match(
          await ok(docker('service', 'ps', 'web')),
          /web\.3 +nginx:1\.25 +testhost +Running +Running/,
        )
        const pretty = await ok(docker('service', 'inspect', '--pretty', 'web'))
        for (const line of [
          /Replicas:\t3/,
          /Update order: +start-first/,
          /On failure:\tcontinue/,
          /PublishedPort = 8080/,
          /Constraints:\t\[node\.role==manager\]/,
        ])
          assert.match(pretty, line)
        assert.match(await ok(docker('service', 'logs', '--raw', 'web')), /hello from/)
        assert.match(
          (await docker('secret', 'rm', 'pw')).err,
          /in use by the following service: web/,
        )
        assert.match((await docker('network', 'rm', 'onet')).err, /is in use by service/)
        await ok(
          docker(
            'service',
            'update',
            '--detach',
            '--image',
            'nginx:1.26',
            '--env-add',
            'C=d',
            '--publish-rm',
            '80',
            '--secret-rm',
            'pw',
            'web',
          ),
        )
        await harness.settled()
        assert.equal(
          await ok(
            docker(
              'service',
              'inspect',
              'web',
              '-f',
              '{{.UpdateStatus.State}} {{.PreviousSpec.TaskTemplate.ContainerSpec.Image}}',
            ),
          ),
          'completed nginx:1.25',
        )
        await ok(docker('service', 'rollback', '--detach', 'web'))
        await harness.settled()
        assert.equal(
          await ok(
            docker(
              'service',
              'inspect',
              'web',
              '-f',
              '{{.UpdateStatus.State}} {{.Spec.TaskTemplate.ContainerSpec.Image}}',
            ),
          ),
          'rollback_completed nginx:1.25',
        )
        await ok(docker('service', 'scale', '--detach', 'web=5'))
        await ok(docker('service', 'rm', 'web'))
        assert.match((await docker('service', 'ps', 'web')).err, /no such service: web/)
        assert.match(await ok(docker('network', 'prune', '--force')), /onet/)
      }))

    test('waits until a service has converged', () =>
      withDocker(path, async (docker) => {
        const out = await ok(
          docker('service', 'create', '--name', 'w', '--update-monitor', '1s', 'nginx'),
        )
        assert.match(out, /converged/)
        assert.match(
          await ok(
            docker(
              'service',
              'create',
              '--name',
              'g',
              '--mode',
              'global',
              '--update-monitor',
              '1s',
              'nginx',
            ),
          ),
          /converged/,
        )
        await ok(
          docker(
            'service',
            'create',
            '--name',
            'j',
            '--mode',
            'replicated-job',
            '--replicas',
            '3',
            '--max-concurrent',
            '2',
            'busybox',
            'true',
          ),
        )
        await ok(
          docker('service', 'create', '--name', 'gj', '--mode', 'global-job', 'busybox', 'true'),
        )
        const list = await ok(docker('service', 'ls'))
        assert.match(list, /j +replicated job +0\/2 \(3\/3 completed\)/)
        assert.match(list, /gj +global job +0\/0 \(1\/1 completed\)/)
      }))

    test('a stack that is deployed again changes nothing', () =>
      withDocker(path, async (docker, harness, directory) => {
        await writeFile(join(directory, 'a.yml'), stackFile)
        await writeFile(join(directory, 'pw'), 'hunter2')
        await ok(docker('stack', 'deploy', '--compose-file', 'a.yml', 'st'))
        await harness.settled()
        const versions = () =>
          ok(
            docker(
              'service',
              'inspect',
              'st_web',
              'st_db',
              'st_job',
              '-f',
              '{{.Version.Index}} {{.UpdateStatus}}',
            ),
          )
        const first = await versions()
        const tasks = harness.store().view.count('task')
        await ok(docker('stack', 'deploy', '--compose-file', 'a.yml', 'st'))
        await harness.settled()
        assert.equal(await versions(), first)
        assert.equal(harness.store().view.count('task'), tasks)
        assert.match(await ok(docker('stack', 'ls')), /st +3/)
        assert.match(await ok(docker('stack', 'services', 'st')), /st_web +replicated +2\/2/)
        assert.match(await ok(docker('stack', 'ps', 'st')), /st_web\.2/)
        await writeFile(join(directory, 'pw'), 'changed')
        assert.match(
          (await docker('stack', 'deploy', '--compose-file', 'a.yml', 'st')).err,
          /only updates to Labels are allowed/,
        )
        await writeFile(join(directory, 'pw'), 'hunter2')
        await writeFile(
          join(directory, 'b.yml'),
          stackFile
            .replace('nginx:1.25', 'nginx:1.26')
            .replace(/ {2}db:[\s\S]*? {2}job:/, '  job:'),
        )
        await ok(docker('stack', 'deploy', '--prune', '--compose-file', 'b.yml', 'st'))
        await harness.settled()
        assert.equal(
          await ok(docker('service', 'inspect', 'st_web', '-f', '{{.UpdateStatus.State}}')),
          'completed',
        )
        assert.match((await docker('service', 'inspect', 'st_db')).err, /no such service/i)
        await ok(docker('stack', 'rm', 'st'))
        assert.equal(harness.store().view.count('workload'), 0)
        assert.deepEqual(
          [...harness.store().view.list('network')].map(({ name }) => name),
          ['ingress', 'host', 'bridge', 'none'],
        )
      }))
  })
}

const stackFile = `
version: '3.8'
services:
  web:
    image: nginx:1.25
    ports: ["8080:80"]
    networks: [front, back]
    secrets: [pw]
    configs: [{source: c, target: /etc/c}]
    environment: {ONE: "1", TWO: "2"}
    healthcheck: {test: ["CMD", "true"], interval: 10s}
    volumes: ["data:/data"]
    deploy:
      replicas: 2
      labels: {a: b}
      update_config: {parallelism: 1, order: start-first}
      restart_policy: {condition: on-failure}
      placement: {constraints: ["node.role == manager"], preferences: [{spread: node.labels.zone}]}
      resources: {limits: {cpus: "0.5", memory: 64M}, reservations: {memory: 32M}}
  db:
    image: redis:7
    networks: [back]
    deploy: {mode: global}
  job:
    image: busybox
    command: ["true"]
    networks: [back]
networks: {front: {}, back: {driver: overlay, attachable: true}}
secrets: {pw: {file: ./pw}}
configs: {c: {file: ./pw}}
volumes: {data: {}}
`
