import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { formCluster, joinCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually, run } from './support/daemon.ts'

interface Answer {
  readonly hostname: string
  readonly peer: string
}

function parseAnswer(text: string): Answer | undefined {
  const hostname = /^hostname: (.*)$/m.exec(text)?.[1]?.trim()
  const peer = /^peer: (.*):\d+$/m.exec(text)?.[1]?.trim()
  return hostname === undefined ? undefined : { hostname, peer: peer ?? '' }
}

describe('the network of several nodes', { skip: (await whyNoLab()) ?? false }, () => {
  let lab: Lab
  let first: LabHost

  const published = async (host: LabHost): Promise<Answer | undefined> =>
    parseAnswer((await run('curl', ['-s', '-m', '10', `http://${host.address}:8080/`])).stdout)
  /** Asks from within the network namespace of the client task on a host. */
  const fromClient = async (host: LabHost, ...words: readonly string[]): Promise<string> => {
    const id = await host.dockerOk('ps', '-q', '--filter', 'name=client')
    const pid = await host.dockerOk('inspect', '-f', '{{.State.Pid}}', id)
    return (await host.run('nsenter', '-t', pid, '-n', ...words)).stdout
  }
  const askVip = async (host: LabHost, vip: string) =>
    parseAnswer(await fromClient(host, 'curl', '-s', '-m', '2', `http://${vip}/`))
  const devices = async (host: LabHost) =>
    (await host.must('ip', '-br', 'link')).split('\n').filter((line) => /^s[kv]-/.test(line))
  const vipOf = async (service: string) => {
    const format = '{{range .Endpoint.VirtualIPs}}{{.NetworkID}} {{.Addr}}\n{{end}}'
    const network = await first.skepDockerOk('network', 'inspect', '-f', '{{.ID}}', 'net')
    const vips = await first.skepDockerOk('service', 'inspect', '-f', format, service)
    const line = vips.split('\n').find((each) => each.startsWith(network))
    return line?.split(' ')[1]?.split('/')[0] ?? ''
  }
  const isRunning = (service: string, count: number) =>
    eventually(`${count} tasks of ${service}`, async () => {
      const text = await first.skepDockerOk(
        ...['service', 'ps', '-f', 'desired-state=running', '--format', '{{.CurrentState}}'],
        service,
      )
      return text.split('\n').filter((line) => line.startsWith('Running')).length === count
    })
  /** A node is told to send connections to its own task after that runs; until then others may serve them. */
  const servesItsOwn = (host: LabHost) =>
    eventually(`${host.name} serves its port itself`, async () => {
      return (await published(host))?.hostname === host.name
    })
  const tasksOn = async (host: LabHost) =>
    (await host.dockerOk('ps', '-q', '--filter', 'name=web.')).split('\n').filter((id) => id !== '')

  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true })
    first = lab.host(1)
    await formCluster(first, {})
    for (const host of lab.hosts.slice(1)) {
      const dataPath = host.number === 3 ? ['--data-path-addr', 'eth0'] : []
      await joinCluster(host, first, 'worker', ...dataPath)
    }
    await first.skepDockerOk('network', 'create', '-d', 'overlay', 'net')
    const onNet = ['service', 'create', '--detach', '--network', 'net', '--name']
    await first.skepDockerOk(
      ...[...onNet, 'client', '--mode', 'global', 'busybox:latest', 'sleep', '100000'],
    )
    await first.skepDockerOk(
      ...[...onNet, 'web', '--replicas', '3', '-p', '8080:80', '--hostname', '{{.Node.Hostname}}'],
      'whoami:v1',
    )
    await isRunning('client', 3)
    await isRunning('web', 3)
    for (const host of lab.hosts) await servesItsOwn(host)
  })
  after(() => lab.down())

  test('names are answered while the engine answers nobody', async () => {
    const vip = await vipOf('web')
    const id = await first.dockerOk('ps', '-q', '--filter', 'name=client')
    const pid = await first.dockerOk('inspect', '-f', '{{.State.Pid}}', id)
    const engine = await first.must('cat', '/run/docker.pid')
    await first.must('kill', '-STOP', engine)
    try {
      const answer = await first.must('nsenter', '-t', pid, '-m', '-n', 'nslookup', 'web')
      assert.ok(answer.includes(vip), answer)
    } finally {
      await first.must('kill', '-CONT', engine)
    }
  })

  test('a VIP reaches the tasks of all nodes from each node', async () => {
    const vip = await vipOf('web')
    for (const host of lab.hosts) {
      const seen = new Set<string>()
      await eventually(`all tasks from ${host.name}`, async () => {
        const answer = await askVip(host, vip)
        if (answer) seen.add(answer.hostname)
        return seen.size === 3
      })
    }
  })

  test('packets are as large as the wire allows, and larger ones still pass', async () => {
    const link = await fromClient(first, 'ip', '-o', 'link', 'show', 'eth0')
    assert.match(link, / mtu 1450 /)
    const vip = await vipOf('web')
    const header = `X-Long: ${'x'.repeat(6000)}`
    for (let round = 0; round < 3; round++) {
      const ask = ['curl', '-s', '-m', '20', '-H', header, `http://${vip}/`]
      const text = await fromClient(first, ...ask)
      assert.notEqual(parseAnswer(text), undefined)
    }
  })

  test('a node with a task of its own serves its port itself, and the task sees the client', async () => {
    const outside = `${first.address.split('.').slice(0, 3).join('.')}.253`
    for (const host of lab.hosts) {
      for (let round = 0; round < 3; round++) {
        assert.deepEqual(await published(host), { hostname: host.name, peer: outside })
      }
    }
  })

  test('a node without a task sends on to those of others', async () => {
    await first.skepDockerOk('service', 'scale', '-d', 'web=1')
    const others = await eventually('one task', async () => {
      const counts = await Promise.all(lab.hosts.map(async (host) => (await tasksOn(host)).length))
      const without = lab.hosts.filter((_, index) => counts[index] === 0)
      return without.length === 2 ? without : undefined
    })
    for (const host of others) {
      const answer = await eventually(`the port of ${host.name}`, () => published(host))
      assert.notEqual(answer.hostname, host.name)
      assert.match(answer.peer, /^10\.0\.0\./)
      // From the node itself too.
      const local = await host.must('curl', '-s', '-m', '20', 'http://localhost:8080/')
      assert.notEqual(parseAnswer(local), undefined)
    }
    await first.skepDockerOk('service', 'scale', '-d', 'web=3')
    await isRunning('web', 3)
  })

  test('what somebody breaks in the kernel is repaired', async () => {
    const host = lab.host(2)
    const vip = await vipOf('web')
    const device = (prefix: string) =>
      devices(host).then((lines) =>
        lines.flatMap((line) => (line.startsWith(prefix) ? [line.split(/[\s@]/)[0] ?? ''] : [])),
      )
    const breakages: readonly (readonly [string, () => Promise<unknown>])[] = [
      ['nftables flushed', () => host.must('nft', 'flush', 'ruleset')],
      [
        'VXLAN devices deleted',
        async () => {
          for (const name of await device('sv-')) await host.must('ip', 'link', 'del', name)
        },
      ],
      [
        'bridges deleted',
        async () => {
          for (const name of await device('sk-')) await host.must('ip', 'link', 'del', name)
        },
      ],
      [
        'forwarding entries flushed',
        async () => {
          for (const name of await device('sv-'))
            await host.must('bridge', 'fdb', 'flush', 'dev', name, 'self')
        },
      ],
    ]
    for (const [what, doIt] of breakages) {
      await doIt()
      await eventually(`repair after ${what}`, async () => {
        const seen = new Set<string>()
        for (let round = 0; round < 6; round++) {
          const answer = await askVip(host, vip)
          if (answer) seen.add(answer.hostname)
        }
        return seen.size === 3 && (await published(host))?.hostname === host.name
      })
    }
  })

  test('a network that nothing uses leaves nothing on any node', async () => {
    await first.skepDockerOk('service', 'rm', 'web', 'client')
    for (const host of lab.hosts) {
      await eventually(`no devices on ${host.name}`, async () => (await devices(host)).length === 0)
    }
    await first.skepDockerOk('network', 'rm', 'net')
  })
})
