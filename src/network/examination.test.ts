import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type HostSettings, judgeHost, parseDroppingChains } from './examination.ts'
import { parseCounts, renderProbeTable } from './path-probe.ts'
import { buildNetwork } from './test-objects.ts'

const net = buildNetwork('net', { subnet: '10.0.1.0/24', gateway: '10.0.1.1' })
const bridge = `sk-${net.id.slice(0, 10)}`
const good: HostSettings = {
  sysctls: { ip_forward: 1, 'bridge-nf-call-iptables': 1, rp_filter: 0 },
  iptables: `-P FORWARD DROP\n-A FORWARD -i ${bridge} -o ${bridge} -j ACCEPT`,
  droppingChains: [],
}
const foreign = { family: 'inet', table: 'fw', chain: 'in' }

describe('what cluster networks depend on in a host', () => {
  const cases: readonly (readonly [string, Partial<HostSettings>, RegExp | undefined])[] = [
    ['all is well', {}, undefined],
    ['no forwarding', { sysctls: { ip_forward: 0 } }, /forwards no packets/],
    ['the engine’s rules are gone', { iptables: '-P FORWARD DROP' }, /no rule for the bridge sk-/],
    ['nobody drops', { iptables: '-P FORWARD ACCEPT' }, undefined],
    [
      'another firewall for input',
      { droppingChains: [{ ...foreign, hook: 'input', rules: 'tcp dport 22 accept' }] },
      /chain inet fw in drops what comes in and does not name udp port 4789/,
    ],
    [
      'one that lets the port in',
      { droppingChains: [{ ...foreign, hook: 'input', rules: 'udp dport 4789 accept' }] },
      undefined,
    ],
    [
      'another firewall for forwarding',
      { droppingChains: [{ ...foreign, hook: 'forward', rules: 'ct state established accept' }] },
      /drops what is forwarded and does not name the bridges/,
    ],
    [
      'one that knows the bridges',
      { droppingChains: [{ ...foreign, hook: 'forward', rules: 'iifname "sk-*" accept' }] },
      undefined,
    ],
    [
      'what iptables shows already',
      {
        droppingChains: [
          { family: 'ip', table: 'filter', chain: 'FORWARD', hook: 'forward', rules: '' },
        ],
      },
      undefined,
    ],
  ]
  for (const [name, settings, want] of cases) {
    test(name, () => {
      const findings = judgeHost({ ...good, ...settings }, [net], 4789)
      assert.equal(findings.length, want ? 1 : 0)
      if (want) assert.match(findings[0]?.what ?? '', want)
    })
  }

  test('chains that drop are found among the others', () => {
    const listing = `table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
	chain DOCKER {
	}
}
table inet fw {
	chain in {
		type filter hook input priority filter - 5; policy drop;
	}
}
`
    assert.deepEqual(parseDroppingChains(listing), [
      { family: 'ip', table: 'filter', chain: 'FORWARD', hook: 'forward' },
      { family: 'inet', table: 'fw', chain: 'in', hook: 'input' },
    ])
  })
})

test('test packets are told apart by sender and size, and counted', () => {
  const order = {
    ...{ token: 0xabcdef, own: 0, address: '192.0.2.1', port: 4789, largeBytes: 1500 },
    peers: [{ sender: 3, address: '192.0.2.4' }],
  }
  const text = renderProbeTable('t', order)
  assert.match(text, /@th,96,32 0xabcdef06 counter name "small-arrived-3"/)
  assert.match(text, /@th,96,32 0xabcdef07 counter name "large-accepted-3"/)
  const json = JSON.stringify({
    nftables: [
      { counter: { family: 'inet', name: 'small-arrived-3', table: 't', packets: 3, bytes: 9 } },
      { counter: { family: 'inet', name: 'large-arrived-3', table: 't', packets: 1, bytes: 9 } },
    ],
  })
  assert.deepEqual(parseCounts(json, order), [
    { sender: 3, smallArrived: 3, smallAccepted: 0, largeArrived: 1, largeAccepted: 0 },
  ])
})
