import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { getPriority } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { idFrom } from '../model/index.ts'
import type { EndpointAssignment, NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import type { LocalTask } from './data-plane.ts'
import { type Probe, parseWhoami, RealBench, whyNotReal } from './test-bench.ts'
import { backendOf, buildEndpoint } from './test-objects.ts'

const reason = await whyNotReal()

describe('the Linux data plane', { skip: reason ?? false, concurrency: false }, () => {
  let bench: RealBench
  let ingress: NetworkAssignment
  let front: NetworkAssignment
  let inner: NetworkAssignment
  let one: LocalTask
  let two: LocalTask
  let asking: LocalTask
  let hidden: LocalTask
  let plain: LocalTask
  let host: Probe
  let client: Probe
  let secluded: Probe
  let server: Probe
  let outside: Probe
  const vip = '10.213.2.100'
  const innerVip = '10.213.3.100'
  const port = 28_431
  const hostAddress = '10.214.0.1'
  const clientAddress = '10.214.0.2'

  const apply = (
    endpoints: readonly EndpointAssignment[],
    lost: readonly ReturnType<typeof lostNeighbour>[] = [],
    tasks: readonly LocalTask[] = [one, two, asking, hidden],
  ) =>
    bench.plane.apply({
      networks: [ingress, front, inner],
      endpoints,
      tasks,
      ...(lost.length > 0 && {
        neighbours: new Map(lost.map((neighbour) => [neighbour.id, neighbour])),
      }),
    })
  const web = (backends: readonly LocalTask[], extra: Partial<EndpointAssignment> = {}) =>
    buildEndpoint('stack_web', {
      networks: [
        { networkId: front.id, vip, aliases: ['web', 'Shop'] },
        { networkId: inner.id, vip: innerVip, aliases: [] },
      ],
      backends: backends.map((task) => backendOf(task)),
      ports: [
        { protocol: 'tcp', publishedPort: port },
        { protocol: 'udp', publishedPort: port, targetPort: 9000 },
      ],
      ...extra,
    })

  /** For how long the kernel remembers a connection that was reset, in seconds. */
  const closeLimit = 'net.netfilter.nf_conntrack_tcp_timeout_close'

  before(async () => {
    // Forgotten by itself only long after a test has given up.
    const before = execFileSync('sysctl', ['-n', closeLimit], { encoding: 'utf8' }).trim()
    execFileSync('sysctl', ['-qw', `${closeLimit}=600`])
    try {
      bench = await RealBench.open('net-a')
    } finally {
      execFileSync('sysctl', ['-qw', `${closeLimit}=${before}`])
    }
    ingress = bench.network('ingress', 1, { ingress: true })
    front = bench.network('front', 2)
    inner = bench.network('inner', 3, { internal: true })
    for (const network of [ingress, front, inner]) await bench.plane.ensureNetwork(network)
    ;[one, two, asking, hidden, plain] = await Promise.all([
      bench.container(
        'one',
        [
          { network: front, address: '10.213.2.11' },
          { network: inner, address: '10.213.3.11' },
          { network: ingress, address: '10.213.1.11' },
        ],
        { server: true },
      ),
      bench.container(
        'two',
        [
          { network: front, address: '10.213.2.12' },
          { network: inner, address: '10.213.3.12' },
          { network: ingress, address: '10.213.1.12' },
        ],
        { server: true },
      ),
      bench.container('asking', [{ network: front, address: '10.213.2.13' }]),
      bench.container('hidden', [{ network: inner, address: '10.213.3.14' }]),
      bench.container('plain', []),
    ])
    // Another machine: a namespace behind a cable of its own.
    const ip = (text: string) => execFileSync('ip', text.split(' '))
    ip('netns add net-a-out')
    bench.onClose(() => {
      execFileSync('ip', ['netns', 'del', 'net-a-out'])
    })
    ip('link add net-a-h type veth peer name net-a-c netns net-a-out')
    ip(`address add ${hostAddress}/24 dev net-a-h`)
    ip('link set net-a-h up')
    ip(`-n net-a-out address add ${clientAddress}/24 dev net-a-c`)
    ip('-n net-a-out link set net-a-c up')
    ip(`-n net-a-out route add default via ${hostAddress}`)
    host = bench.probe('host')
    client = bench.probe(asking)
    secluded = bench.probe(hidden)
    server = bench.probe(one)
    outside = bench.probeBy(['ip', 'netns', 'exec', 'net-a-out'])
    await server.do({ op: 'serveUdp', port: 9000, tag: 'one' })
    await bench.probe(two).do({ op: 'serveUdp', port: 9000, tag: 'two' })
  })
  after(() => bench?.close())

  const countBy = async (probe: Probe, target: string, atPort: number, times: number) => {
    const counts: Record<string, number> = {}
    for (let index = 0; index < times; index++) {
      const { hostname } = await probe.http(target, atPort)
      counts[hostname] = (counts[hostname] ?? 0) + 1
    }
    return counts
  }

  test('a VIP spreads connections over its backends, by weight', async () => {
    await apply([web([one, two])])
    assert.deepEqual(await countBy(client, vip, 80, 20), { one: 10, two: 10 })
    await apply([web([], { backends: [backendOf(one, 3), backendOf(two, 1)] })])
    assert.deepEqual(await countBy(client, vip, 80, 20), { one: 15, two: 5 })
  })

  test('a VIP answers a ping, and a task reaches itself through its own', async () => {
    await apply([web([one])])
    execFileSync('docker', ['exec', 'net-a-asking', 'ping', '-c1', '-W2', vip])
    assert.equal((await server.http(vip, 80)).hostname, 'one')
  })

  test('a VIP and a port with no backend refuse at once', async () => {
    await apply([web([])])
    await assert.rejects(client.http(vip, 80), /ECONNREFUSED/)
    for (const address of ['127.0.0.1', hostAddress]) {
      await assert.rejects(host.http(address, port), /ECONNREFUSED/)
    }
    await assert.rejects(outside.http(hostAddress, port), /ECONNREFUSED/)
  })

  test('a published port answers on every address and from everywhere, and sees who asks', async () => {
    await apply([web([one, two])])
    assert.deepEqual(await countBy(host, '127.0.0.1', port, 10), { one: 5, two: 5 })
    assert.equal((await host.http(hostAddress, port)).peer, hostAddress)
    assert.equal((await outside.http(hostAddress, port)).peer, clientAddress)
    // From a container on the backends' own network, on an internal one, on none of the cluster's, and from itself.
    assert.deepEqual(await countBy(client, hostAddress, port, 10), { one: 5, two: 5 })
    assert.equal((await client.http(hostAddress, port)).peer, '10.213.2.13')
    assert.equal((await client.http(front.gateway, port)).peer, '10.213.2.13')
    assert.equal((await secluded.http(inner.gateway, port)).peer, '10.213.3.14')
    await assert.doesNotReject(bench.probe(plain).http(hostAddress, port))
    await apply([web([one])])
    assert.equal((await server.http(hostAddress, port)).hostname, 'one')
  })

  test('a task without an address on the ingress network serves its port all the same', async () => {
    const addresses = { [inner.id]: '10.213.3.11' }
    await apply([web([], { backends: [{ ...backendOf(one), addresses }] })])
    assert.equal((await outside.http(hostAddress, port)).hostname, 'one')
    assert.equal((await host.http('127.0.0.1', port)).hostname, 'one')
    assert.equal((await secluded.http(inner.gateway, port)).hostname, 'one')
  })

  test('a published udp port answers, and moves to another task when one is removed', async () => {
    const ask = (probe: Probe, address: string) =>
      probe.do({ op: 'udp', key: 'flow', host: address, port })
    await apply([web([one])])
    assert.equal(await ask(outside, hostAddress), `one ${clientAddress}`)
    assert.match(await ask(host, '127.0.0.1'), /^one /)
    await apply([web([two])])
    assert.equal(await ask(outside, hostAddress), `two ${clientAddress}`)
    assert.match(await ask(host, '127.0.0.1'), /^two /)
  })

  test('a udp flow to a VIP moves to another task when one is removed', async () => {
    const ask = () => client.do({ op: 'udp', key: 'vip', host: vip, port: 9000 })
    await apply([web([one])])
    assert.match(await ask(), /^one /)
    await apply([web([two])])
    assert.match(await ask(), /^two /)
  })

  test('a udp flow to a VIP where none was expected moves soon, and from then on at once', async () => {
    const other = '10.213.2.103'
    const networks = [{ networkId: front.id, vip: other, aliases: [] }]
    const ask = () => client.do({ op: 'udp', key: 'other', host: other, port: 9000 })
    const send = (task: LocalTask) => apply([web([task], { networks, ports: [] })])
    await send(one)
    assert.match(String(await ask()), /^one /)
    await send(two)
    await waitFor(async () => String(await ask()).startsWith('two '))
    await send(one)
    assert.match(String(await ask()), /^one /)
  })

  test('open connections to a removed task go on, new ones go elsewhere, and open ones are counted', async () => {
    await apply([web([one])])
    // What asked before has closed its connections: the server comes to know a moment later.
    await waitFor(async () => (await bench.plane.openConnections(one)) === 0)
    await client.do({ op: 'hold', key: 'vip', host: vip, port: 80 })
    await outside.do({ op: 'hold', key: 'port', host: hostAddress, port })
    assert.equal(await bench.plane.openConnections(one), 2)
    const ports = [{ port: 80 }, { port: 81 }]
    assert.deepEqual(await bench.plane.silentPorts(one, ports), [{ port: 81 }])
    await apply([web([two])])
    assert.deepEqual(await countBy(client, vip, 80, 4), { two: 4 })
    assert.deepEqual(await countBy(outside, hostAddress, port, 4), { two: 4 })
    assert.equal(parseWhoami(await client.do({ op: 'ask', key: 'vip' })).hostname, 'one')
    assert.equal(parseWhoami(await outside.do({ op: 'ask', key: 'port' })).hostname, 'one')
  })

  test('open connections to a task whose node fell silent are reset, those to others go on', async () => {
    const lost = [lostNeighbour(front, '10.213.2.11'), lostNeighbour(ingress, '10.213.1.11')]
    const hold = async (key: string) => {
      await client.do({ op: 'hold', key: `vip ${key}`, host: vip, port: 80 })
      await host.do({ op: 'hold', key: `own ${key}`, host: '127.0.0.1', port })
      await outside.do({ op: 'hold', key: `port ${key}`, host: hostAddress, port })
    }
    const ask = (key: string) => [
      client.do({ op: 'ask', key: `vip ${key}` }),
      host.do({ op: 'ask', key: `own ${key}` }),
      outside.do({ op: 'ask', key: `port ${key}` }),
    ]
    await apply([web([one])])
    await hold('one')
    await apply([web([two])])
    await hold('two')
    await apply([web([two])], lost)
    await Promise.all(ask('one').map((asked) => assert.rejects(asked, /ECONNRESET/)))
    for (const asked of ask('two')) assert.equal(parseWhoami(await asked).hostname, 'two')
    await assert.rejects(client.http('10.213.2.11', 80), /ECONNREFUSED/)
    await apply([web([one, two])])
    assert.equal((await client.http('10.213.2.11', 80)).hostname, 'one')
  })

  /** While it is done the first task hears and says nothing, as if its node had no power. */
  const whileSilent = async (work: () => Promise<void>) => {
    const inside = (script: string) =>
      execFileSync('nsenter', ['-t', `${one.pid}`, '-n', 'nft', script])
    const holes = ['input', 'output'].map(
      (hook) => `chain ${hook} { type filter hook ${hook} priority 0; policy drop; };`,
    )
    inside(`table ip silent { ${holes.join(' ')} }`)
    try {
      await work()
    } finally {
      inside('delete table ip silent')
    }
  }

  test('a port whose connection was reset with a lost task is soon as good as any', async () => {
    const lost = [lostNeighbour(front, '10.213.2.11'), lostNeighbour(ingress, '10.213.1.11')]
    await apply([web([one])])
    const asks = await Promise.all(
      [
        { probe: client, where: { host: vip, port: 80 } },
        { probe: outside, where: { host: hostAddress, port } },
      ].map(async ({ probe, where }) => {
        const localPort = Number(await probe.do({ op: 'hold', key: 'reset', ...where }))
        return { probe, where: { ...where, localPort } }
      }),
    )
    await whileSilent(async () => {
      await apply([web([one])], lost)
      for (const { probe } of asks)
        await assert.rejects(probe.do({ op: 'ask', key: 'reset' }), /ECONNRESET/)
      await apply([web([two])], lost)
      for (const { probe, where } of asks) {
        const answerer = async () => parseWhoami(await probe.do({ op: 'http', ...where })).hostname
        await waitFor(async () => (await answerer().catch(() => '')) === 'two')
      }
    })
    await apply([web([one, two])])
  })

  test('what went on to a removed task is forgotten with the task, or its node', async () => {
    const lost = [lostNeighbour(front, '10.213.2.11')]
    for (const end of [
      () => apply([web([two])], lost),
      () => apply([web([two])], [], [two, asking, hidden]),
    ]) {
      await apply([web([one])])
      const sourcePort = await client.do({ op: 'hold', key: 'left', host: vip, port: 80 })
      const kind = ['-p', 'tcp', '--orig-dst', vip, '--orig-port-src', sourcePort]
      const listing = () => spawnSync('conntrack', ['-L', ...kind], { encoding: 'utf8' }).stdout
      await apply([web([two])])
      await whileSilent(async () => {
        assert.match(listing(), /ESTABLISHED/)
        await end()
        await waitFor(() => Promise.resolve(listing() === ''))
        await assert.rejects(client.do({ op: 'ask', key: 'left' }), /ECONNRESET/)
      })
    }
    await apply([web([one, two])])
  })

  test('what is finished is soon forgotten, whatever changed meanwhile', async () => {
    await apply([web([one, two])])
    const key = 'finished'
    const clientPort = await client.do({ op: 'hold', key, host: vip, port: 80 })
    const outsidePort = await outside.do({ op: 'hold', key, host: hostAddress, port })
    for (const probe of [client, outside]) await probe.do({ op: 'ask', key })
    await apply([web([one])])
    await apply([web([two, one])])
    for (const probe of [client, outside]) await probe.do({ op: 'end', key })
    for (const [target, sourcePort] of [
      [vip, clientPort],
      [hostAddress, outsidePort],
    ] as const) {
      const kind = ['-p', 'tcp', '--orig-dst', target, '--orig-port-src', sourcePort]
      await waitFor(async () => {
        const listing = spawnSync('conntrack', ['-L', ...kind], { encoding: 'utf8' }).stdout
        // The kernel's own memory of it would last for two minutes.
        return !/^tcp +6 (?:[6-9]|\d\d+) /m.test(listing)
      }, `${target} to be forgotten`)
    }
  })

  /** Both begin while the first task says nothing, and are answered by the other one once that is all there is. */
  const goesToAnother = async (leave: () => Promise<void>) => {
    await whileSilent(async () => {
      await apply([web([one])])
      const answers = Promise.all([client.http(vip, 80), outside.http(hostAddress, port)])
      await sleep(200)
      await leave()
      const hostnames = (await answers).map(({ hostname }) => hostname)
      assert.deepEqual(hostnames, ['two', 'two'])
    })
    await apply([web([one, two])])
  }

  test('a connection that is being opened to a node that fell silent goes to another task', () => {
    const lost = [lostNeighbour(front, '10.213.2.11'), lostNeighbour(ingress, '10.213.1.11')]
    return goesToAnother(() => apply([web([two])], lost))
  })

  test('a connection that a removed task has not answered goes to another one', () =>
    goesToAnother(() => apply([web([two])])))

  test('names resolve through the engine, on internal networks too, scoped by network', async () => {
    const back = buildEndpoint('back', {
      mode: 'dnsrr',
      networks: [{ networkId: inner.id, aliases: [] }],
      backends: [backendOf(one), backendOf(two)],
    })
    await apply([web([one, two]), back])
    const engine = '127.0.0.11'
    for (const name of ['stack_web', 'web', 'shop', 'SHOP', 'web.stack']) {
      assert.deepEqual(await client.dns(engine, name), { code: 0, data: [vip] }, name)
    }
    assert.deepEqual(await secluded.dns(engine, 'stack_web'), { code: 0, data: [innerVip] })
    const tasks = await client.dns(engine, 'tasks.web')
    assert.deepEqual(tasks.data.toSorted(), ['10.213.2.11', '10.213.2.12'])
    assert.deepEqual((await secluded.dns(engine, 'back')).data.toSorted(), [
      '10.213.3.11',
      '10.213.3.12',
    ])
    assert.deepEqual(await client.dns(front.gateway, 'net-a-one'), {
      code: 0,
      data: ['10.213.2.11'],
    })
    assert.deepEqual(await client.dns(front.gateway, 'web', 'AAAA'), { code: 0, data: [] })
    assert.deepEqual(await client.dns(front.gateway, '100.2.213.10.in-addr.arpa', 'PTR', 'tcp'), {
      code: 0,
      data: ['stack_web'],
    })
    // On a network it is not on, the name is somebody else's business.
    assert.deepEqual((await client.dns(front.gateway, 'back')).data, [])
    // Who is on no network of the cluster is refused.
    assert.equal((await outside.dns(front.gateway, 'web')).code, 5)
  })

  test('the audit finds nothing in order, and repairs what somebody broke', async () => {
    await apply([web([one, two])])
    for (let round = 0; round < 3; round++) assert.deepEqual(await bench.plane.audit(), [])
    // Nothing is plugged into this one.
    const idle = bench.network('idle', 4)
    await bench.plane.apply({ networks: [ingress, front, inner, idle], endpoints: [], tasks: [] })
    assert.deepEqual(await bench.plane.audit(), [])
    await apply([web([one, two])])
    const breakages: readonly (readonly [string, readonly string[], RegExp])[] = [
      ['nft', ['flush', 'table', 'ip', 'net-a'], /rules of the host/],
      ['nft', ['delete', 'table', 'ip', 'net-a'], /rules of the host/],
      ['ip', ['route', 'flush', 'table', 'local', 'proto', '179'], /routes by which .* VIPs/],
      [
        'ip',
        ['link', 'set', bridgeName(front.id), 'type', 'bridge', 'nf_call_iptables', '0'],
        /did not ask the host's rules/,
      ],
      ['iptables', ['-F', 'DOCKER-USER'], /forwarding rule/],
      ['sysctl', ['-qw', `net.ipv4.conf.${bridgeName(ingress.id)}.route_localnet=0`], /settings/],
      ['ip', ['link', 'set', bridgeName(ingress.id), 'down'], /bridge .* was broken/],
      ['ip', ['link', 'del', bridgeName(front.id)], /bridge .* was broken/],
    ]
    for (const [program, args, expected] of breakages) {
      execFileSync(program, args)
      const why = `after ${program} ${args.join(' ')}`
      // On a busy machine a table that was slow to list has its next turn some seconds later.
      const found: string[] = []
      await waitFor(async () => {
        found.push(...(await bench.plane.audit()))
        return expected.test(found.join('\n'))
      }, `${expected} to be found ${why}`)
      await assert.doesNotReject(outside.http(hostAddress, port), why)
      await assert.doesNotReject(client.http(vip, 80), why)
    }
    for (let round = 0; round < 3; round++) assert.deepEqual(await bench.plane.audit(), [])
  })

  test('names are answered while no daemon runs, by a resolver that the next daemon takes over', async () => {
    await apply([web([one, two])])
    const pidOf = () => readFileSync(join(bench.stateDir, 'resolver.pid'), 'utf8').trim()
    const pid = pidOf()
    // It has its turn before whatever makes the node busy.
    assert.ok(getPriority(Number(pid)) < getPriority())
    await bench.plane.close()
    assert.deepEqual((await client.dns(front.gateway, 'web')).data, [vip])
    await bench.reopen()
    await apply([web([one])])
    assert.equal(pidOf(), pid)
    assert.deepEqual((await client.dns(front.gateway, 'tasks.web')).data, ['10.213.2.11'])
    process.kill(Number(pid), 'SIGKILL')
    await waitFor(async () => {
      const answer = await client.dns(front.gateway, 'web').catch(() => undefined)
      return answer?.data[0] === vip
    })
    assert.notEqual(pidOf(), pid)
    // A process that does not answer is replaced by the audit.
    process.kill(Number(pidOf()), 'SIGSTOP')
    assert.match((await bench.plane.audit()).join(), /resolver did not answer/)
    assert.deepEqual((await client.dns(front.gateway, 'web')).data, [vip])
  })

  test('what an earlier daemon left stays until the next one is told what should be', async () => {
    await apply([web([one])])
    await bench.plane.close()
    await bench.reopen()
    await bench.plane.ensureNetwork(bench.network('later', 40))
    assert.deepEqual(await bench.plane.audit(), [])
    assert.deepEqual((await client.dns(front.gateway, 'web')).data, [vip])
    assert.equal((await client.http(vip, 80)).hostname, 'one')
    assert.equal((await outside.http(hostAddress, port)).hostname, 'one')
    await apply([web([two])])
    assert.equal((await client.http(vip, 80)).hostname, 'two')
  })

  test('no connection is lost while backends come and go, and daemons too', async () => {
    const sets = [[one, two], [one], [one, two], [two]]
    let count = 0
    let isOver = false
    const lost: unknown[] = []
    const ask = async (probe: Probe, address: string, atPort: number) => {
      while (!isOver) {
        await probe.http(address, atPort).catch((error: unknown) => lost.push(error))
        count++
      }
    }
    const askers = [
      ask(host, '127.0.0.1', port),
      ask(outside, hostAddress, port),
      ask(client, vip, 80),
    ]
    for (let round = 0; round < 24; round++) {
      await apply([web(sets[round % sets.length] ?? [])])
      if (round % 6 !== 5) continue
      await bench.plane.close()
      await bench.reopen()
    }
    isOver = true
    await Promise.all(askers)
    assert.deepEqual(lost, [])
    assert.ok(count > 50)
  })

  test('a network of a foreign engine network’s name is refused, one whose subnet is still in use waits', async () => {
    const foreign = bench.network('foreign', 9, { name: 'bridge' })
    await assert.rejects(bench.plane.ensureNetwork(foreign), { code: 'conflict' })
    const overlapping = bench.network('overlap', 2)
    await assert.rejects(bench.plane.ensureNetwork(overlapping), { code: 'unavailable' })
  })

  test('clear leaves no trace', async () => {
    await bench.removeContainers()
    await bench.plane.clear()
    const text = { encoding: 'utf8' } as const
    assert.throws(() => execFileSync('nft', ['list', 'table', 'ip', 'net-a'], { stdio: 'pipe' }))
    assert.doesNotMatch(execFileSync('iptables', ['-S'], text), /skep-net-a/)
    assert.doesNotMatch(execFileSync('docker', ['network', 'ls'], text), /net-a/)
    const devices = execFileSync('ip', ['link', 'show'], text)
    for (const { id } of [ingress, front, inner]) assert.ok(!devices.includes(bridgeName(id)))
    assert.deepEqual(await bench.plane.audit(), [])
  })
})

/** An address whose node is gone. */
function lostNeighbour(network: NetworkAssignment, address: string) {
  return {
    id: `${network.id}/${address}`,
    networkId: network.id,
    address,
    mac: '02:42:0a:d5:02:0b',
    nodeId: idFrom<'node'>('lost'),
    nodeAddress: '192.0.2.9',
    isLost: true as const,
  }
}

/** Waits for something that another process does by itself, for less time than the kernel needs to forget a connection. */
async function waitFor(isSo: () => Promise<boolean>, what = 'it'): Promise<void> {
  const endMs = performance.now() + 60_000
  while (!(await isSo())) {
    assert.ok(performance.now() < endMs, `${what}: never came to be`)
    await sleep(50)
  }
}
