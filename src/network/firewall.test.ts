import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { whatKeepsOut } from './firewall.ts'

describe("a firewall that keeps out other nodes' packets", () => {
  const cases = [
    { name: 'an open host', rules: '-P INPUT ACCEPT', isKept: false },
    { name: 'a policy', rules: '-P INPUT DROP', isKept: true },
    {
      name: 'a policy with the port open',
      rules: '-P INPUT DROP\n-A INPUT -p udp -m udp --dport 4789 -j ACCEPT',
      isKept: false,
    },
    {
      name: 'a rule for the port',
      rules: '-P INPUT ACCEPT\n-A INPUT -p udp -m udp --dport 4789 -j DROP',
      isKept: true,
    },
    {
      name: 'a rule for all at the end, behind others that are about something else',
      rules:
        '-P INPUT ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-port-unreachable',
      isKept: true,
    },
    {
      name: 'chains that others made',
      rules:
        '-P INPUT DROP\n-A INPUT -j ufw-user\n-A ufw-user -p udp -m udp --dport 4789 -m comment --comment "from nodes" -j ACCEPT',
      isKept: false,
    },
    {
      name: 'a chain that is left before it drops',
      rules:
        '-P INPUT ACCEPT\n-A INPUT -j theirs\n-A theirs -p udp -m udp --dport 4789 -j RETURN\n-A theirs -j DROP',
      isKept: false,
    },
    {
      name: 'a longer port that begins alike',
      rules: '-P INPUT ACCEPT\n-A INPUT -p udp -m udp --dport 47890 -j DROP',
      isKept: false,
    },
  ]
  for (const { name, rules, isKept } of cases) {
    test(name, () => {
      const why = whatKeepsOut(rules, 4789)
      assert.equal(why !== undefined, isKept)
      if (isKept) assert.match(why ?? '', /udp port 4789.*iptables -I INPUT/)
    })
  }
})
