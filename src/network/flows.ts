interface Flow {
  /** As its client asked. */
  readonly to: string
  readonly port: string
  /** Who answers. */
  readonly from: string
}

function parseFlows(listing: string): readonly Flow[] {
  return listing.split('\n').map((line): Flow => {
    const fields = [...line.matchAll(/\b(src|dst|sport|dport)=(\S+)/g)]
    const value = (name: string, direction: 0 | 1) =>
      fields.filter(([, key]) => key === name)[direction]?.[2] ?? ''
    return { to: value('dst', 0), port: value('dport', 0), from: value('src', 1) }
  })
}

/** Those of these destinations (VIPs and published ports) that flows of a listing go to. */
export function destinationsIn(
  listing: string,
  destinations: { readonly has: (destination: string) => boolean },
): ReadonlySet<string> {
  const found = parseFlows(listing).flatMap(({ to, port }) => [to, port])
  return new Set(found.filter((destination) => destinations.has(destination)))
}

/**
 * Which udp flows of a listing (`conntrack -L`) go where their destination sends nothing any more, as the arguments that
 * select them for deletion. Flows with the same destination and backend share one.
 */
export function staleFlows(
  listing: string,
  /** By VIP, and by published port. */
  backends: ReadonlyMap<string, ReadonlySet<string>>,
  /** Published ports are those of the host's own addresses; others' are not touched. */
  isLocal: (address: string) => boolean,
): readonly (readonly string[])[] {
  const selections = new Map<string, readonly string[]>()
  for (const { to, port, from } of parseFlows(listing)) {
    const byAddress = backends.get(to)
    const allowed = byAddress ?? backends.get(port)
    if (!allowed || from === '' || allowed.has(from)) continue
    if (!byAddress && !to.startsWith('127.') && !isLocal(to)) continue
    selections.set(`${to} ${port} ${from}`, [
      ...['--orig-dst', to],
      ...['--orig-port-dst', port],
      ...['--reply-src', from],
    ])
  }
  return [...selections.values()]
}

/** Those of these addresses that connections of a listing are answered from. */
export function answering(listing: string, addresses: ReadonlySet<string>): ReadonlySet<string> {
  const found = new Set<string>()
  for (const line of listing.split('\n')) {
    const [, from] = [...line.matchAll(/\bsrc=(\S+)/g)].map(([, address = '']) => address)
    if (from !== undefined && addresses.has(from)) found.add(from)
  }
  return found
}
