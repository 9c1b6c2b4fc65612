import type { DeviceMapping, ExtraHost, Port, PortRange, ServiceVolume, Ulimit } from './project.ts'
import { isMapping } from './reader.ts'
import { absolutePath, pairText } from './scalars.ts'
import {
  type Place,
  type RecordOf,
  type Shape,
  shapeOf,
  supported,
  textOf,
  wrong,
} from './shape.ts'

/** `{K: v}` or `[K=v]`. A list's item without a value, and a key without one, are `whenBare`. */
function pairs<T extends string | null>(whenBare: T): Shape<RecordOf<T | string>> {
  const expects = 'a mapping or a list of KEY=value'
  return shapeOf<RecordOf<T | string>>({
    expects,
    parse: (value, at) => {
      if (Array.isArray(value)) {
        return Object.fromEntries(
          value.map((item, index): [string, T | string] => {
            const pair = textOf(item, at.to(index), 'KEY=value')
            const equals = pair.indexOf('=')
            if (equals < 0) return [pair, whenBare]
            return [pair.slice(0, equals), pair.slice(equals + 1)]
          }),
        )
      }
      if (!isMapping(value)) throw wrong(at, expects, value)
      return Object.fromEntries(
        Object.entries(value).flatMap(([key, item]): [string, T | string][] => {
          const here = at.to(key)
          const found = here.untagged(item)
          if (found === undefined) return []
          return [[key, found === null ? whenBare : pairText(found, here)]]
        }),
      )
    },
    merge: (before, after) => ({ ...before, ...after }),
  })
}

/** Labels and options: no value is the empty one. */
export const labels: Shape<RecordOf<string>> = pairs('')
/** Variables: no value is `null`, to be found elsewhere. */
export const variables: Shape<RecordOf<string | null>> = pairs(null)

const protocols = ['tcp', 'udp', 'sctp'] as const

