import { fault } from './reader.ts'
import type { PortBody } from './service-spec.ts'

/** Reads `80`, `8080:80`, `9000-9001:90-91`, `53:53/udp`, `127.0.0.1:80:80`. Throws `invalidInput` on anything else. */
export function parseShortPort(
  path: string,
  text: string,
  warn: (text: string) => void,
): readonly PortBody[] {
  const match =
    /^(?:(\[[0-9a-fA-F:.]+\]|\d+(?:\.\d+){3}):)?(?:(\d*(?:-\d+)?):)?(\d+)(?:-(\d+))?(?:\/(tcp|udp|sctp))?$/i.exec(
      text,
    )
  if (!match?.[3]) throw fault(path, `"${text}" is not a port`, 'Write it as 8080:80 or 53:53/udp.')
  const [, address, publishedText = '', first, last = first, protocol = 'tcp'] = match
  const [publishedFirst = '', publishedLast = publishedFirst] = publishedText.split('-')
  if (address !== undefined) {
    warn(
      `${path}: the address ${address} has no effect: a port is published on every address of every node`,
    )
  }
  const from = portNumber(path, first)
  const to = portNumber(path, last ?? first)
  const publishedFrom = publishedFirst === '' ? undefined : portNumber(path, publishedFirst)
  const publishedTo = publishedLast === '' ? undefined : portNumber(path, publishedLast)
  if (
    to < from ||
    (publishedFrom !== undefined && (publishedTo ?? 0) - publishedFrom !== to - from)
  ) {
    throw fault(path, `"${text}" has ranges of unequal length`)
  }
  return Array.from({ length: to - from + 1 }, (_, index) => ({
    Protocol: protocol.toLowerCase(),
    TargetPort: from + index,
    ...(publishedFrom !== undefined && { PublishedPort: publishedFrom + index }),
    PublishMode: 'ingress',
  }))
}

function portNumber(path: string, text: string): number {
  const port = Number(text)
  if (Number.isInteger(port) && port > 0 && port < 65_536) return port
  throw fault(path, `names the port ${text}`, 'Ports lie between 1 and 65535.')
}
