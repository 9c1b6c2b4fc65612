import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { formCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually } from './support/daemon.ts'

describe('skep net doctor', { skip: (await whyNoLab()) ?? false }, () => {
  let lab: Lab
  let one: LabHost
  let two: LabHost
  let three: LabHost
  /** Exit code, and the findings as `node: what`. */
  const examine = async (...flags: readonly string[]) => {
    const { code, stdout, stderr } = await one.skep('net', 'doctor', '--json', ...flags)
    assert.match(stdout, /^\{/, stderr)
    const report: { Findings: { Node: string; What: string }[]; PathsTested: number } =
      JSON.parse(stdout)
    const findings = report.Findings.map(({ Node, What }) => `${Node}: ${What}`)
      // Devices follow the packet size of the way, and say so.
      .filter((finding) => !/the VXLAN device \S+ had changed/.test(finding))
    return { code, findings, pathsTested: report.PathsTested }
  }
  /** What is found while something is broken, and that nothing is once it is mended. */
  const finds = async (
    want: readonly RegExp[],
    breakIt: () => Promise<unknown>,
    mend: () => Promise<unknown>,
  ) => {
    await breakIt()
    const { code, findings } = await examine()
    await mend()
    assert.equal(code, 1, findings.join('\n'))
    for (const pattern of want) assert.match(findings.join('\n'), pattern)
    assert.equal(findings.length, want.length, findings.join('\n'))
    await eventually(
      'nothing is wrong any more',
      async () => (await examine()).findings.length === 0,
    )
  }

  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true })
    const [first, second, third] = lab.hosts
    assert(first && second && third)
    one = first
    two = second
    three = third
    await formCluster(one, { worker: [two, three] })
    await one.skepDockerOk('network', 'create', '-d', 'overlay', 'net')
    await one.skepDockerOk(
      ...['service', 'create', '--name', 'web', '--mode', 'global', '--network', 'net'],
      ...['-p', '8080:80', 'whoami:v1'],
    )
    // A node is told of what runs elsewhere after that runs.
    await eventually('the networks of all nodes are settled', async () => {
      const { findings, pathsTested } = await examine()
      return findings.length === 0 && pathsTested === 6
    })
  })
  after(() => lab.down())

  test('finds nothing where all is well, and has tested every way', async () => {
    const { code, findings, pathsTested } = await examine()
    assert.deepEqual([code, findings, pathsTested], [0, [], 6])
  })

  test('tells a way that is cut from a firewall of the host', async () => {
    await finds(
      [/node2: .* from node1 .* arrive, and the firewall of node2 drops them/],
      () => two.must(...ruleFrom(one, '-I')),
      () => two.must(...ruleFrom(one, '-D')),
    )
    await finds(
      [/node3: .* from node1 .* do not arrive/, /node3: .* from node2 .* do not arrive/],
      () => three.must('sh', '-c', load('ip', 'prerouting priority -400; udp dport 4789 drop')),
      () => three.must('nft', 'delete', 'table', 'ip', 'elsewhere'),
    )
  })

  test('finds packets too large for the way', async () => {
    await finds(
      [
        /node1: large packets from node1 .* to node2/,
        /node1: large packets from node1 .* to node3/,
      ],
      () => one.must('ip', 'link', 'set', 'dev', 'eth0', 'mtu', '1600'),
      () => one.must('ip', 'link', 'set', 'dev', 'eth0', 'mtu', '1500'),
    )
  })

  test('names settings and firewalls of the host that are in the way', async () => {
    await finds(
      [/node2: the kernel forwards no packets/],
      () => two.must('sysctl', '-w', 'net.ipv4.ip_forward=0'),
      () => two.must('sysctl', '-w', 'net.ipv4.ip_forward=1'),
    )
    await finds(
      [/node2: the nftables chain inet elsewhere one drops what is forwarded/],
      () => two.must('sh', '-c', load('inet', 'forward priority 0; policy drop;')),
      () => two.must('nft', 'delete', 'table', 'inet', 'elsewhere'),
    )
  })

  test('says what it found broken and repaired', async () => {
    await eventually('it says what was gone', async () => {
      const vxlan = (await three.must('ip', '-br', 'link')).match(/^sv-\w+/m)?.[0] ?? ''
      await three.must('ip', 'link', 'del', vxlan)
      const { findings } = await examine('--node', 'node3')
      // The node looks by itself every few seconds, and may have been faster: then there was nothing to find.
      return /node3: the VXLAN device sv-\w+ was gone/.test(findings.join('\n'))
    })
    assert.deepEqual((await examine()).findings, [])
  })
})

const ruleFrom = (host: LabHost, verb: string) => [
  ...['iptables', verb, 'INPUT', '-s', host.address],
  ...['-p', 'udp', '--dport', '4789', '-j', 'DROP'],
]

/** A table of another firewall, with one chain. */
const load = (family: string, hook: string) =>
  `printf 'table ${family} elsewhere {\\nchain one {\\ntype filter hook ${hook}\\n}\\n}\\n' | nft -f -`