/** Reads a port of the short form; ranges stand for several. Throws `invalidInput`. Source: Compose specification, "ports". */
export function shortPorts(value: unknown, at: Place): readonly Port[] | undefined {
  if (typeof value !== 'string' && typeof value !== 'number') return undefined
  const given = String(value)
  const [, spec = '', protocol = 'tcp'] = /^(.*?)(?:\/([a-zA-Z]+))?$/.exec(given) ?? []
  const parts = /^(?:(?:(\[[^\]]*\]|[^:[\]]*(?::[^:[\]]*:[^:[\]]*)*):)?([^:]*):)?([^:]+)$/.exec(
    spec,
  )
  const bad = () => at.fault(`"${given}" is not a port`, 'Write it as 8080:80 or 53:53/udp.')
  if (!parts?.[3] || !protocols.some((one) => one === protocol.toLowerCase())) throw bad()
  const [, address, published = '', target] = parts
  const hostIp = address?.replace(/^\[(.*)\]$/, '$1')
  if (
    hostIp !== undefined &&
    hostIp !== '' &&
    !/^(\d+(\.\d+){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$/.test(hostIp)
  ) {
    throw bad()
  }
  const to = portRange(target, at)
  const from = published === '' ? undefined : portRange(published, at)
  if (to === undefined || (published !== '' && from === undefined)) throw bad()
  const many = to.last - to.first
  if (
    from !== undefined &&
    from.last - from.first !== many &&
    (many > 0 || at.reading.dialect === 'stack')
  ) {
    throw at.fault(`"${given}" has ranges of unequal length`)
  }
  return Array.from({ length: many + 1 }, (_, index) => ({
    mode: 'ingress',
    ...(hostIp && { hostIp }),
    target: to.first + index,
    ...(from !== undefined && {
      published: many > 0 ? single(from.first + index) : from,
    }),
    protocol: protocols.find((one) => one === protocol.toLowerCase()) ?? 'tcp',
  }))
}

const single = (port: number): PortRange => ({ first: port, last: port })

function portRange(given: string, at: Place): PortRange | undefined {
  const match = /^(\d+)(?:-(\d+))?$/.exec(given)
  if (!match?.[1]) return undefined
  const first = checkedPort(Number(match[1]), at)
  const last = match[2] === undefined ? first : checkedPort(Number(match[2]), at)
  if (last < first) throw at.fault(`the range ${given} ends before it begins`)
  return { first, last }
}

function checkedPort(port: number, at: Place): number {
  if (Number.isInteger(port) && port > 0 && port < 65_536) return port
  throw at.fault(`names the port ${port}`, 'Ports lie between 1 and 65535.')
}

/** The port in the container. */
export const targetPort: Shape<number> = shapeOf({
  expects: 'a port',
  parse: (value, at) => {
    const port = typeof value === 'string' ? Number(value || Number.NaN) : value
    if (typeof port !== 'number') throw wrong(at, 'a port', value)
    return checkedPort(port, at)
  },
})

/** A published port or a range of them; 0 and the empty text are none, told as port 0. */
export const publishedPorts: Shape<PortRange> = shapeOf<PortRange>({
  expects: 'a port or a range as 8000-8010',
  parse: (value, at) => {
    const given = textOf(value, at, 'a port or a range as 8000-8010')
    if (given === '' || given === '0') return single(0)
    const range = portRange(given, at)
    if (range === undefined) throw wrong(at, 'a port or a range as 8000-8010', value)
    return range
  },
  write: ({ first, last }) => (first === last ? String(first) : `${first}-${last}`),
})

/** `cached` and its like. */
export const consistencyIsIdle = 'a mount on Linux is always consistent'

const propagations = ['rprivate', 'private', 'rshared', 'shared', 'rslave', 'slave']

/** Reads a volume of the short form: `[source:]target[:options]`. Source: Compose specification, "volumes". */
export function shortVolume(value: unknown, at: Place): ServiceVolume | undefined {
  if (typeof value !== 'string') return undefined
  const bad = () =>
    at.fault(`"${value}" is not a volume`, 'Write it as source:/target or source:/target:ro.')
  // A drive letter of Windows holds a colon of its own.
  const parts = value.match(/(?:^|(?<=:))(?:[a-zA-Z]:(?=\\))?[^:]*/g) ?? []
  const [first = '', second, optionText] = parts
  if (parts.length > 3 || parts.some((part) => part === '')) throw bad()
  if (second === undefined) return { type: 'volume', target: mountTarget(first, at) }
  const isBind = /^([./~]|[a-zA-Z]:\\|\\\\)/.test(first)
  let readOnly: boolean | undefined
  let nocopy: boolean | undefined
  let consistency: string | undefined
  let propagation: string | undefined
  let selinux: 'z' | 'Z' | undefined
  for (const option of optionText?.split(',') ?? []) {
    if (option === 'ro') readOnly = true
    else if (option === 'rw') readOnly = undefined
    else if (option === 'nocopy') nocopy = true
    else if (propagations.includes(option)) propagation = option
    else if (option === 'z' || option === 'Z') selinux = option
    else if (['cached', 'delegated', 'consistent', 'default'].includes(option)) consistency = option
    else throw at.fault(`has the unknown option ${option}`)
  }
  const isStack = at.reading.dialect === 'stack'
  if (isStack && selinux !== undefined) at.reading.onIdle(`${at.text()}: the option ${selinux}`, '')
  if (consistency !== undefined) {
    const why = isStack ? '' : consistencyIsIdle
    at.reading.onIdle(`${at.text()}: the option ${consistency}`, why)
  }
  const bind = {
    ...(propagation !== undefined && { propagation }),
    ...(!isStack && { createHostPath: true }),
    ...(selinux !== undefined && !isStack && { selinux }),
  }
  return {
    type: isBind ? 'bind' : 'volume',
    source: isBind ? absolutePath(first, at) : first,
    target: mountTarget(second, at),
    ...(readOnly !== undefined && { readOnly }),
    ...(consistency !== undefined && !isStack && { consistency }),
    ...(isBind && Object.keys(bind).length > 0 && { bind }),
    ...(!isBind && nocopy !== undefined && { volume: { nocopy } }),
  }
}

/** A path in a container. */
export function mountTarget(given: string, at: Place): string {
  if (given.startsWith('/') || given.includes('{{') || /^([a-zA-Z]:[\\/]|\\\\)/.test(given))
    return given
  if (at.reading.isRaw && given.includes('$')) return given
  throw at.fault(`mounts at "${given}"`, 'Write the target as an absolute path in the container.')
}

/** `/dev/a[:/dev/b[:rwm]]`; also a name of the CDI form `vendor/class=name`. */
export function shortDevice(value: unknown, at: Place): DeviceMapping | undefined {
  if (typeof value !== 'string') return undefined
  const [source = '', target, permissions] = value.split(':')
  if (source === '' || value.split(':').length > 3) {
    throw at.fault(`"${value}" is not a device`, 'Write it as /dev/a:/dev/b:rwm.')
  }
  const onlyPermissions =
    target !== undefined && permissions === undefined && /^[rwm]+$/.test(target)
  return {
    source,
    ...(target !== undefined && target !== '' && !onlyPermissions && { target }),
    ...((permissions !== undefined || onlyPermissions) && {
      permissions: permissions ?? target ?? '',
    }),
  }
}

/** `{host: address}` or `{host: [address]}`, `[host:address]` or `[host=address]`. A mapping is told by name. */
export const extraHosts: Shape<readonly ExtraHost[]> = shapeOf<readonly ExtraHost[]>({
  expects: 'a mapping or a list of host=address',
  parse: (value, at) => {
    if (Array.isArray(value)) {
      return value.map((item, index) => {
        const here = at.to(index)
        const given = textOf(item, here, 'host=address')
        const match = /^([^:=]+)[:=](.+)$/.exec(given)
        if (!match?.[1] || !match[2]) throw here.fault(`"${given}" is not host=address`)
        return { host: match[1].trim(), address: bareAddress(match[2].trim()) }
      })
    }
    if (!isMapping(value)) throw wrong(at, 'a mapping or a list of host=address', value)
    return Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([host, given]) => {
        const all: readonly unknown[] = Array.isArray(given) ? given : [given]
        return all.map((address) => ({ host, address: bareAddress(textOf(address, at.to(host))) }))
      })
  },
  merge: (before, after, dialect) => {
    if (dialect === 'stack') return [...before, ...after]
    const byText = new Map([...before, ...after].map((one) => [`${one.host}=${one.address}`, one]))
    return [...byText.values()]
  },
  write: (hosts) => hosts.map(({ host, address }) => `${host}=${address}`),
})

