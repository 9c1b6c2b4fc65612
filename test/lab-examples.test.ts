import assert from 'node:assert/strict'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { formCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually, run } from './support/daemon.ts'

const patterns = resolve(import.meta.dirname, '../examples/patterns')
const images = [
  'busybox:latest',
  'whoami:v1',
  'nginx:alpine',
  'postgres:13',
  'postgres:15-alpine',
  'redis:7-alpine',
  'myapi:latest',
  'my-api:latest',
  'my-registry.com/api:1.0.0',
]

/** The stacks that need workers, as they stand, on one manager and two workers. */
describe('the example stacks of several hosts', { skip: (await whyNoLab()) ?? false }, () => {
  let lab: Lab
  let first: LabHost

  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true, images })
    first = lab.host(1)
    await formCluster(first, { worker: lab.hosts.slice(1) })
    for (const [node, label] of [
      ['node2', 'zone=a'],
      ['node3', 'zone=b'],
      ['node2', 'environment=production'],
      ['node3', 'environment=production'],
      ['node3', 'storage=ssd'],
    ] as const) {
      await first.skepDockerOk('node', 'update', '--label-add', label, node)
    }
    for (const name of ['db_password', 'api_key']) {
      const { code, stderr } = await run(
        'docker',
        ['-H', first.api, 'secret', 'create', name, '-'],
        { input: `a ${name}` },
      )
      assert.equal(code, 0, stderr)
    }
  })
  after(() => lab?.down())

  async function deploy(pattern: string, ...files: readonly string[]): Promise<void> {
    // A machine that is busy with other things may lose sight of a host for a moment.
    await eventually('all nodes to be ready', async () => {
      const text = await first.skepDockerOk('node', 'ls', '--format', '{{.Status}}')
      return text.split('\n').every((status) => status === 'Ready')
    })
    await first.skepDockerOk(
      ...['stack', 'deploy', '--resolve-image', 'never', '--detach=true'],
      ...files.flatMap((file) => ['-c', join(patterns, pattern, file)]),
      'myapp',
    )
  }
  async function remove(): Promise<void> {
    await first.skepDockerOk('stack', 'rm', 'myapp')
    await eventually('all tasks to be gone', async () => {
      const left = await Promise.all(lab.hosts.map((host) => host.dockerOk('ps', '-q')))
      return left.every((text) => text === '')
    })
  }
  /** `service: running/wanted` for all services, once they are up. */
  const converged = (wanted: string) =>
    eventually(
      `the services to be ${wanted}`,
      async () => {
        const text = await first.skepDockerOk(
          ...['stack', 'services', '--format', '{{.Name}} {{.Replicas}}', 'myapp'],
        )
        return text.split('\n').sort().join(', ') === wanted
      },
      180_000,
    )
  /** Nodes of the running tasks of a service. */
  async function nodesOf(service: string): Promise<readonly string[]> {
    const text = await first.skepDockerOk(
      ...['service', 'ps', '-f', 'desired-state=running', '--format', '{{.Node}}'],
      `myapp_${service}`,
    )
    return text.split('\n').sort()
  }
  const answersOn = (host: LabHost, port: number, wanted: RegExp) =>
    eventually(`${host.address}:${port} to answer ${wanted}`, async () => {
      const { stdout } = await run('curl', ['-s', '-m', '10', `http://${host.address}:${port}/`])
      return wanted.test(stdout)
    })

  test('spread: tasks are even over the zones', async () => {
    await deploy('spread', 'stack.yaml', 'rest.yaml')
    await converged('myapp_api 6/6')
    assert.deepEqual(await nodesOf('api'), ['node2', 'node2', 'node2', 'node3', 'node3', 'node3'])
    await remove()
  })

  test('production: its port answers on every host, from api, database and cache elsewhere', async () => {
    await deploy('production', 'stack.yaml')
    await converged('myapp_api 5/5, myapp_db 1/1, myapp_nginx 2/2, myapp_redis 1/1')
    assert.ok(!(await nodesOf('api')).includes('node1'), 'the api runs on workers only')
    assert.deepEqual(await nodesOf('db'), ['node1'])
    for (const host of lab.hosts) await answersOn(host, 80, /"service": "api", "version": "1.0.0"/)
    await remove()
  })

  test('three-tiers: a stack of web, api and database', async () => {
    await deploy('three-tiers', 'stack.yaml')
    await converged('myapp_api 5/5, myapp_db 1/1, myapp_web 3/3')
    for (const host of lab.hosts) await answersOn(host, 80, /Welcome to nginx/)
    await remove()
  })

  test('production-labels: only nodes with the labels get the tasks', async () => {
    await deploy('production-labels', 'stack.yaml')
    await converged('myapp_api 2/2, myapp_db 1/1, myapp_web 3/3')
    assert.ok(!(await nodesOf('web')).includes('node1'))
    assert.deepEqual(await nodesOf('db'), ['node3'])
    await remove()
  })
})
