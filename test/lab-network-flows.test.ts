import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Probe } from '../src/network/test-bench.ts'
import { formCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually, run } from './support/daemon.ts'

/** Flows of one client: as many sockets, each with a port of its own. */
const flows = Array.from({ length: 8 }, (_, index) => `flow${index}`)

describe('udp, and many ports, between nodes', { skip: (await whyNoLab()) ?? false }, () => {
  let lab: Lab
  let first: LabHost
  let third: LabHost
  const probes: Probe[] = []

  const probe = (enter: readonly string[]): Probe => {
    const made = new Probe(enter)
    probes.push(made)
    return made
  }
  const pidOf = async (host: LabHost, name: string): Promise<string> => {
    const id = await host.dockerOk('ps', '-q', '--filter', `name=${name}.`)
    return host.dockerOk('inspect', '-f', '{{.State.Pid}}', id)
  }
  const inTask = async (host: LabHost, name: string): Promise<Probe> =>
    probe([...host.inside(), 'nsenter', '-t', await pidOf(host, name), '-n'])
  const areRunning = (service: string, count: number) =>
    eventually(`${count} tasks of ${service}`, async () => {
      const format = ['--format', '{{.DesiredState}} {{.CurrentState}}']
      const text = await first.skepDockerOk('service', 'ps', ...format, service)
      const lines = text.split('\n')
      return (
        lines.filter((line) => line.startsWith('Running Running')).length === count &&
        lines.filter((line) => line.includes(' Running')).length === count
      )
    })

  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true })
    first = lab.host(1)
    third = lab.host(3)
    await formCluster(first, { worker: lab.hosts.slice(1) })
    await first.skepDockerOk('network', 'create', '-d', 'overlay', 'net')
    const create = ['service', 'create', '-d', '--no-resolve-image', '--network', 'net', '--name']
    await first.skepDockerOk(
      ...[...create, 'client', '--constraint', 'node.hostname==node3', 'busybox:latest'],
      ...['sleep', '100000'],
    )
    await first.skepDockerOk(
      ...[...create, 'web', '--replicas', '2', '--constraint', 'node.hostname!=node3'],
      ...['-p', '9000:9000/tcp', '-p', '9000:9000/udp', '-p', '9100-9102:9200-9202'],
      ...['--env', 'PORTS=9000,9200,9201,9202', '--hostname', '{{.Node.Hostname}}', 'whoami:v1'],
    )
    await areRunning('client', 1)
    await areRunning('web', 2)
  })
  after(async () => {
    for (const each of probes) each.close()
    await lab?.down()
  })

  test('a range of ports, and one port for tcp and udp, are served by every node', async () => {
    for (const host of lab.hosts) {
      for (const port of [9000, 9100, 9101, 9102]) {
        // A node is told where to send connections after the tasks run.
        const text = await eventually(`an answer of ${host.name}:${port}`, async () => {
          const url = `http://${host.address}:${port}/`
          return (await run('curl', ['-s', '-m', '10', url])).stdout || undefined
        })
        assert.match(text, /^hostname: node[12]$/m, `${host.name}:${port}`)
      }
    }
    assert.notEqual((await run('curl', ['-s', '-m', '2', `${first.address}:9103`])).code, 0)
  })

  test('udp flows to a task on another node go to a living one when it is removed', async () => {
    for (const host of [first, lab.host(2)]) {
      await (await inTask(host, 'web')).do({ op: 'serveUdp', port: 9000, tag: host.name })
    }
    const network = await first.skepDockerOk('network', 'inspect', '-f', '{{.ID}}', 'net')
    const format = '{{range .Endpoint.VirtualIPs}}{{.NetworkID}} {{.Addr}}\n{{end}}'
    const vips = await first.skepDockerOk('service', 'inspect', '-f', format, 'web')
    const vip = vips.split('\n').find((line) => line.startsWith(network))
    const askers = [
      { from: probe([]), host: third.address },
      { from: await inTask(third, 'client'), host: vip?.split(' ')[1]?.split('/')[0] ?? '' },
    ]
    const ask = async () => {
      const answers = askers.map(async ({ from, host }) => {
        const seen: string[] = []
        for (const key of flows) {
          const answer = await from
            .do({ op: 'udp', key, host, port: 9000 })
            .catch((error: unknown) => String(error))
          seen.push(answer.split(' ')[0] ?? '')
        }
        return seen
      })
      return Promise.all(answers)
    }
    const before = await ask()
    for (const seen of before) assert.deepEqual([...new Set(seen)].sort(), ['node1', 'node2'])
    assert.deepEqual(await ask(), before, 'a flow stays where it is')
    await first.skepDockerOk('service', 'scale', '-d', 'web=1')
    await areRunning('web', 1)
    const left =
      (await first.dockerOk('ps', '-q', '--filter', 'name=web.')) === '' ? 'node2' : 'node1'
    for (const seen of await ask()) assert.deepEqual([...new Set(seen)], [left])
  })
})