const bareAddress = (address: string) => address.replace(/^\[(.*)\]$/, '$1')

/** One number for both limits, or both. */
export const ulimit: Shape<Ulimit> = shapeOf<Ulimit>({
  expects: 'a whole number, or soft and hard',
  parse: (value, at) => {
    if (!isMapping(value)) {
      const both = limitOf(value, at)
      return { soft: both, hard: both }
    }
    for (const key of Object.keys(value)) {
      if (key !== 'soft' && key !== 'hard' && !key.startsWith('x-')) {
        throw at.to(key).fault('is not supported', 'A limit has soft and hard.')
      }
    }
    const { soft, hard } = value
    if (soft === undefined || hard === undefined) throw at.fault('needs both soft and hard')
    return { soft: limitOf(soft, at.to('soft')), hard: limitOf(hard, at.to('hard')) }
  },
  write: ({ soft, hard }) => (soft === hard ? soft : { soft, hard }),
  inside: {
    kind: 'fields',
    fields: [
      { name: 'soft', compose: supported, stack: supported },
      { name: 'hard', compose: supported, stack: supported },
    ],
  },
})

function limitOf(value: unknown, at: Place): number {
  const limit = typeof value === 'string' && value.trim() !== '' ? Number(value) : value
  if (value === 'unlimited') return -1
  if (typeof limit === 'number' && Number.isSafeInteger(limit) && limit >= -1) return limit
  throw wrong(at, 'a whole number, -1 or more', value)
}
