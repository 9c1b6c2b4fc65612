import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { formCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually, run } from './support/daemon.ts'

async function whyNot(): Promise<string | false> {
  const why = await whyNoLab()
  if (why !== undefined) return why
  for (const program of ['wg', 'wireguard-go']) {
    if ((await run('which', [program])).code !== 0) return `needs ${program}`
  }
  return false
}

/** Counts what comes in from other hosts: packets of cluster networks as they are, and those of the tunnel. */
const watch = [
  'table inet watch {',
  'counter plain {}',
  'counter sealed {}',
  'chain in {',
  'type filter hook prerouting priority -350',
  'iifname eth0 udp dport 4789 counter name plain',
  'iifname eth0 udp dport 4790 counter name sealed',
  '}',
  '}',
].join('\\n')

describe('an encrypted network of several nodes', { skip: await whyNot() }, () => {
  let lab: Lab
  let one: LabHost
  let two: LabHost
  const packets = async (host: LabHost, counter: string): Promise<number> => {
    const text = await host.must('nft', 'list', 'counter', 'inet', 'watch', counter)
    return Number(/packets (\d+)/.exec(text)?.[1])
  }
  const client = (host: LabHost): Promise<string> =>
    host.dockerOk('ps', '-q', '--filter', 'name=client')
  const clientPid = async (host: LabHost): Promise<string> =>
    await host.dockerOk('inspect', '-f', '{{.State.Pid}}', await client(host))
  /** Asks every task of `web` from a container of the host. */
  const reachesAll = async (host: LabHost): Promise<boolean> => {
    const asker = await client(host)
    if (asker === '') return false
    const { stdout } = await host.docker('exec', asker, 'nslookup', '-type=a', 'tasks.web')
    const addresses = [...stdout.matchAll(/^Address: (\d+\.\d+\.\d+\.\d+)$/gm)].map(
      ([, address]) => address ?? '',
    )
    const pid = await clientPid(host)
    const answers = await Promise.all(
      addresses.map((address) =>
        host.run('nsenter', '-t', pid, '-n', 'curl', '-s', '-m', '2', `http://${address}/`),
      ),
    )
    return answers.filter((answer) => answer.stdout.includes('hostname')).length === 2
  }

  before(async () => {
    lab = await openLab({ hosts: 2, daemons: true })
    const [first, second] = lab.hosts
    assert(first && second)
    one = first
    two = second
    await formCluster(one, { worker: [two] })
    for (const host of lab.hosts) await host.must('sh', '-c', `printf '${watch}\\n' | nft -f -`)
  })
  after(() => lab.down())

  test('its packets go through the tunnel, and none goes in plain', async () => {
    await one.skepDockerOk('network', 'create', '-d', 'overlay', '--opt', 'encrypted', 'net')
    const onNet = ['service', 'create', '--detach', '--network', 'net', '--mode', 'global']
    await one.skepDockerOk(...onNet, '--name', 'client', 'busybox:latest', 'sleep', '100000')
    await one.skepDockerOk(...onNet, '--name', 'web', 'whoami:v1')
    for (const host of lab.hosts) {
      await eventually(`all tasks from ${host.name}`, () => reachesAll(host))
    }
    for (const host of lab.hosts) {
      assert.equal(await packets(host, 'plain'), 0)
      assert.notEqual(await packets(host, 'sealed'), 0)
    }
    const link = await one.must(
      ...['nsenter', '-t', await clientPid(one), '-n', 'ip', '-o', 'link', 'show', 'eth0'],
    )
    assert.match(link, / mtu 1370 /)
  })

  test('the key is its node’s own', async () => {
    const { folder } = one
    const listed = await one.must('find', folder, '-name', 'wireguard.key', '-perm', '600')
    assert.notEqual(listed, '')
    const key = (await one.must('sh', '-c', `cat $(find ${folder} -name wireguard.key)`)).trim()
    const nodes = await one.skepDockerOk('node', 'inspect', 'self')
    assert.ok(!nodes.includes(key))
    assert.ok(!(await two.must('wg', 'show', 'all', 'dump')).includes(key))
  })

  test('a tunnel that somebody deletes is made anew, and nothing goes in plain meanwhile', async () => {
    const device = /^(sw-\S+):/.exec((await two.must('wg', 'show')).replace('interface: ', ''))
    const name = device?.[1] ?? /sw-\w+/.exec(await two.must('ip', '-br', 'link'))?.[0] ?? ''
    await two.must('ip', 'link', 'del', name)
    // Where packets would go now that the tunnel's routes are gone.
    await two.must('ip', '-6', 'address', 'add', 'fd00:77::2/64', 'dev', 'eth0', 'nodad')
    await two.must('ip', '-6', 'route', 'add', 'default', 'via', 'fd00:77::1', 'dev', 'eth0')
    await eventually('the tunnel is back', () => reachesAll(two))
    for (const host of lab.hosts) assert.equal(await packets(host, 'plain'), 0)
  })

  test('packets of a network that is not encrypted are counted as plain', async () => {
    await one.skepDockerOk('network', 'create', '-d', 'overlay', 'open')
    await one.skepDockerOk(
      ...['service', 'create', '--detach', '--network', 'open', '--mode', 'global'],
      ...['--name', 'plain', 'busybox:latest', 'sleep', '100000'],
    )
    await eventually('a plain packet', async () => {
      const id = await one.dockerOk('ps', '-q', '--filter', 'name=plain')
      const ping =
        'for a in $(nslookup -type=a tasks.plain | grep -o 10[.0-9]*); do ping -c1 -W1 $a; done'
      await one.docker('exec', id, 'sh', '-c', ping)
      return (await packets(two, 'plain')) > 0
    })
  })

  test('a node that can not encrypt is named, and gets no tasks of such networks', async () => {
    await two.must('mount', '--bind', '/bin/false', '/usr/bin/wg')
    await two.stopDaemon()
    await two.startDaemon()
    await eventually('the managers know', async () => {
      const made = await one.skepDocker(
        ...['network', 'create', '-d', 'overlay', '--opt', 'encrypted', 'other'],
      )
      if (made.code === 0) await one.skepDockerOk('network', 'rm', 'other')
      return /these have none: node2 \(wg .* is not installed\)/.test(made.stderr)
    })
    await one.skepDockerOk(
      ...['service', 'create', '--detach', '--network', 'net', '--name', 'pinned'],
      ...['--constraint', 'node.hostname==node2', 'busybox:latest', 'sleep', '100000'],
    )
    await eventually('the reason', async () => {
      const text = await one.skepDockerOk('service', 'ps', '--no-trunc', 'pinned')
      return /missing plugin on \d nodes?: encryption wireguard|encryption wireguard/.test(text)
    })
  })
})
