import assert from 'node:assert/strict'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { dockerClients, eventually, run, startDaemon, type TestDaemon } from './support/daemon.ts'
import { onEngine, tasksOf, untilRunning, untilTasks } from './support/look.ts'

const patterns = resolve(import.meta.dirname, '../examples/patterns')
const slowMs = 240_000

/** Every pattern of examples/patterns, deployed and used as its README says, by the stock client. */
describe('the example patterns', () => {
  let daemon: TestDaemon
  const [client = 'docker'] = dockerClients()

  before(async () => {
    daemon = await startDaemon()
    const [id = ''] = (await daemon.ok('node', 'ls', '-q')).split('\n')
    await daemon.ok('node', 'update', '--label-add', 'postgres=primary', id)
    await daemon.ok('node', 'update', '--label-add', 'zone=a', id)
    await daemon.dockerWith(client, 'a password', 'secret', 'create', 'db_password', '-')
  })
  after(async () => {
    await daemon[Symbol.asyncDispose]()
  })

  async function deploy(pattern: string, ...files: readonly string[]): Promise<void> {
    const flags = files.flatMap((file) => ['-c', join(patterns, pattern, file)])
    const words = ['stack', 'deploy', '--resolve-image', 'never', ...flags, 'pat']
    const { code, stderr } = await run(client, ['-H', daemon.host, ...words], {
      env: { STACK: 'pat', PORT: '8088' },
      timeoutMs: slowMs,
    })
    assert.equal(code, 0, stderr)
  }

  /** Removes the stack and its volumes. */
  async function remove(...volumes: readonly string[]): Promise<void> {
    await daemon.ok('stack', 'rm', 'pat')
    await eventually(
      'the stack to be gone',
      async () => {
        const left = await onEngine('ps', '-aq', '--filter', 'label=com.docker.stack.namespace=pat')
        return left === ''
      },
      slowMs,
    )
    for (const volume of volumes) await onEngine('volume', 'rm', '-f', `pat_${volume}`)
  }

  const up = (service: string, count: number) =>
    untilRunning(daemon, `pat_${service}`, count, { withinMs: slowMs })

  /** Runs a command in the first running task of a service; resolves with what it printed. */
  async function inside(service: string, ...command: readonly string[]): Promise<string> {
    const tasks = await tasksOf(daemon, `pat_${service}`)
    const task = tasks.find(({ state, desired }) => state === 'running' && desired === 'running')
    return await daemon.ok('exec', task?.containerId ?? '', ...command)
  }

  const fetched = async (service: string, ...curl: readonly string[]): Promise<unknown> =>
    JSON.parse(await inside(service, 'curl', '-sS', '-m', '30', ...curl))

  const publishedAnswers = (port: number) =>
    eventually(`port ${port} to answer`, async () => {
      const { code } = await run('curl', [
        '-s',
        '-m',
        '5',
        '-o',
        '/dev/null',
        `http://127.0.0.1:${port}/`,
      ])
      return code === 0
    })

  /** Asks again until the answer is as wanted. */
  const answers = (
    service: string,
    url: string,
    wanted: (answer: Record<string, unknown>) => boolean,
  ) =>
    eventually(
      `${service} to see ${url} as wanted`,
      async () => {
        const answer = await fetched(service, url).catch(() => undefined)
        return typeof answer === 'object' && answer !== null && wanted({ ...answer })
      },
      slowMs,
    )

  test('blue-green: green beside blue, switched over, and back', async () => {
    const versions = async () => {
      const { stdout } = await run('curl', ['-s', '-m', '2', 'http://127.0.0.1:8088/'])
      return stdout
    }
    const serves = (version: string) =>
      eventually(
        `the balancer to serve ${version} alone`,
        async () => {
          const seen = await Promise.all(Array.from({ length: 6 }, versions))
          return seen.every((text) => text.includes(`"version": "${version}"`))
        },
        slowMs,
      )
    await deploy('blue-green', 'stack-blue.yaml', 'rest.yaml')
    await up('api-blue', 3)
    await up('balancer', 2)
    await serves('v1.0.0')
    const blue = (await tasksOf(daemon, 'pat_api-blue')).map(({ id }) => id)
    await deploy('blue-green', 'stack-green.yaml', 'rest.yaml')
    await up('api-green', 3)
    await serves('v1.0.0')
    await answers('api-blue', 'http://api-green/health', ({ ok }) => ok === true)
    await deploy('blue-green', 'stack-green.yaml', 'rest.yaml', 'switch.yaml')
    await serves('v1.1.0')
    await deploy('blue-green', 'stack-green.yaml', 'rest.yaml')
    await serves('v1.0.0')
    assert.deepEqual(
      (await tasksOf(daemon, 'pat_api-blue')).map(({ id }) => id),
      blue,
      'blue was never touched',
    )
    await daemon.ok('service', 'rm', 'pat_api-blue')
    await untilGone('pat_api-blue')
    await remove()
  })

  const untilGone = (service: string) =>
    eventually(`${service} to be gone`, async () => {
      const { code } = await daemon.docker('service', 'inspect', service)
      return code !== 0
    })

  test('canary: the share of the traffic is the share of the tasks', async () => {
    await deploy('canary', 'stack.yaml', 'rest.yaml')
    await up('api-stable', 9)
    await up('api-canary', 1)
    const ask = (times: number) =>
      inside(
        'api-canary',
        'sh',
        '-c',
        `for i in $(seq ${times}); do curl -s -m 30 http://api:5000/; done`,
      )
    const share = async () => ((await ask(60)).match(/v1\.1\.0/g)?.length ?? 0) / 60
    /** Tasks run a little before they are sent connections: each of so many has answered. */
    const areServing = async (count: number) => {
      const seen = new Set<string>()
      await eventually(
        `${count} tasks to answer`,
        async () => {
          for (const [name] of (await ask(20)).matchAll(/"host": "[^"]+"/g)) seen.add(name)
          return seen.size >= count
        },
        slowMs,
      )
    }
    await areServing(10)
    // 60 draws of 1 in 10: more than 20 of the new version is one chance in millions.
    assert.ok((await share()) < 1 / 3)
    await daemon.ok('service', 'scale', '-d', 'pat_api-stable=5', 'pat_api-canary=5')
    await up('api-stable', 5)
    await up('api-canary', 5)
    await areServing(10)
    const half = await share()
    assert.ok(half > 0.15 && half < 0.85, `${half} of the requests met the new version`)
    await daemon.ok('service', 'scale', '-d', 'pat_api-stable=0', 'pat_api-canary=10')
    await up('api-canary', 10)
    await untilTasks(daemon, 'pat_api-stable', 'no stable task to run', (tasks) =>
      tasks.every(({ state }) => state !== 'running'),
    )
    assert.equal(await share(), 1)
    await remove()
  })

  test('rolling-update: two at a time, new before old', async () => {
    await deploy('rolling-update', 'stack.yaml')
    await up('api', 6)
    const shown = await daemon.ok('service', 'inspect', '--pretty', 'pat_api')
    assert.match(shown, /Parallelism:\s+2/)
    assert.match(shown, /Update order:\s+start-first/)
    assert.match(shown, /On failure:\s+rollback/)
    await daemon.ok('service', 'update', '-d', '--image', 'myapi:v1.1.0', 'pat_api')
    let fewest = 6
    await untilTasks(
      daemon,
      'pat_api',
      'the first two to be new',
      (tasks) => {
        const serving = tasks.filter(({ state }) => state === 'running')
        fewest = Math.min(fewest, serving.length)
        return serving.filter(({ image }) => image === 'myapi:v1.1.0').length >= 2
      },
      slowMs,
    )
    assert.equal(fewest, 6, 'never fewer than six ran')
    await remove()
  })

  test('single-instance: the database runs where its data is', async () => {
    await deploy('single-instance', 'stack.yaml', 'rest.yaml')
    await up('postgres', 1)
    await eventually(
      'the database to answer',
      () => inside('postgres', 'pg_isready', '-U', 'postgres').catch(() => undefined),
      slowMs,
    )
    await remove('postgres_data')
  })

  test('primary-replica: two replicas follow the primary', async () => {
    await deploy('primary-replica', 'stack.yaml', 'rest.yaml')
    await up('postgres-primary', 1)
    await up('postgres-replica', 2)
    const sql = (service: string, text: string) =>
      inside(service, 'psql', '-U', 'postgres', '-Atc', text)
    await eventually(
      'both replicas to follow',
      async () =>
        (await sql('postgres-primary', 'select count(*) from pg_stat_replication').catch(
          () => '',
        )) === '2',
      slowMs,
    )
    await sql('postgres-primary', 'create table words as select 42 as answer')
    await eventually(
      'the replica to have what the primary wrote',
      async () =>
        (await sql('postgres-replica', 'select answer from words').catch(() => '')) === '42',
      slowMs,
    )
    await remove('postgres_primary_data')
  })

  test('distributed-storage: a driver that is not there is named', async () => {
    await deploy('distributed-storage', 'stack.yaml', 'rest.yaml')
    await untilTasks(
      daemon,
      'pat_postgres',
      'the task to name the driver',
      (tasks) => tasks.some(({ error, message }) => /portworx/.test(`${error} ${message}`)),
      slowMs,
    )
    await remove()
  })

  test('load-balancer: the services keep the labels it reads', async () => {
    await deploy('load-balancer', 'stack.yaml')
    await up('api', 3)
    await up('traefik', 1)
    const labels = await daemon.ok(
      'service',
      'inspect',
      '--format',
      '{{json .Spec.Labels}}',
      'pat_api',
    )
    assert.match(labels, /Host\(`api\.example\.com`\)/)
    await publishedAnswers(80)
    await remove()
  })

  test('sidecar: the proxy is on both networks, with its configuration', async () => {
    await deploy('sidecar', 'stack.yaml', 'rest.yaml')
    await up('api', 1)
    const [proxy] = await up('api-proxy', 1)
    const config = `${proxy?.containerId}:/etc/envoy/envoy.yaml`
    assert.match(await daemon.ok('cp', config, '-'), /STRICT_DNS/)
    // Without a health check a task runs before its program listens.
    await eventually('the api to reach the proxy', () =>
      inside('api', 'curl', '-sS', '-m', '5', 'http://api-proxy:10000/').catch(() => undefined),
    )
    await remove()
  })

  test('job-queue: what the api queues, five workers do', async () => {
    await deploy('job-queue', 'stack.yaml', 'rest.yaml')
    await up('redis', 1)
    await up('api', 1)
    await up('worker', 5)
    // By the way that the jobs take: from then on each of them arrives.
    await answers('api', 'http://api:5000/health', ({ ok }) => ok === true)
    const script =
      'for i in $(seq 40); do curl -sf -m 60 -d job http://api:5000/jobs || exit 1; done'
    await inside('api', 'sh', '-c', script)
    await answers('api', 'http://api:5000/jobs', ({ queued, done }) => queued === 0 && done === 40)
    await remove()
  })

  test('scheduled-tasks: the schedule in the file itself reaches the scheduler', async () => {
    const files = ['stack.yaml', 'rest.yaml'].map((file) => join(patterns, 'scheduled-tasks', file))
    const flags = ['--resolve-image', 'never', ...files.flatMap((file) => ['-c', file])]
    const { code, stderr } = await daemon.skep('stack', 'deploy', ...flags, 'pat')
    assert.equal(code, 0, stderr)
    const [scheduler] = await up('scheduler', 1)
    await up('cleanup', 1)
    const config = `${scheduler?.containerId}:/etc/ofelia/config.ini`
    assert.match(
      await daemon.ok('cp', config, '-'),
      /\[job-exec "cleanup"\]\nschedule = 0 0 \* \* \*/,
    )
    await remove()
  })

  test('one-command: web and database; what the database misses is told', async () => {
    await deploy('one-command', 'stack.yaml')
    await up('web', 3)
    await publishedAnswers(80)
    // The file gives PostgreSQL no password, without which it does not begin.
    await untilTasks(
      daemon,
      'pat_db',
      'the database to fail with its exit code',
      (tasks) => tasks.some(({ state, error }) => state === 'failed' && /exit \(1\)/.test(error)),
      slowMs,
    )
    await remove('db-data')
  })

  test('message-broker: what is produced is consumed', async () => {
    await deploy('message-broker', 'stack.yaml', 'rest.yaml')
    await up('rabbitmq', 1)
    await up('producer', 1)
    await up('consumer', 3)
    await answers('consumer', 'http://127.0.0.1:8080/', ({ done }) => Number(done) > 0)
    await remove('rabbitmq_data')
  })

  test('event-sourcing: three members find each other, projections follow', async () => {
    await deploy('event-sourcing', 'stack.yaml', 'rest.yaml')
    await up('eventstore', 3)
    await up('projection-service', 2)
    // By the way that the event takes, and so often that each member has its turn.
    for (let turn = 0; turn < 6; turn++) {
      await answers('eventstore', 'http://eventstore:2113/health', ({ ok }) => ok === true)
    }
    await inside(
      'eventstore',
      'curl',
      '-sf',
      '-d',
      '{"type":"sale"}',
      'http://eventstore:2113/events',
    )
    await answers('projection-service', 'http://127.0.0.1:8080/', ({ done }) => done === 1)
    await remove()
  })

  test('metrics: the tasks of the global service are found by name', async () => {
    await deploy('metrics', 'stack.yaml', 'rest.yaml')
    await up('prometheus', 1)
    await up('cadvisor', 1)
    await eventually(
      'Prometheus to know its target',
      async () => {
        // Without a health check it counts as running before it listens.
        const ask = ['curl', '-s', 'http://127.0.0.1:9090/api/v1/targets']
        const text = await inside('prometheus', ...ask).catch(() => '')
        return /"job":"cadvisor"/.test(text)
      },
      slowMs,
    )
    await remove('prometheus_data')
  })

  test('logging: one collector a node beside a store', async () => {
    await deploy('logging', 'stack.yaml', 'rest.yaml')
    await up('fluentd', 1)
    await up('elasticsearch', 1)
    await up('kibana', 1)
    await publishedAnswers(5601)
    await remove('es_data')
  })
})
