/**
 * Whether another's firewall keeps out what other nodes send for cluster networks: in words with what to do, or undefined.
 * `rules` is what `iptables -S` printed. Rules are read from the first: one that takes or drops the port decides, one that
 * is about something else (an interface, an address, another port) is passed by.
 */
export function whatKeepsOut(rules: string, port: number): string | undefined {
  const lines = rules.split('\n').map((line) => line.trim())
  const verdict = verdictOf('INPUT', lines, port, 0) ?? policyOf(lines)
  if (verdict !== 'DROP' && verdict !== 'REJECT') return undefined
  return (
    `the host's firewall (chain INPUT) keeps out udp port ${port}, by which other nodes send the packets of cluster ` +
    `networks: iptables -I INPUT -p udp --dport ${port} -j ACCEPT`
  )
}

/** Chains that lead to others are followed so deep. */
const depthMax = 5

function policyOf(lines: readonly string[]): string | undefined {
  return lines.map((line) => /^-P INPUT (\S+)$/.exec(line)?.[1]).find((policy) => policy)
}

/** What becomes of a new udp packet to the port from anywhere; undefined: the chain leaves it to its caller. */
function verdictOf(
  chain: string,
  lines: readonly string[],
  port: number,
  depth: number,
): string | undefined {
  for (const line of lines) {
    const target = / -j (\S+)/.exec(line)?.[1]
    if (!line.startsWith(`-A ${chain} `) || target === undefined) continue
    const match = line.slice(`-A ${chain} `.length).replace(/ ?-j .*$/, '')
    if (!isMet(match, port)) continue
    if (target === 'RETURN') return undefined
    if (target === 'ACCEPT' || target === 'DROP' || target === 'REJECT') return target
    if (depth >= depthMax) continue
    const inside = verdictOf(target, lines, port, depth + 1)
    if (inside !== undefined) return inside
  }
  return undefined
}

/** Whether any new udp packet to the port meets the conditions, for all that can be said without knowing its sender. */
function isMet(match: string, port: number): boolean {
  const rest = match
    .replace(/-m (udp|comment)\b/g, '')
    .replace(/--comment ("[^"]*"|\S+)/g, '')
    .replace(/-p udp\b/g, '')
    .replace(`--dport ${port} `, '')
    .replace(new RegExp(`--dport ${port}$`), '')
    .replace(/-m conntrack --ctstate \S*NEW\S*/g, '')
    .trim()
  return rest === ''
}
