import { checkKeys, countAt, fault, listAt, mappingAt, requiredTextAt, textAt } from './reader.ts'
import type { PortBody } from './service-spec.ts'

const protocols = ['tcp', 'udp', 'sctp']
const modes = ['ingress', 'host']

/** Reads `ports` of a service, in its short and long form. */
export function parsePorts(
  path: string,
  json: unknown,
  warn: (text: string) => void,
): readonly PortBody[] | undefined {
  if (json === undefined || json === null) return undefined
  return listAt(path, json).flatMap((item, index) => {
    const here = `${path}[${index}]`
    if (typeof item === 'string' || typeof item === 'number') {
      return parseShortPort(here, String(item), warn)
    }
    const value = mappingAt(here, item)
    checkKeys(here, value, ['mode', 'target', 'published', 'protocol'])
    const target = portNumber(`${here}.target`, requiredTextAt(`${here}.target`, value['target']))
    const published = countAt(`${here}.published`, value['published'])
    if (published !== undefined && published > 65_535) {
      throw fault(`${here}.published`, `is ${published}, which is no port`)
    }
    const protocol = choice(`${here}.protocol`, value['protocol'], protocols)
    const mode = choice(`${here}.mode`, value['mode'], modes)
    return [
      {
        ...(protocol !== undefined && { Protocol: protocol }),
        TargetPort: target,
        ...(published !== undefined && published > 0 && { PublishedPort: published }),
        ...(mode !== undefined && { PublishMode: mode }),
      },
    ]
  })
}

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

function choice(path: string, value: unknown, choices: readonly string[]): string | undefined {
  const text = textAt(path, value)
  if (text === undefined || choices.includes(text)) return text
  throw fault(path, `is "${text}", which is none of ${choices.join(', ')}`)
}
